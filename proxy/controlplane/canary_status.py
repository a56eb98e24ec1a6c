"""How a canary fares, as the admin API tells it: in short for lists, and whole, with what an operator may do next."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from proxy.model.settings import Route, Settings
from proxy.obs.metrics import CanaryState
from proxy.policy.canary import Rollout, State
from proxy.policy.canary.states import TABLE, Event
from proxy.state.live import CanaryLive

_COMMANDS = {
    "promote": (Event.STEPPED, Event.COMPLETED),
    "abort": (Event.ABORTED,),
    "pause": (Event.PAUSED,),
    "resume": (Event.RESUMED,),
    "retry": (Event.RETRIED,),
    "weight": (Event.WEIGHED,),
}
COMMANDS = tuple(_COMMANDS)
_SHARES = ("weight", "weight_before")


class CanaryStatus(msgspec.Struct, frozen=True):
    """One line of it."""

    baseline: str
    canary: str
    mode: str
    state: str
    since_s: float
    weight: float  # percent
    waits_for: list[str]
    steps: list[str] = []  # `5 %`, `pause`
    step: int = 0  # which of them it is at
    evidence: float | None = None  # that it is worse: 1 says nothing; None: it is judged by something else
    threshold: float | None = None  # of the evidence: there it is rolled back
    proofs: dict[str, float] = {}  # that it is no worse, by family
    proof_wanted: float | None = None  # of each, for a step up
    arms: dict[str, "ArmStatus"] = {}  # `baseline` and `canary`


class ArmStatus(msgspec.Struct, frozen=True):
    """One arm, at this weight (where all was taken back: at the one before); its waits in the last half hour."""

    requests: int
    error_percent: float | None  # None: nothing has ended
    first_byte_ms: dict[str, float] = {}  # by quantile: p50, p95


def canary_status(rollout: Rollout, now_s: float) -> CanaryStatus:
    shown = rollout.explain(now_s)
    analysis = shown["analysis"]
    return CanaryStatus(
        baseline=rollout.spec.baseline,
        canary=rollout.spec.canary,
        mode=rollout.spec.mode,
        state=shown["state"],
        since_s=round(shown["since_s"], 1),
        weight=percent(rollout.weight),
        waits_for=[shown["reason"]] if rollout.state is State.FAILED else shown["waits_for"],
        steps=[f"{percent(step['weight']):g} %" if "weight" in step else "pause" for step in shown["steps"]],
        step=shown["step"],
        evidence=analysis.get("evidence"),
        threshold=analysis.get("threshold"),
        proofs=analysis.get("proofs", {}),
        proof_wanted=analysis.get("proof_wanted"),
        arms={arm: _arm(shown["arms"][arm], analysis, arm) for arm in ("baseline", "canary")},
    )


def _arm(counts: dict[str, Any], analysis: dict[str, Any], arm: str) -> ArmStatus:
    rate, waits_s = counts["error_rate"], analysis.get(arm, {}).get("ttft_s")
    return ArmStatus(
        counts["started"],
        None if rate is None else round(100 * rate, 2),
        {}
        if waits_s is None
        else {
            f"p{100 * share:g}": round(1000 * wait_s, 1)
            for share, wait_s in zip(analysis["quantiles"], waits_s, strict=True)
        },
    )


def percent(weight: float) -> float:
    return round(100 * weight, 6)


def in_percent(told: Any) -> Any:
    """What a rollout tells, with its weights as operators write them."""
    match told:
        case dict():
            return {name: percent(each) if name in _SHARES else in_percent(each) for name, each in told.items()}
        case list():
            return [in_percent(each) for each in told]
    return told


def possible(rollout: Rollout) -> list[str]:
    """What an operator may command in its state."""
    return [name for name, events in _COMMANDS.items() if any((rollout.state, event) in TABLE for event in events)]


def change_to_make(rollout: Rollout, name: str, settings: Settings) -> list[str]:
    """Where all goes to the canary, what the configuration should say from now on: lines with - and +."""
    if rollout.state is not State.SUCCEEDED:
        return []
    before, after = rollout.spec.baseline, rollout.spec.canary
    routes = [route for route in settings.routes if route.canary == name]
    lines = ["  routes:"]
    for route in routes:
        lines += [f"-   - {_route(route, before, name)}", f"+   - {_route(route, after)}"]
    return [*lines, "  canaries:", f"-   {name}: …"]


def _route(route: Route, pool: str, canary: str = "") -> str:
    """As it is found in the file; what it has besides is left as it is."""
    model = [] if route.model is None else [f"model: {json.dumps(route.model)}"]
    drawn = [f"canary: {canary}"] if canary else []
    more = ["…"] if route.model_fields_set - {"prefix", "model", "pool", "canary"} else []
    return "{" + ", ".join([f"prefix: {route.prefix}", *model, f"pool: {pool}", *drawn, *more]) + "}"


def canary_metrics(rollouts: Iterable[tuple[str, Rollout]], lives: dict[str, CanaryLive]) -> Iterator[CanaryState]:
    for name, rollout in rollouts:
        shown = rollout.analysis()
        means = shown.get("means", {})
        latencies = {arm: means.get(f"{arm}_mean_s") for arm in ("baseline", "canary")}
        live = lives.get(name) if rollout.spec.mode == "shadow" else None
        yield CanaryState(
            name=name,
            weight=rollout.weight,
            state=rollout.state.value,
            evidence=shown.get("families", {}),
            latencies_s={arm: mean_s for arm, mean_s in latencies.items() if mean_s is not None},
            copies={} if live is None else {"sent": live.copies_sent, "failed": live.copies_failed},
        )
