"""What the callers and the two arms of a rehearsal are like.

The reference is an LLM API as measured: prompts of 8 to 32,000 tokens, median 600; a first byte after 0.12 s and 0.15
ms a token, spread by a factor of 1.6; 3 of 100 requests wait 0.5 s and more besides, with a heavy tail; 5 of 1,000
fail.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.model.quantities import parse_duration, parse_wait
from proxy.policy.canary.fields import Fields, number, whole

_SHARE = number(0, 1, "a share from 0 to 1")
_FACTOR = number(0.01, 1000, "a factor, such as 1.25")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Of one arm."""

    latency: float = 1.0  # a factor of the wait for the first byte
    chunk: float = 1.0  # a factor of the time per chunk
    errors: float = 0.005  # of requests fail after a usual wait
    fast_failures: float = 0.0  # of requests fail after `fast_s`
    fast_s: float = 0.03
    stalls: float = 0.0  # of streams stop for `stall_s`
    stall_s: float = 30.0
    refuses: float = 0.0  # of requests are answered 404
    hangs: float = 0.0  # of requests get no byte, and a timeout after `timeout_s`
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Noise:
    """What happens to both arms alike."""

    burst_every_s: float = 0.0  # 0: none
    burst_s: float = 60.0
    burst_latency: float = 5.0  # a factor
    burst_errors: float = 0.3
    follows_weight: float = 0.0  # latency grows with the weight, by so much at 100 %
    day_s: float = 86_400.0
    diurnal: float = 0.0  # the rate, and with it latency, swings by this share


@dataclass(frozen=True, slots=True)
class Scenario:
    per_minute: float = 600.0
    duration_s: float = 6 * 3600.0
    before_s: float = 0.0  # of baseline traffic before the rollout looks for the first time
    clients: int = 0  # 0: nobody has an id
    zipf: float = 1.1  # the k-th client makes 1/k^zipf of the first one's requests
    streams: float = 1.0  # share of requests
    baseline: Behaviour = field(default_factory=Behaviour)
    canary: Behaviour = field(default_factory=Behaviour)
    noise: Noise = field(default_factory=Noise)

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> "Scenario":
        """From YAML's mapping. Raises ValueError that names the place, what was found, and what would be right."""
        read = Fields(mapping)
        scenario = cls(
            per_minute=read.read("per_minute", number(0.001, 1e6, "requests a minute"), 600),
            duration_s=read.read("duration", parse_wait, "6h"),
            before_s=read.read("before", parse_duration, "0s"),
            clients=read.read("clients", whole(0, "how many, 0 for none"), 0),
            zipf=read.read("zipf", number(0, 5, "an exponent, such as 1.1"), 1.1),
            streams=read.read("streams", _SHARE, 1),
            baseline=_behaviour(read.fields("baseline")),
            canary=_behaviour(read.fields("canary")),
            noise=_noise(read.fields("noise")),
        )
        read.done()
        return scenario


def _behaviour(read: Fields) -> Behaviour:
    found = Behaviour(
        latency=read.read("latency", _FACTOR, 1),
        chunk=read.read("chunk", _FACTOR, 1),
        errors=read.read("errors", _SHARE, 0.005),
        fast_failures=read.read("fast_failures", _SHARE, 0),
        fast_s=read.read("fast", parse_wait, "30ms"),
        stalls=read.read("stalls", _SHARE, 0),
        stall_s=read.read("stall", parse_wait, "30s"),
        refuses=read.read("refuses", _SHARE, 0),
        hangs=read.read("hangs", _SHARE, 0),
        timeout_s=read.read("timeout", parse_wait, "2m"),
    )
    read.done()
    return found


def _noise(read: Fields) -> Noise:
    found = Noise(
        burst_every_s=read.read("burst_every", parse_duration, "0s"),
        burst_s=read.read("burst", parse_wait, "1m"),
        burst_latency=read.read("burst_latency", _FACTOR, 5),
        burst_errors=read.read("burst_errors", _SHARE, 0.3),
        follows_weight=read.read("follows_weight", number(0, 100, "a share, such as 1"), 0),
        day_s=read.read("day", parse_wait, "1d"),
        diurnal=read.read("diurnal", _SHARE, 0),
    )
    read.done()
    return found
