"""What one arm adds to another, and how sure that is.

Both were measured in turns, so each round gives one difference, free of what slowed down both. Rounds are few and their
differences about normal, being means: Student's interval for the mean of paired differences. Calls themselves are not
paired: those of one round, under one load, depend on each other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from proxy.benchmark.run import Measured
from proxy.benchmark.sample import Sample
from proxy.benchmark.summary import answered_of, quantile

ROUNDS_LEAST = 5
CONFIDENCE = 0.95

Measure = Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True)
class Added:
    """Seconds. The interval is None where there were too few rounds for one."""

    mean_s: float
    interval_s: tuple[float, float] | None
    p50_s: float
    p50_interval_s: tuple[float, float] | None


def added(of: Measured, to: Measured, measure: Measure) -> Added | None:
    """What `of` adds to `to` in what `measure` says of a call. None where no round has such calls of both."""
    pairs = [
        (first, second)
        for first, second in zip(_rounds(of, measure), _rounds(to, measure), strict=False)  # the last may be cut short
        if first and second
    ]
    if not pairs:
        return None
    means = [fmean(first) - fmean(second) for first, second in pairs]
    medians = [quantile(sorted(first), 0.5) - quantile(sorted(second), 0.5) for first, second in pairs]
    return Added(fmean(means), interval(means), fmean(medians), interval(medians))


def _rounds(measured: Measured, measure: Measure) -> list[list[float]]:
    return [
        [value for sample in answered_of(samples) if (value := measure(sample)) is not None]
        for samples in measured.rounds
    ]


def interval(differences: list[float]) -> tuple[float, float] | None:
    """The 95 % interval for the mean of these, from Student's t; None of fewer than five."""
    count = len(differences)
    if count < ROUNDS_LEAST:
        return None
    half = student_quantile((1 + CONFIDENCE) / 2, count - 1) * stdev(differences) / math.sqrt(count)
    return fmean(differences) - half, fmean(differences) + half


def student_quantile(share: float, degrees: int) -> float:
    """The quantile of Student's t, within 0.1 % for four degrees of freedom and more.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5: an expansion around the normal quantile.
    """
    x = NormalDist().inv_cdf(share)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))
