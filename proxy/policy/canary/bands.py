"""Bands: the weight follows the canary's rolling mean latency. The simple rule, for who wants to steer by one number.

A mean over a window is easy to read and errs often: with LLM latencies it calls one of ten alike. It is here because
it is understood at once; `evidence` is what is to be believed. An EWMA would hide bursts: the window is exact, to a
sixtieth of it.

Failed requests have no latency, and are left out; a canary that fails is not seen by this rule.
"""

from dataclasses import dataclass
from typing import NamedTuple

from proxy.model import canary_settings as written
from proxy.model.quantities import duration_text

PIECES = 60  # of a window


@dataclass(frozen=True, slots=True)
class Band:
    below_s: float
    change: float  # of the weight, a share


@dataclass(frozen=True, slots=True)
class Bands:
    interval_s: float
    window_s: float
    metric: str  # ttft or time_per_chunk
    initial: float  # weights are shares
    lowest: float
    highest: float
    bands: tuple[Band, ...]
    otherwise: str  # alert or rollback

    @property
    def piece_s(self) -> float:
        return self.window_s / PIECES


class Mean(NamedTuple):
    """Over a window. None without samples."""

    mean_s: float | None
    samples: int


class Rolling:
    """Sums of both arms by piece of the window."""

    __slots__ = ("_bands", "_pieces")

    def __init__(self, bands: Bands) -> None:
        self._bands = bands
        self._pieces: dict[int, list[float]] = {}

    def read(self, means: dict[int, list[float]], now_s: float) -> None:
        """`means`: baseline's sum and count, the canary's, by number of the piece."""
        first = int((now_s - self._bands.window_s) // self._bands.piece_s)
        for number_, sums in means.items():
            kept = self._pieces.setdefault(number_, [0.0] * 4)
            for i, each in enumerate(sums):
                kept[i] += each
        for number_ in [each for each in self._pieces if each < first]:
            del self._pieces[number_]

    def mean(self, canary: bool) -> Mean:
        at = 2 * canary
        samples = int(sum(sums[at + 1] for sums in self._pieces.values()))
        return Mean(sum(sums[at] for sums in self._pieces.values()) / samples if samples else None, samples)


class Look(NamedTuple):
    """What one look at the means decides. `alert`: why somebody should look as well."""

    weight: float
    alert: str | None = None
    rollback: bool = False


def look(bands: Bands, weight: float, canary: Mean, baseline: Mean) -> Look:
    """The first band that the canary's mean lies below moves the weight; above all of them `otherwise` applies."""
    highest_s = bands.bands[-1].below_s
    alert = None
    if baseline.mean_s is not None and baseline.mean_s >= highest_s:
        alert = f"the baseline's mean {text(baseline)} is above all bands"
    if canary.mean_s is None:
        return Look(weight, alert)
    for band in bands.bands:
        if canary.mean_s < band.below_s:
            moved = min(bands.highest, max(bands.lowest, weight + band.change))
            return Look(round(moved, 9), alert)
    alert = f"the canary's mean {text(canary)} is above all bands, the highest {duration_text(highest_s)}"
    return Look(weight, alert, bands.otherwise == "rollback")


def text(mean: Mean) -> str:
    return "none" if mean.mean_s is None else f"{mean.mean_s:.3g} s of {mean.samples}"


def bands_of(found: written.Analysis) -> Bands:
    def share(percent: float | None, default: float) -> float:
        return (default if percent is None else percent) / 100

    return Bands(
        interval_s=found.interval_s or 300.0,
        window_s=found.window_s or 300.0,
        metric=found.metric or "ttft",
        initial=share(found.initial, 10),
        lowest=share(found.min, 1),
        highest=share(found.max, 100),
        bands=tuple(Band(band.below_s, band.change / 100) for band in found.bands),
        otherwise=found.otherwise or "alert",
    )
