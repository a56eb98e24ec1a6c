"""What a screen shows of a rollout, and what is kept of it over a restart."""

from collections.abc import Mapping
from typing import Any

from proxy.policy.canary.counts import SLICE_S
from proxy.policy.canary.events import CanaryEvent
from proxy.policy.canary.progress import Progress
from proxy.policy.canary.states import OVER, State

VERSION = 2


def explain(progress: Progress, analysis: dict[str, Any], looked_s: float, now_s: float) -> dict[str, Any]:
    """Both arms' counts and quantiles, the evidence beside its thresholds, what it waits for, and the last events.

    `analysis`: the judge's, as of `looked_s`. A rollout that is over is looked at no more, and still grows older.
    """
    spec, life = progress.spec, progress.life
    shown = {
        "baseline_pool": spec.baseline,
        "canary_pool": spec.canary,
        "state": life.state.value,
        "since_s": now_s - life.since_s,
        "reason": progress.reason,
        "weight": progress.weight,
        "step": progress.position,
        "steps": [{"pause_s": step.pause_s} if step.weight is None else {"weight": step.weight} for step in spec.steps],
        "arms": _arms(progress),
        "method": spec.analysis.method,
        "analysis": analysis,
        "waits_for": _waits_for(progress, analysis["waits_for"], looked_s),
        "events": [
            {"name": event.name, "ago_s": now_s - event.at_s, "text": event.text, "numbers": event.numbers}
            for event in progress.log
        ],
    }
    if life.state is State.BAKING:
        shown["bake"] = {"evidence": progress.bake.value, "threshold": 1 / spec.analysis.alpha}
    return shown


def _arms(progress: Progress) -> dict[str, Any]:
    counts = progress.counts()
    for i, arm in enumerate(("baseline", "canary")):
        tally = counts[arm]
        errors = tally["failed"] + tally["refused"]
        ended = errors + tally["fine"]
        counts[arm] = tally | {"open": progress.open[i], "error_rate": errors / ended if ended else None}
    return counts


def _waits_for(progress: Progress, found: list[str], now_s: float) -> list[str]:
    """`found`: what its judge waits for, at a step."""
    state = progress.life.state
    if state in OVER:
        return []
    if state is State.PAUSED:
        left_s = progress.pause_until_s
        return ["to be resumed" if left_s is None else f"{left_s - now_s:.0f} s until the pause is over"]
    if state is State.INCONCLUSIVE:
        return ["a decision: resume, promote, retry or abort"]
    if state is State.ROLLING_BACK:
        return [_to_end(progress.open[1], "canary")]
    if state is State.PROMOTING:
        return [_to_end(progress.open[0], "baseline")]
    if state is State.BAKING:
        return [f"{progress.spec.bake_s - (now_s - progress.life.since_s):.0f} s of the bake"]
    if state is State.WARMING:
        return progress.warms_until(now_s)
    return [f"the end of {progress.reason}", *found] if state is State.HOLDING else found


def _to_end(requests: int, arm: str) -> str:
    return f"{requests} {arm} requests to end" if requests else "a last look"


def dump(progress: Progress, now_s: float) -> dict[str, Any]:
    until_s = progress.pause_until_s
    return {
        "state": progress.life.state.value,
        "state_age_s": now_s - progress.life.since_s,
        "weight": progress.weight,
        "position": progress.position,
        "pause_at": progress.pause_at,
        "pause_left_s": None if until_s is None else until_s - now_s,
        "course_age_s": now_s - progress.course_s,
        "reason": progress.reason,
        "tally": list(progress.tally),
        "judge": progress.judge.dump(now_s),
        "bake": progress.bake.dump(int(now_s // SLICE_S)),
        "events": [[event.name, now_s - event.at_s, event.text, event.numbers] for event in progress.log],
    }


def restore(progress: Progress, dumped: Mapping[str, Any], now_s: float) -> None:
    progress.life.state = State(dumped["state"])
    progress.life.since_s = now_s - dumped["state_age_s"]
    progress.weight = dumped["weight"]
    progress.position = dumped["position"]
    progress.pause_at = dumped["pause_at"]
    progress.pause_until_s = None if dumped["pause_left_s"] is None else now_s + dumped["pause_left_s"]
    progress.course_s = now_s - dumped["course_age_s"]
    progress.reason = dumped["reason"]
    progress.tally = list(dumped["tally"])
    progress.judge.restore(dumped["judge"], now_s)
    progress.bake.restore(dumped["bake"], int(now_s // SLICE_S))
    progress.log.clear()
    progress.log.extend(
        CanaryEvent(name, now_s - age_s, text, numbers) for name, age_s, text, numbers in dumped["events"]
    )
