"""A picture of a rehearsal: the weight, the evidence beside its thresholds, and what was told, over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from proxy.rehearsal.run import Moment

KINDS = (".svg", ".png")
LEAST = 1e-3  # evidence below it says nothing


class NoPlotter(RuntimeError):
    """The library that draws is not installed. The message says how to."""


class Frame(NamedTuple):
    """One moment, as it is drawn."""

    minute: float
    weight: float
    evidence: Mapping[str, float]  # that the canary is worse, by family
    threshold: float | None
    told: tuple[str, ...]  # the names of events


def frame(moment: Moment, explained: Mapping[str, Any]) -> Frame:
    """`explained`: what the rollout said of itself then."""
    analysis = explained["analysis"]
    told = tuple(event.name for event in moment.events if event.name != "evaluated")
    return Frame(moment.now_s / 60, moment.weight, analysis.get("families", {}), analysis.get("threshold"), told)


def plot(frames: Sequence[Frame], file: Path) -> None:
    """Draw it. Raises NoPlotter, OSError, and ValueError for another kind of file."""
    if file.suffix not in KINDS:
        raise ValueError(f"{file.suffix or 'no suffix'} is no picture that is drawn here: write .svg or .png")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPlotter("pictures need matplotlib: pip install 'serinus[plot]'") from None
    minutes = [each.minute - frames[0].minute for each in frames]
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    weights, evidence = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    weights.step(minutes, [100 * each.weight for each in frames], where="post")
    weights.set_ylabel("canary's weight, %")
    weights.set_ylim(-3, 103)
    for minute, each in zip(minutes, frames, strict=True):
        for name in each.told:
            weights.axvline(minute, color="0.8", linewidth=0.8)
            weights.annotate(name, (minute, 50), rotation=90, fontsize=7, va="center", ha="right")
    names = sorted({name for each in frames for name in each.evidence})
    for name in names:
        evidence.plot(minutes, [max(each.evidence.get(name, 0.0), LEAST) for each in frames], label=name)
    if any(each.threshold for each in frames):
        wanted = [each.threshold or float("nan") for each in frames]
        evidence.plot(minutes, wanted, "k--", label="rolled back above")
    evidence.set_yscale("log")
    evidence.set_ylabel("evidence that it is worse")
    evidence.set_xlabel("minutes")
    if names:
        evidence.legend(loc="upper left", fontsize=8)
    figure.savefig(file)
