"""The judges who prove nothing: `none`, which only waits, and `bands`, which follows a mean."""

from math import inf
from typing import Any

from proxy.policy.canary.bands import Bands, Mean, Rolling, look, text
from proxy.policy.canary.counts import Harvest
from proxy.policy.canary.plan import Plan
from proxy.policy.canary.verdict import Course, Kind, Look, Verdict


class Waiting:
    """`method: none`: a step lasts as long as its shortest time, and is believed."""

    def __init__(self, shortest_s: float) -> None:
        self.plan = Plan(0, {}, bets=False)
        self._shortest_s = shortest_s
        self._course: Course | None = None
        self._began_s = inf

    def begin(self, course: Course, now_s: float) -> None:
        self._course, self._began_s = course, now_s
        self.plan = self.plan._replace(step=self.plan.step + 1)

    def end(self, now_s: float) -> None:
        self._course = None

    def rest(self, now_s: float) -> None:
        """Nothing is too long."""

    def new_epoch(self, epoch: int, salt: bytes, now_s: float) -> None:
        self.plan = self.plan._replace(epoch=epoch, salt=salt)

    def read(self, harvest: Harvest, now_s: float) -> list[Look]:
        return []

    def verdict(self, now_s: float) -> Verdict:
        if self._course is None or self._course.next_weight is None:
            return Verdict(Kind.GO_ON, "nothing comes after this weight")
        lasted_s = now_s - self._began_s
        if lasted_s < self._shortest_s:
            return Verdict(Kind.GO_ON, f"{lasted_s:.0f} s of {self._shortest_s:.0f} s")
        return Verdict(Kind.STEP, f"{lasted_s:.0f} s have passed")

    def explain(self, now_s: float) -> dict[str, Any]:
        return {"waits_for": [self.verdict(now_s).reason]}

    def dump(self, now_s: float) -> dict[str, Any]:
        return {"age_s": None if self._course is None else now_s - self._began_s}

    def restore(self, dumped: dict[str, Any], now_s: float) -> None:
        if dumped["age_s"] is not None:
            self._began_s = now_s - dumped["age_s"]


class BandsJudge:
    """Looks every `interval`, and never steps: the weight is its own to move."""

    def __init__(self, bands: Bands, now_s: float) -> None:
        self.plan = Plan(0, {}, bets=False)
        self._bands = bands
        self._rolling = Rolling(bands)
        self._weight = bands.initial
        self._looked_s = now_s
        self._worse = ""
        self._last: dict[str, Any] = {}

    def begin(self, course: Course, now_s: float) -> None:
        self._weight = course.weight
        self._looked_s = now_s
        self._worse = ""

    def end(self, now_s: float) -> None:
        """What was measured stays measured."""

    def rest(self, now_s: float) -> None:
        """Nothing is too long."""

    def new_epoch(self, epoch: int, salt: bytes, now_s: float) -> None:
        self.plan = self.plan._replace(epoch=epoch, salt=salt)

    def read(self, harvest: Harvest, now_s: float) -> list[Look]:
        """One look, however late; a look that was missed is not made up for."""
        self._rolling.read(harvest.means, now_s)
        if now_s - self._looked_s < self._bands.interval_s:
            return []
        self._looked_s = now_s
        canary, baseline = self._rolling.mean(canary=True), self._rolling.mean(canary=False)
        found = look(self._bands, self._weight, canary, baseline)
        before, self._weight = self._weight, found.weight
        numbers = _numbers(canary, baseline) | {"weight_before": before, "weight": found.weight}
        self._last = numbers
        means = f"{self._bands.metric} canary {text(canary)}, baseline {text(baseline)}"
        looks = [
            Look("evaluated", f"{means}; weight {before * 100:g} % to {found.weight * 100:g} %", numbers, found.weight)
        ]
        if found.alert is not None:
            looks.append(Look("alert", found.alert, numbers, found.weight))
        if found.rollback:
            self._worse = found.alert or "above all bands"
        return looks

    def verdict(self, now_s: float) -> Verdict:
        if self._worse:
            return Verdict(Kind.WORSE, self._worse, self._last)
        return Verdict(Kind.GO_ON, f"looks again in {self._looked_s + self._bands.interval_s - now_s:.0f} s")

    def explain(self, now_s: float) -> dict[str, Any]:
        canary, baseline = self._rolling.mean(canary=True), self._rolling.mean(canary=False)
        means = {"metric": self._bands.metric, "window_s": self._bands.window_s} | _numbers(canary, baseline)
        return {"means": means, "last_look": self._last, "waits_for": [self.verdict(now_s).reason]}

    def dump(self, now_s: float) -> dict[str, Any]:
        return {"weight": self._weight, "looked_ago_s": now_s - self._looked_s, "worse": self._worse}

    def restore(self, dumped: dict[str, Any], now_s: float) -> None:
        self._weight = dumped["weight"]
        self._looked_s = now_s - dumped["looked_ago_s"]
        self._worse = dumped["worse"]


def _numbers(canary: Mean, baseline: Mean) -> dict[str, Any]:
    return {
        "canary_mean_s": canary.mean_s,
        "canary_samples": canary.samples,
        "baseline_mean_s": baseline.mean_s,
        "baseline_samples": baseline.samples,
    }
