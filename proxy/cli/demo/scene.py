"""What the demo is made of: three providers as one meets them, and the configuration of a proxy before them.

A trial adds a fourth one, as the canary. Its rule is that of a real rollout with short steps: latencies that spread
little, and 20 calls a second, prove in half a minute what takes real traffic hours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from shutil import which
from sys import executable

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
RATE_PER_S = 6.0

CANARY = "next"
BASELINE_POOL, CANARY_POOL = "chat", "chat-next"
RULE = """\
canaries:
  next:
    baseline: chat
    canary: chat-next
    warmup: {{min_requests: 10, duration: 15s, weight: 5}}
    steps: [{{set_weight: 10}}, {{set_weight: 50}}, {{set_weight: 100}}]
    analysis:
      alpha: 0.01          # rolled back by mistake: at most 1 of 100
      alpha_advance: 0.05  # a step that should not be: at most 1 of 20
      interval: 1s
      min_step_duration: 20s
      min_samples: {{canary: 30, baseline: 100}}
      metrics:
        - {{name: ttft, allowed_increase: 1.10}}  # a failure is an endless wait
{errors}"""


@dataclass(frozen=True, slots=True)
class Trial:
    """A canary, and the rule by which it is judged, as YAML."""

    canary: Behaviour
    rule: str
    rate_per_s: float


BAD = Trial(
    Behaviour(name=CANARY, ttft_s=0.3, per_token_s=0.012, tokens=40, jitter=0.3, error_rate=0.08),
    RULE.format(errors="        - {name: errors, allowed_delta: 0.01}\n"),
    rate_per_s=15.0,
)
# What proves that errors are no more frequent is read when the longest streams have ended: 5 minutes later.
GOOD = Trial(
    Behaviour(name=CANARY, ttft_s=0.16, per_token_s=0.01, tokens=40, jitter=0.3),
    RULE.format(errors="        # with {name: errors} as well a step takes 5 minutes more\n"),
    rate_per_s=20.0,
)

TO_TRY = """\
Serinus answers on {root}/v1; no API key is needed.

curl -N {root}/v1/chat/completions -H 'content-type: application/json' \\
  -d '{{"model": "gpt-4.1", "stream": true,
       "messages": [{{"role": "user", "content": "Sing!"}}]}}'

OpenAI(base_url="{root}/v1", api_key="none")            # openai
Anthropic(base_url="{root}/anthropic", api_key="none")  # anthropic

{serinus} bench {root}/v1 --model gpt-4.1 --stream both
open {admin}/  # the status page, with a playground
{serinus} top --admin {admin}
curl {admin}/metrics
cat {config}"""


def command(started: str) -> str:
    """`serinus`; where a shell does not find it, for `make demo` activates no environment, what was `started` here."""
    if which("serinus") is not None:
        return "serinus"
    return join([executable, "-m", "proxy"] if started.endswith("__main__.py") else [started])


def behaviours(trial: Trial | None = None) -> list[Behaviour]:
    return [behaviour for behaviour, _ in PROVIDERS] + ([] if trial is None else [trial.canary])


def config(urls: Mapping[str, str], port: int, admin_port: int, state_dir: Path, trial: Trial | None = None) -> str:
    """The demo's configuration, as one would write it. `urls`: the upstreams', by name."""
    members = [f"      - {{upstream: {behaviour.name}, weight: {weight}}}" for behaviour, weight in PROVIDERS]
    routed = "" if trial is None else ", canary: next"
    if trial is not None:
        members += [f"  {CANARY_POOL}:", "    members:", f"      - {{upstream: {CANARY}}}"]
    return "\n".join(
        [
            f"listen: 127.0.0.1:{port}",
            f"admin: {{listen: 127.0.0.1:{admin_port}}}",
            f"state_dir: {state_dir}",
            "pre_drain: 0s",
            "drain_timeout: 2s",
            "upstreams:",
            *(f"  {behaviour.name}: {{base_url: {urls[behaviour.name]}}}" for behaviour in behaviours(trial)),
            "pools:",
            f"  {BASELINE_POOL}:",
            "    members:",
            *members,
            "routes:",
            f"  - {{prefix: /anthropic, pool: chat{routed}}}  # cut off: /anthropic/v1/messages becomes /v1/messages",
            f"  - {{prefix: /, pool: chat{routed}}}",
            "" if trial is None else trial.rule,
        ]
    )
