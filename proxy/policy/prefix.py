"""How does a prompt begin? Upstreams keep what they made of a prompt, and reuse it for the next that begins alike.

What counts is where the prompt begins in the body, not where the body begins: `"model"` or `"stream"` before it change
nothing in the cache. The first key that can hold a prompt is searched in the raw bytes, for to decode a body of a
megabyte costs more than all the rest of the proxy. A quote inside a JSON string is escaped, so what is found is a key.
"""

import re

PREFIX_BYTES = 1024  # some 250 tokens: enough to tell applications apart, not so much that each conversation differs
_SEARCHED_BYTES = 16 * 1024  # the fields before a prompt are small; a body that is no JSON is not searched for long
_PROMPT = re.compile(rb'"(?:messages|input|prompt|system|instructions|tools)"[ \t\r\n]*:')


def prompt_prefix(body: bytes) -> bytes:
    """The first PREFIX_BYTES of a JSON body from where its prompt begins; nothing where none is found. Never raises."""
    found = _PROMPT.search(body, 0, _SEARCHED_BYTES)
    return body[found.start() : found.start() + PREFIX_BYTES] if found else b""
