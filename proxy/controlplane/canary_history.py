"""How a rollout came to where it is: its weight, evidence and latencies over time, for whoever looks at it later.

A rollout knows what is, not what was. Here a point is kept of each look, up to a few hundred: when there are too many,
every other one goes, and only every other look is kept from then on, so that a rollout of a minute and one of a week
cost the same. The newest look and those that decided something stay. It is for the eye: it is kept in memory, as long
as the rollout is the same, and nothing hangs on it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from proxy.policy.canary import CanaryEvent

MOST = 300
P50, P95 = 0.5, 0.95


class Point(msgspec.Struct, frozen=True):
    """`evidence` that the canary is worse, against its `threshold`; `proofs` that it is not, by metric."""

    at_s: float
    weight: float  # share of 1
    evidence: float | None
    threshold: float | None
    proofs: dict[str, float]
    baseline_ms: tuple[float | None, float | None]  # until the first byte: half of the requests, 95 %
    canary_ms: tuple[float | None, float | None]
    decides: bool = False


class History:
    def __init__(self, rollout: str) -> None:
        """`rollout`: its id. Another one has another history."""
        self.rollout = rollout
        self._points: list[Point] = []
        self._every, self._skipped = 1, 0

    def add(self, at_s: float, shown: Mapping[str, Any], events: Iterable[CanaryEvent] = ()) -> None:
        """What it shows of itself (`explain`) at a look, after these events of that look."""
        for event in events:
            if "evidence" in event.numbers and self._points:
                self._append(_point(at_s, self._points[-1].weight, event.numbers, shown["analysis"], decides=True))
        self._append(_point(at_s, shown["weight"], shown["analysis"], shown["analysis"]))

    def _append(self, point: Point) -> None:
        if self._points and self._skipped and not self._points[-1].decides and not point.decides:
            self._points[-1] = point
        else:
            self._points.append(point)
        self._skipped = (self._skipped + 1) % self._every
        if len(self._points) > MOST:
            newest = self._points[-1]
            thinned = [each for at, each in enumerate(self._points) if at % 2 == 0 or each.decides or each is newest]
            self._points = thinned[-MOST:]
            self._every *= 2

    def told(self, now_s: float) -> list[dict[str, Any]]:
        """The oldest first, by age; weights in percent."""
        return [
            {"ago_s": round(now_s - point.at_s, 1), "weight": round(100 * point.weight, 6)}
            | {name: getattr(point, name) for name in ("evidence", "threshold", "proofs", "baseline_ms", "canary_ms")}
            for point in self._points
        ]


def _point(
    at_s: float, weight: float, numbers: Mapping[str, Any], analysis: Mapping[str, Any], *, decides: bool = False
) -> Point:
    return Point(
        at_s,
        weight,
        numbers.get("evidence"),
        numbers.get("threshold"),
        dict(numbers.get("proofs", {})),
        _latencies_ms(analysis, "baseline"),
        _latencies_ms(analysis, "canary"),
        decides,
    )


def _latencies_ms(analysis: Mapping[str, Any], arm: str) -> tuple[float | None, float | None]:
    """Its quantiles; where a mean is all that is known, that."""
    quantiles = (analysis.get(arm) or {}).get("ttft_s")
    if quantiles is not None:
        by_share = dict(zip(analysis["quantiles"], quantiles, strict=True))
        return _ms(by_share.get(P50)), _ms(by_share.get(P95))
    return _ms(analysis.get("means", {}).get(f"{arm}_mean_s")), None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
