"""Configurations of other proxies, made into ours: who comes from elsewhere begins with what they have.

A conversion that keeps silent about what it left out is worse than none: it is found out in production. So everything
in the file is either converted, or named with its place, why, and what to do instead (`remarks.py`); there is no third
case, and a test holds that. Nothing here reads a file or asks a network: text and an environment in, text out.

`providers.py` knows where the providers are, `deployments.py` reads the entries of LiteLLM's `model_list`,
`upstreams.py` and `pools.py` sort them into ours, `leftovers.py` knows what has no counterpart, and `written.py` writes
what came of it. `litellm.py` puts them together.
"""
