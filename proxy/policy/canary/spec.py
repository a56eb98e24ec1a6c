"""What an operator asks of a canary, as rollouts have it.

`steps` are percent, as in Argo Rollouts and Flagger, and weights here are shares of 1. What is left out of `analysis`
is what the example in the documents shows; a warm-up, an SLO and a bake there are only where they are written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from proxy.model import canary_settings as written
from proxy.model.record import said
from proxy.policy.canary.analysis import Analysis, Metric, analysis_of


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
    fixed: bool = False  # a weight without steps
    hash: str = ""  # of the settings: a changed spec is another rollout

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> "CanarySpec":
        """Raises ValueError that names the place, what was found, and what would be right."""
        try:
            return cls.of(written.Canary.model_validate(mapping))
        except ValidationError as error:
            raise ValueError(said(error)) from None

    @classmethod
    def of(cls, settings: written.Canary) -> "CanarySpec":
        analysis = analysis_of(settings)
        return cls(
            baseline=settings.baseline,
            canary=settings.canary,
            steps=_steps(settings, analysis),
            mode=settings.mode,
            max_concurrent=settings.max_concurrent,
            unit=settings.unit,
            epoch_s=settings.epoch_s,
            force_header=settings.force_header,
            warmup=_warmup(settings.warmup),
            analysis=analysis,
            slo=_slo(settings.slo),
            fixed=settings.weight is not None,
            bake_s=0.0 if settings.bake is None else settings.bake.duration_s,
            hash=sha256(settings.model_dump_json(exclude={"webhooks"}).encode()).hexdigest()[:16],
        )

    @property
    def sticky(self) -> bool:
        return self.unit != "request"

    @property
    def ends_at_100(self) -> bool:
        """Then there is nothing to compare any more; but a shadow may copy every request for as long as one likes."""
        return not (self.fixed and self.mode == "shadow")

    @property
    def judgements(self) -> int:
        """K: how often the evidence of a rollout is judged, one in reserve."""
        steps = sum(1 for step in self.steps if step.weight is not None and 0 < step.weight < 1)
        return steps + (self.warmup is not None) + 1 + self.sticky

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.analysis.metrics if metric.name == name), None)


def _steps(settings: written.Canary, analysis: Analysis) -> tuple[Step, ...]:
    if analysis.bands is not None:
        return (Step(weight=analysis.bands.initial),)
    if settings.weight is not None:
        return (Step(weight=settings.weight / 100),)
    return tuple(
        Step(pause_s=None if step.pause is None else step.pause.duration_s)
        if step.set_weight is None
        else Step(weight=step.set_weight / 100)
        for step in settings.steps
    )


def _warmup(warmup: written.WarmUp | None) -> WarmUp | None:
    if warmup is None:
        return None
    return WarmUp(warmup.weight / 100, warmup.min_requests, warmup.duration_s, warmup.max_duration_s)


def _slo(slo: written.Slo | None) -> Slo | None:
    if slo is None or (slo.ttft is None and slo.error_rate is None):
        return None
    share, limit_s = slo.ttft or (0.05, None)
    return Slo(ttft_s=limit_s, ttft_share=share, error_rate=slo.error_rate)
