"""What the calls of one arm come to."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from proxy.benchmark.run import ClientLoad, Measured
from proxy.benchmark.sample import Sample

BUSY_LIMIT = 0.8  # of a core: beyond, calls queue in the client
LATE_LIMIT_S = 0.01  # 1 in 100 of the client's own timers: beyond, waits are its own


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


def quantile(ordered: list[float], share: float) -> float:
    """The quantile of values in order, by linear interpolation (Hyndman and Fan's definition 7, as in NumPy)."""
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(values: Iterable[float]) -> Spread | None:
    """None of no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Spread(fmean(ordered), quantile(ordered, 0.5), quantile(ordered, 0.95), quantile(ordered, 0.99))


@dataclass(frozen=True, slots=True)
class Failed:
    """Failures of one kind."""

    kind: str
    count: int
    said: str  # by the first of them


@dataclass(frozen=True, slots=True)
class Summary:
    """Spreads are of the calls that were answered. None: there are none such."""

    answered: int
    failed: tuple[Failed, ...]  # the most frequent kind first
    first_token: Spread | None
    between_tokens: Spread | None  # from one event with tokens to the next
    per_token: Spread | None  # each answer's mean
    total: Spread | None
    late: Spread | None  # how much later than due calls were begun
    tokens: int
    tokens_an_event: float | None  # of streamed answers
    answers_a_s: float
    tokens_a_s: float

    @property
    def calls(self) -> int:
        return self.answered + sum(failed.count for failed in self.failed)


def answered_of(samples: Iterable[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.failure is None]


def summed_up(measured: Measured) -> Summary:
    answered = answered_of(measured.samples)
    tokens = sum(sample.tokens for sample in answered)
    streamed = [sample for sample in answered if sample.first_token_s is not None]
    events = sum(1 + len(sample.gaps_s) for sample in streamed)
    lasted_s = measured.lasted_s or float("inf")
    return Summary(
        answered=len(answered),
        failed=failures(measured.samples),
        first_token=spread(wait_s for sample in streamed if (wait_s := sample.first_token_wait_s) is not None),
        between_tokens=spread(gap_s for sample in streamed for gap_s in sample.gaps_s),
        per_token=spread(each_s for sample in streamed if (each_s := sample.per_token_s) is not None),
        total=spread(sample.total_s for sample in answered),
        late=spread(sample.late_s for sample in measured.samples),
        tokens=tokens,
        tokens_an_event=sum(sample.tokens for sample in streamed) / events if events else None,
        answers_a_s=len(answered) / lasted_s,
        tokens_a_s=tokens / lasted_s,
    )


def failures(samples: Iterable[Sample]) -> tuple[Failed, ...]:
    failed = [sample for sample in samples if sample.failure is not None]
    said: dict[str, str] = {}
    for sample in failed:
        said.setdefault(sample.kind, sample.said)
    return tuple(Failed(kind, count, said[kind]) for kind, count in Counter(each.kind for each in failed).most_common())


def limit_of(load: ClientLoad) -> str | None:
    """How the client was the limit of what it measured; None if it was not."""
    late_s = quantile(sorted(load.late_s), 0.99) if load.late_s else 0.0
    if load.busy > BUSY_LIMIT:
        return f"it used {load.busy:.0%} of a core"
    if late_s > LATE_LIMIT_S:
        return f"1 in 100 of its own timers came {late_s * 1000:.0f} ms late or more"
    return None
