"""What an operator may tell a rollout. Each is legal or raises, and then nothing has changed."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from proxy.model.quantities import shown
from proxy.policy.canary.progress import WARM_UP, Progress
from proxy.policy.canary.states import Event, IllegalTransition, State
from proxy.policy.canary.verdict import Course


def pause(progress: Progress, now_s: float, reason: str = "by hand") -> None:
    """The weight stays, the canary is still watched, and nothing steps up."""
    progress.life.on(Event.PAUSED, now_s)
    progress.reason = reason
    progress.tell("paused", now_s, reason)


def resume(progress: Progress, now_s: float, reason: str = "by hand") -> None:
    """Where it was paused, or from a step's pause to the next; an inconclusive step gets its longest time once more."""
    if progress.life.state is State.PAUSED and progress.pause_at is not None and progress.advance(now_s, reason):
        return
    warming = progress.life.state is State.PAUSED and progress.warming
    progress.life.on(Event.REWARMED if warming else Event.RESUMED, now_s)
    progress.judge.rest(now_s)
    progress.reason = ""
    progress.tell("resumed", now_s, reason)


def abort(progress: Progress, now_s: float, reason: str = "by hand") -> None:
    """All goes to the baseline."""
    progress.abort(now_s, reason)


def promote(progress: Progress, now_s: float, full: bool = False, reason: str = "") -> None:
    """The next weight, without waiting for its proof; with `full` 100 %, for which a reason is asked."""
    if full:
        if not reason:
            raise ValueError("promote --full skips the evidence: say why, with a reason")
        progress.promote(now_s, f"by hand, in full: {reason}")
        return
    progress.life.check(Event.STEPPED)
    if not progress.advance(now_s, f"by hand{reason and ': '}{reason}", over_pauses=True):
        raise IllegalTransition(f"nothing comes after {progress.weight * 100:g} %: promote in full, or set a weight")


def retry(progress: Progress, now_s: float, reason: str = "by hand") -> None:
    """From the beginning, with fresh evidence, which costs a higher threshold each time."""
    life, at = progress.life, progress.position
    before = life.state, life.since_s
    life.on(Event.RETRIED, now_s)
    progress.position = WARM_UP
    progress.weight, weight_before = 0.0, progress.weight
    try:
        progress.begin(now_s)
    except ValueError:  # too often: as it was
        life.state, life.since_s = before
        progress.position, progress.weight = at, weight_before
        raise
    progress.tell("retried", now_s, reason)


def weight(progress: Progress, now_s: float, weight: float, reason: str = "by hand") -> None:
    """Percent. Fresh evidence, at a higher threshold."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.01 <= weight <= 99.99:
        raise ValueError(f"{shown(weight)} is no weight: write percent above 0 and below 100")
    share = weight / 100
    state = progress.life.check(Event.WEIGHED)
    at, before = progress.position, progress.weight
    pause_at, pause_until_s = progress.pause_at, progress.pause_until_s
    course = Course(f"step {at}", share, progress.next_weight(at, share), warming=state is State.WARMING)
    if course.warming:
        course = course._replace(name="warm-up", next_weight=None)
    progress.take(course, at, now_s)
    progress.life.on(Event.WEIGHED, now_s)
    progress.pause_at, progress.pause_until_s = pause_at, pause_until_s
    progress.tell("weight_set", now_s, f"from {before * 100:g} % to {share * 100:g} %; {reason}")


COMMANDS: dict[str, Callable[..., None]] = {
    "pause": pause,
    "resume": resume,
    "abort": abort,
    "promote": promote,
    "retry": retry,
    "weight": weight,
}


def command(progress: Progress, name: str, now_s: float, **args: Any) -> None:
    """Raises IllegalTransition where it is no time for it, ValueError where it is said wrongly."""
    found = COMMANDS.get(name)
    if found is None:
        raise ValueError(f"{name!r} is no command: write {', '.join(COMMANDS)}")
    try:
        signature(found).bind(progress, now_s, **args)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
    found(progress, now_s, **args)
