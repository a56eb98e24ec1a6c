"""What the demo is made of: three providers as one meets them, and the configuration of a proxy before them."""

from collections.abc import Mapping
from pathlib import Path

from proxy.simulation import Behaviour

# A quick one, a slower one that carries less, and one that fails now and then.
PROVIDERS = (
    (Behaviour(name="swift", ttft_s=0.15, per_token_s=0.01, tokens=40, jitter=0.3), 3),
    (Behaviour(name="steady", ttft_s=0.4, per_token_s=0.02, tokens=40, jitter=0.3), 2),
    (
        Behaviour(
            name="shaky", ttft_s=0.2, per_token_s=0.015, tokens=40, jitter=0.5, error_rate=0.05, error_status=503
        ),
        1,
    ),
)

TO_TRY = """\
Serinus answers on {root}/v1; no API key is needed.

curl -N {root}/v1/chat/completions -H 'content-type: application/json' \\
  -d '{{"model": "gpt-4.1", "stream": true,
       "messages": [{{"role": "user", "content": "Sing!"}}]}}'

OpenAI(base_url="{root}/v1", api_key="none")            # openai
Anthropic(base_url="{root}/anthropic", api_key="none")  # anthropic

serinus bench {root}/v1 --model gpt-4.1 --stream both
serinus top --admin {admin}
curl {admin}/metrics
cat {config}"""


def config(urls: Mapping[str, str], port: int, admin_port: int, state_dir: Path) -> str:
    """The demo's configuration, as one would write it. `urls`: the providers', by name."""
    members = [f"      - {{upstream: {behaviour.name}, weight: {weight}}}" for behaviour, weight in PROVIDERS]
    return "\n".join(
        [
            f"listen: 127.0.0.1:{port}",
            f"admin: {{listen: 127.0.0.1:{admin_port}}}",
            f"state_dir: {state_dir}",
            "pre_drain: 0s",
            "drain_timeout: 2s",
            "upstreams:",
            *(f"  {behaviour.name}: {{base_url: {urls[behaviour.name]}}}" for behaviour, _ in PROVIDERS),
            "pools:",
            "  chat:",
            "    members:",
            *members,
            "routes:",
            "  - {prefix: /anthropic, pool: chat}  # is cut off: /anthropic/v1/messages becomes /v1/messages",
            "  - {prefix: /, pool: chat}",
            "",
        ]
    )
