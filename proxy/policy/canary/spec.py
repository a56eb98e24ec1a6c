"""What an operator asks of a canary, read from the configuration's mapping.

`steps` are percent, as in Argo Rollouts and Flagger, and weights here are shares of 1. What is left out of `analysis`
is what the example in the documents shows; a warm-up, an SLO and a bake there are only where they are written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import pairwise
from json import dumps
from typing import Any

from proxy.model.quantities import parse_duration, parse_wait, shown
from proxy.policy.canary.analysis import Analysis, Metric, read_analysis
from proxy.policy.canary.events import EVENTS
from proxy.policy.canary.fields import Fields, items, number, one_of, text, whole, yes_or_no

_PERCENT = number(0, 100, "percent from 0 to 100")
_UNITS = ("request", "conversation", "client")


@dataclass(frozen=True, slots=True)
class Step:
    """A weight, or a pause: for `pause_s`, until resumed where that is None."""

    weight: float | None = None
    pause_s: float | None = None


@dataclass(frozen=True, slots=True)
class WarmUp:
    weight: float = 0.01
    min_requests: int = 200  # of the canary
    duration_s: float = 300.0
    max_duration_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Slo:
    """`ttft_share` of first bytes may come later than `ttft_s`; `error_rate` of requests may fail."""

    ttft_s: float | None = None
    ttft_share: float = 0.05
    error_rate: float | None = None

    def promised(self) -> dict[str, float]:
        """The share of bad requests that each of its numbers allows."""
        found = {} if self.ttft_s is None else {"ttft": self.ttft_share}
        return found if self.error_rate is None else found | {"errors": self.error_rate}


@dataclass(frozen=True, slots=True)
class CanarySpec:
    baseline: str
    canary: str
    steps: tuple[Step, ...]
    mode: str = "canary"
    max_concurrent: int = 4
    unit: str = "request"
    epoch_s: float = 3600.0
    force_header: bool = False
    warmup: WarmUp | None = None
    analysis: Analysis = field(default_factory=Analysis)
    slo: Slo | None = None
    bake_s: float = 0.0
    webhooks: tuple[tuple[str, tuple[str, ...]], ...] = ()  # URL and the events that it is told
    hash: str = ""  # of the mapping: a changed spec is another rollout

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> "CanarySpec":
        """Raises ValueError that names the place, what was found, and what would be right."""
        return _read_canary(mapping)

    @property
    def sticky(self) -> bool:
        return self.unit != "request"

    @property
    def judgements(self) -> int:
        """K: how often the evidence of a rollout is judged, one in reserve."""
        steps = sum(1 for step in self.steps if step.weight is not None and 0 < step.weight < 1)
        return steps + (self.warmup is not None) + 1 + self.sticky

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.analysis.metrics if metric.name == name), None)


def _read_canary(mapping: object) -> CanarySpec:
    read = Fields(mapping)
    spec = CanarySpec(
        baseline=read.read("baseline", text),
        canary=read.read("canary", text),
        steps=(),
        mode=read.read("mode", one_of("canary", "shadow"), "canary"),
        max_concurrent=read.read("max_concurrent", whole(1, "how many copies may run at once, 1 or more"), 4),
        unit=read.read("unit", _unit, "request"),
        epoch_s=read.read("epoch", parse_wait, "1h"),
        force_header=read.read("force_header", yes_or_no, False),
        warmup=_warmup(read),
        slo=_slo(read),
        bake_s=_bake(read),
        webhooks=tuple(_webhook(each, f"webhooks[{i}]") for i, each in enumerate(read.read("webhooks", items, []))),
    )
    if spec.baseline == spec.canary:
        raise ValueError(f"canary: {shown(spec.canary)} is the baseline as well: write another pool")
    weighed = read.has("weight")
    stepped = read.has("steps")
    weight = read.maybe("weight", _PERCENT)
    steps = tuple(_step(each, f"steps[{i}]") for i, each in enumerate(read.read("steps", items, [])))
    analysis = read_analysis(read.fields("analysis"), "evidence" if stepped else "none")
    read.done()
    if analysis.bands is not None:
        if weighed or stepped:
            raise ValueError("steps: bands move the weight themselves: write analysis.initial, min and max instead")
        steps = (Step(weight=analysis.bands.initial),)
    elif weighed == stepped:
        raise ValueError("steps: write either steps or a weight" + (", not both" if weighed else ""))
    elif weighed:
        steps = (Step(weight=(weight or 0.0) / 100),)
    else:
        _check_steps(steps)
    text_of_it = dumps(mapping, sort_keys=True, default=str)
    return replace(spec, steps=steps, analysis=analysis, hash=sha256(text_of_it.encode()).hexdigest()[:16])


def _unit(value: object) -> str:
    if isinstance(value, str) and (value in _UNITS or re.fullmatch(r"header:[!#$%&'*+.^_`|~0-9A-Za-z-]+", value)):
        return value
    raise ValueError(f"{shown(value)} is no unit: write request, conversation, client or header:NAME")


def _warmup(read: Fields) -> WarmUp | None:
    if not read.has("warmup"):
        read.fields("warmup")
        return None
    inner = read.fields("warmup")
    defaults = WarmUp()
    warmup = WarmUp(
        weight=inner.read("weight", number(0.01, 99, "percent above 0 and below 100"), 1) / 100,
        min_requests=inner.read("min_requests", whole(0, "how many requests of the canary"), defaults.min_requests),
        duration_s=inner.read("duration", parse_duration, "5m"),
        max_duration_s=inner.read("max_duration", parse_duration, "30m"),
    )
    inner.done()
    if warmup.max_duration_s < warmup.duration_s:
        raise ValueError("warmup.max_duration is shorter than warmup.duration: write at least as much")
    return warmup


def _slo(read: Fields) -> Slo | None:
    inner = read.fields("slo")
    error_rate = inner.maybe("error_rate", number(0.0001, 0.5, "a share, such as 0.02"))
    quantile = next((name for name in (f"ttft_p{p}" for p in range(1, 100)) if inner.has(name)), None)
    if quantile is None:
        inner.done()
        return None if error_rate is None else Slo(error_rate=error_rate)
    ttft_s = inner.read(quantile, parse_wait)
    inner.done()
    return Slo(ttft_s=ttft_s, ttft_share=1 - int(quantile.removeprefix("ttft_p")) / 100, error_rate=error_rate)


def _bake(read: Fields) -> float:
    inner = read.fields("bake")
    bake_s = inner.read("duration", parse_duration, "0s")
    inner.done()
    return bake_s


def _webhook(value: object, place: str) -> tuple[str, tuple[str, ...]]:
    inner = Fields(value, place)
    url = inner.read("url", text)
    events = inner.read("events", _events, list(EVENTS))
    inner.done()
    return url, events


def _events(value: object) -> tuple[str, ...]:
    return tuple(map(one_of(*EVENTS), items(value)))


def _step(value: object, place: str) -> Step:
    inner = Fields(value, place)
    if inner.has("set_weight") == inner.has("pause"):
        raise ValueError(f"{place}: a step is one of two: write set_weight: 25, or pause: {{duration: 10m}}")
    if inner.has("set_weight"):
        step = Step(weight=inner.read("set_weight", _PERCENT) / 100)
    else:
        pause = inner.fields("pause")
        step = Step(pause_s=pause.maybe("duration", parse_wait))
        pause.done()
    inner.done()
    return step


def _check_steps(steps: tuple[Step, ...]) -> None:
    weights = [step.weight for step in steps if step.weight is not None]
    if not weights or steps[0].weight is None:
        raise ValueError("steps: there is no weight to begin with: write set_weight first")
    for before, after in pairwise(weights):
        if after <= before:
            raise ValueError(f"steps: {after * 100:g} comes after {before * 100:g}: write weights that rise")
    if weights[-1] == 1 and steps[-1].weight is None:
        raise ValueError("steps: a pause after 100 holds nothing: write it before")
