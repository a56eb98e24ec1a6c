"""How a canary is judged: the method, what is measured, and what is tolerated."""

from dataclasses import dataclass

from proxy.model import canary_settings as written
from proxy.policy.canary.bands import Bands, bands_of
from proxy.policy.canary.terms import LATENCIES


@dataclass(frozen=True, slots=True)
class Metric:
    """`allowed`: a factor of latency, or a difference of rates."""

    name: str
    allowed: float
    max_gap_s: float = 15.0


_METRICS = (Metric("ttft", 1.1), Metric("time_per_chunk", 1.1), Metric("errors", 0.01), Metric("stalls", 0.005))


@dataclass(frozen=True, slots=True)
class Analysis:
    method: str = "evidence"
    alpha: float = 0.01
    alpha_advance: float = 0.05
    interval_s: float = 5.0
    min_canary: int = 50
    min_baseline: int = 200
    min_step_s: float = 300.0
    max_step_s: float = 43_200.0
    on_inconclusive: str = "pause"
    metrics: tuple[Metric, ...] = _METRICS
    bands: Bands | None = None


def analysis_of(settings: written.Canary) -> Analysis:
    found, defaults = settings.analysis, Analysis()
    method = found.method or ("evidence" if settings.steps else "none")
    bands = bands_of(found) if method == "bands" else None
    return Analysis(
        method=method,
        alpha=found.alpha,
        alpha_advance=found.alpha_advance,
        interval_s=bands.interval_s if bands else found.interval_s or defaults.interval_s,
        min_canary=found.min_samples.canary,
        min_baseline=found.min_samples.baseline,
        min_step_s=min(defaults.min_step_s, found.max_step_s) if found.min_step_s is None else found.min_step_s,
        max_step_s=found.max_step_s,
        on_inconclusive=found.on_inconclusive,
        metrics=tuple(map(_metric, found.metrics)),
        bands=bands,
    )


def _metric(metric: written.Metric) -> Metric:
    if metric.name in LATENCIES:
        allowed = 1.1 if metric.allowed_increase is None else metric.allowed_increase
    else:
        allowed = 0.01 if metric.allowed_delta is None else metric.allowed_delta
    return Metric(metric.name, allowed, 15.0 if metric.max_gap_s is None else metric.max_gap_s)
