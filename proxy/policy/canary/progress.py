"""Where a rollout stands: which step, which weight, and what the last verdict makes of it.

The judge says how the arms compare, the table of states what may follow; this is what follows. It sees harvests, never
requests, so it is the same for one worker and for many.
"""

from collections import deque
from math import ceil
from typing import Any

from proxy.policy.canary.counts import EARLY_S, SLICE_S, TALLY, Counts, Harvest, tallied
from proxy.policy.canary.events import CanaryEvent
from proxy.policy.canary.evidence_judge import EvidenceJudge
from proxy.policy.canary.simple_judges import BandsJudge, Waiting
from proxy.policy.canary.slo import Bake
from proxy.policy.canary.spec import CanarySpec
from proxy.policy.canary.states import AT_A_STEP, TAKEN_BACK, WATCHING, Event, Life, State
from proxy.policy.canary.verdict import Course, Judge, Kind, Verdict

KEPT_EVENTS = 20
WARM_UP = -1  # the position before the first step


def judge_of(spec: CanarySpec, now_s: float) -> Judge:
    if spec.analysis.bands is not None:
        return BandsJudge(spec.analysis.bands, now_s)
    return EvidenceJudge(spec, now_s) if spec.analysis.method == "evidence" else Waiting(spec.analysis.min_step_s)


class Progress:
    """`position`: of the weight in force among the spec's steps; `pause_at`: of the pause after it, if any."""

    def __init__(self, spec: CanarySpec, now_s: float) -> None:
        self.spec = spec
        self.life = Life(now_s)
        self.judge = judge_of(spec, now_s)
        self.weight = 0.0
        self.position = WARM_UP
        self.pause_at: int | None = None
        self.pause_until_s: float | None = None
        self.course_s = now_s  # when the present weight began
        self.reason = ""
        self.tally: Counts = [0] * (2 * TALLY)  # of the present weight; where all was taken back, of the one before
        self.open = [0, 0]
        self.log: deque[CanaryEvent] = deque(maxlen=KEPT_EVENTS)
        self._new: list[CanaryEvent] = []
        self.bake = self._new_bake()

    def _new_bake(self) -> Bake:
        promised = {} if self.spec.slo is None else self.spec.slo.promised()
        return Bake(promised, ceil(self.spec.bake_s / SLICE_S))

    # --- events -----------------------------------------------------------------------------------------------------

    def tell(self, name: str, now_s: float, text: str, numbers: dict[str, Any] | None = None) -> None:
        event = CanaryEvent(name, now_s, f"{name}: {text}", {"weight": self.weight} | (numbers or {}))
        self._new.append(event)
        self.log.append(event)

    def told(self) -> list[CanaryEvent]:
        """The events since the last call."""
        new, self._new = self._new, []
        return new

    # --- what a harvest makes of it ---------------------------------------------------------------------------------

    def look(self, harvest: Harvest, now_s: float) -> None:
        state = self.life.state
        if state not in TAKEN_BACK:  # what decided is what is looked at then
            for i, count in enumerate(harvest.tally):
                self.tally[i] += count
        self.open = list(harvest.open)
        for look in self.judge.read(harvest, now_s):
            if state in WATCHING:
                self.weight = look.weight
                self.tell(look.name, now_s, look.text, look.numbers)
        if state is State.PENDING:
            self.begin(now_s)
        elif state in WATCHING:
            self._watch(now_s)
        elif state is State.ROLLING_BACK and not harvest.open[1]:
            self.life.on(Event.DRAINED, now_s)
            self.tell("failed", now_s, "the canary's last request has ended")
        elif state is State.PROMOTING and not harvest.open[0]:
            self.life.on(Event.DRAINED, now_s)
        if self.life.state is State.BAKING:
            self._bake(harvest, now_s)

    def begin(self, now_s: float) -> None:
        """The warm-up, or the first step where there is none."""
        if self.spec.warmup is None:
            self.advance(now_s, "no warm-up")
            return
        course = Course("warm-up", self.spec.warmup.weight, None, warming=True)
        if self.life.state is State.PENDING:
            self.life.on(Event.BEGUN, now_s)
        self.take(course, WARM_UP, now_s)
        self.tell("began", now_s, f"the warm-up, at {course.weight * 100:g} %")

    def take(self, course: Course, position: int, now_s: float) -> None:
        """Fresh evidence at a weight. Raises ValueError, and changes nothing, where no more of it may begin."""
        self.judge.begin(course, now_s)
        self.weight = course.weight
        self.position = position
        self.pause_at = self.pause_until_s = None
        self.course_s = now_s
        self.tally = [0] * (2 * TALLY)
        self.reason = ""

    def _watch(self, now_s: float) -> None:
        verdict = self.judge.verdict(now_s)
        state = self.life.state
        if verdict.kind is Kind.WORSE:
            self.roll_back(verdict, now_s)
        elif state is State.WARMING:
            if not self.warms_until(now_s):
                self.advance(now_s, self._counted())
        elif state is State.PAUSED:
            if self.pause_until_s is not None and now_s >= self.pause_until_s:
                self.advance(now_s, "the pause is over")
        elif state in AT_A_STEP:
            self._step(verdict, now_s)

    def _step(self, verdict: Verdict, now_s: float) -> None:
        if verdict.kind is Kind.TIRED:
            if self.spec.analysis.on_inconclusive == "rollback":
                self.roll_back(verdict, now_s)
                return
            self.life.on(Event.TIRED, now_s)
            self.reason = verdict.reason
            self.tell("inconclusive", now_s, verdict.reason, verdict.numbers)
            return
        holding = self.life.state is State.HOLDING
        if verdict.kind is Kind.HOLD:
            if not holding:
                self.life.on(Event.HELD, now_s)
                self.reason = verdict.reason
                self.tell("holding", now_s, verdict.reason, verdict.numbers)
            return
        if holding:
            self.life.on(Event.WENT_ON, now_s)
            self.reason = ""
            self.tell("went_on", now_s, "what it was held for is over", verdict.numbers)
        if verdict.kind is Kind.STEP:
            self.advance(now_s, verdict.reason, verdict.numbers)

    def warms_until(self, now_s: float) -> list[str]:
        """What the warm-up lacks; nothing where it is over."""
        warmup = self.spec.warmup
        lasted_s = now_s - self.course_s
        if warmup is None or lasted_s >= warmup.max_duration_s:
            return []
        canary = tallied(self.tally, canary=True)
        ended = canary["fine"] + canary["refused"] + canary["failed"]
        waits = [] if lasted_s >= warmup.duration_s else [f"{lasted_s:.0f} s < {warmup.duration_s:.0f} s"]
        if ended < warmup.min_requests:
            waits.append(f"{ended} canary requests < {warmup.min_requests}, {warmup.max_duration_s:.0f} s at most")
        return waits

    # --- steps ------------------------------------------------------------------------------------------------------

    def next_step(self, *, over_pauses: bool = False) -> int | None:
        """Which step comes next; a weight that was passed by hand does not come again."""
        at = self.position if self.pause_at is None else self.pause_at
        for i in range(at + 1, len(self.spec.steps)):
            weight = self.spec.steps[i].weight
            if weight is None:
                if not over_pauses:
                    return i
            elif weight > self.weight or (self.warming and weight == self.weight):
                return i
        return None

    @property
    def warming(self) -> bool:
        """Before the first step."""
        return self.position == WARM_UP

    def next_weight(self, after: int, weight: float) -> float | None:
        later = (step.weight for step in self.spec.steps[after + 1 :] if step.weight is not None)
        return next((each for each in later if each > weight), None)

    def advance(
        self, now_s: float, why: str, numbers: dict[str, Any] | None = None, *, over_pauses: bool = False
    ) -> bool:
        """To the next step; False where there is none."""
        i = self.next_step(over_pauses=over_pauses)
        if i is None:
            return False
        step = self.spec.steps[i]
        if step.weight is None:
            self.life.on(Event.PAUSED, now_s)
            self.pause_at = i
            self.pause_until_s = None if step.pause_s is None else now_s + step.pause_s
            self.reason = "until resumed" if step.pause_s is None else f"for {step.pause_s:.0f} s"
            self.tell("paused", now_s, f"{self.reason}; {why}", numbers)
        elif step.weight >= 1 and self.spec.ends_at_100:
            self.position = i
            self.promote(now_s, why, numbers)
        else:
            self.life.check(Event.STEPPED)
            course = Course(f"step {i}", step.weight, self.next_weight(i, step.weight))
            began = self.warming
            before = self.weight
            self.take(course, i, now_s)
            self.life.on(Event.STEPPED, now_s)
            text = f"from {before * 100:g} % to {step.weight * 100:g} %; {why}"
            self.tell("began" if began and self.spec.warmup is None else "stepped", now_s, text, numbers)
        return True

    def promote(self, now_s: float, why: str, numbers: dict[str, Any] | None = None) -> None:
        counted = self._counted()
        self.life.on(Event.COMPLETED, now_s)
        self._all_to(1.0, now_s)
        self.tell("promoted", now_s, f"{why}; {counted}", numbers)

    def roll_back(self, verdict: Verdict, now_s: float) -> None:
        counted, counts = self._counted(), self.counts()
        self.life.on(Event.WORSE, now_s)
        self._all_to(0.0, now_s)
        self.reason = verdict.reason
        self.tell("rolled_back", now_s, f"{verdict.reason} {counted}", verdict.numbers | counts)

    def abort(self, now_s: float, why: str) -> None:
        self.life.on(Event.ABORTED, now_s)
        self._all_to(0.0, now_s)
        self.reason = why
        self.tell("aborted", now_s, why)

    def _all_to(self, weight: float, now_s: float) -> None:
        self.judge.end(now_s)
        self.weight = weight
        self.pause_at = self.pause_until_s = None
        self.course_s = now_s
        if weight:
            self.tally = [0] * (2 * TALLY)
        self.reason = ""
        self.bake = self._new_bake()

    def _bake(self, harvest: Harvest, now_s: float) -> None:
        if harvest.step == self.judge.plan.step:
            for number in sorted(harvest.early):
                self.bake.read(number, harvest.early[number])
        wanted = 1 / self.spec.analysis.alpha
        if self.bake.value >= wanted and not self.bake.alarmed:
            self.bake.alarmed = True
            text = f"promoted, and worse than the SLO: E={self.bake.value:.4g} ≥ {wanted:.4g}"
            self.tell("slo_alarm", now_s, text, {"evidence": self.bake.value, "threshold": wanted})
        if now_s - self.life.since_s >= self.spec.bake_s + (EARLY_S if self.spec.bake_s else 0.0):
            self.life.on(Event.BAKED, now_s)
            self.tell("succeeded", now_s, f"make {self.spec.canary} the route's pool")

    # --- numbers ----------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, Any]:
        """Both arms'. Of the present weight; where all was taken back, of the one before."""
        return {"baseline": tallied(self.tally, canary=False), "canary": tallied(self.tally, canary=True)}

    def _counted(self) -> str:
        canary, baseline = tallied(self.tally, canary=True), tallied(self.tally, canary=False)
        errors = " vs ".join(f"{_errors(each)}/{_errors(each) + each['fine']}" for each in (canary, baseline))
        return f"after {canary['started']} canary requests; errors {errors}"


def _errors(tally: dict[str, int]) -> int:
    return tally["failed"] + tally["refused"]
