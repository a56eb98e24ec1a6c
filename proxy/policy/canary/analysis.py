"""How a canary is judged: the method, what is measured, and what is tolerated."""

from dataclasses import dataclass

from proxy.model.quantities import parse_duration, parse_wait
from proxy.policy.canary.bands import Bands, read_bands
from proxy.policy.canary.fields import Fields, items, number, one_of, whole
from proxy.policy.canary.terms import LATENCIES, RATES


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


def read_analysis(read: Fields, method_by_default: str) -> Analysis:
    defaults = Analysis()
    method = read.read("method", one_of("evidence", "bands", "none"), method_by_default)
    bands = read_bands(read) if method == "bands" else None
    samples = read.fields("min_samples")
    metrics = defaults.metrics
    if read.has("metrics"):
        found = read.read("metrics", items)
        metrics = tuple(_metric(each, f"{read.at('metrics')}[{i}]") for i, each in enumerate(found))
    min_step_s = read.maybe("min_step_duration", parse_duration)
    max_step_s = read.read("max_step_duration", parse_wait, "12h")
    if min_step_s is not None and max_step_s < min_step_s:
        raise ValueError(f"{read.at('max_step_duration')} is shorter than min_step_duration: write at least as much")
    analysis = Analysis(
        method=method,
        alpha=read.read("alpha", number(1e-9, 0.5, "a chance, such as 0.01"), defaults.alpha),
        alpha_advance=read.read("alpha_advance", number(1e-9, 0.5, "a chance, such as 0.05"), defaults.alpha_advance),
        interval_s=bands.interval_s if bands else read.read("interval", parse_wait, "5s"),
        min_canary=samples.read("canary", whole(0, "how many requests"), defaults.min_canary),
        min_baseline=samples.read("baseline", whole(0, "how many requests"), defaults.min_baseline),
        min_step_s=min(defaults.min_step_s, max_step_s) if min_step_s is None else min_step_s,
        max_step_s=max_step_s,
        on_inconclusive=read.read("on_inconclusive", one_of("pause", "rollback"), "pause"),
        metrics=metrics,
        bands=bands,
    )
    samples.done()
    read.done()
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{read.at('metrics')}: write at least one, and each at most once")
    return analysis


def _metric(value: object, place: str) -> Metric:
    inner = Fields(value, place)
    name = inner.read("name", one_of(*LATENCIES, *RATES))
    max_gap_s = 15.0
    if name in LATENCIES:
        allowed = inner.read("allowed_increase", number(1, 10, "a factor of 1 or more, such as 1.10"), 1.1)
    else:
        allowed = inner.read("allowed_delta", number(0, 0.5, "a difference of shares, such as 0.01"), 0.01)
    if name == "stalls":
        max_gap_s = inner.read("max_gap", parse_wait, "15s")
    inner.done()
    return Metric(name, allowed, max_gap_s)
