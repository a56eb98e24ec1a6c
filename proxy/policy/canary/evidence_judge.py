"""The judge by evidence: freezes thresholds, reads what closed, and says when a step may end, and how.

Of each course (the warm-up, a step) there is fresh evidence. The guard of sticky units and the comparison with the SLO
run through the whole rollout.
"""

from math import ceil
from typing import Any

from proxy.policy.canary.counts import EARLY, FINE, SLICE_S, Harvest
from proxy.policy.canary.evidence import StepEvidence, failure_rate
from proxy.policy.canary.history import History, Thresholds, Tolerance
from proxy.policy.canary.kernel import Cells
from proxy.policy.canary.metrics import Rate, failing
from proxy.policy.canary.plan import Plan
from proxy.policy.canary.slo import Promise
from proxy.policy.canary.spec import CanarySpec
from proxy.policy.canary.spending import Spending
from proxy.policy.canary.strata import QUANTILES
from proxy.policy.canary.terms import LATENCIES, RATES, Terms
from proxy.policy.canary.units import Past, UnitEvidence
from proxy.policy.canary.verdict import Course, Kind, Look, Verdict

REFINE_S = 60.0  # how often strata that borrow their thresholds are looked at again


class EvidenceJudge:
    def __init__(self, spec: CanarySpec, now_s: float) -> None:
        self._spec = spec
        self._asks = spec.analysis
        self.history = History()
        self.plan = Plan(0, {}, 0, bets=not spec.sticky)
        self._spending = Spending(self._asks.alpha, spec.judgements)
        self._thresholds = Thresholds(Tolerance(1.0, 1.0), Tolerance(1.0, 1.0))
        self._refined_s = now_s
        self._course: Course | None = None
        self._began_s = self._tires_from_s = now_s
        self._evidence: StepEvidence | UnitEvidence | None = None
        self._threshold = 0.0
        self._past = Past()
        self._guard: Rate | None = None
        self._guard_threshold = 0.0
        self._guards_from = 0  # the first slice of whose first requests all were drawn by the same coin
        self._reached = 0.0  # the highest weight of this epoch
        self._promises = self._new_promises()
        self._slo_threshold = self._spending.slo_threshold()
        self._holding = False

    def _new_promises(self) -> list[Promise]:
        promised = {} if self._spec.slo is None else self._spec.slo.promised()
        slices = self._spec.judgements * self._longest_slices
        return [Promise(name, rate, slices, self._asks.alpha) for name, rate in promised.items()]

    @property
    def _longest_slices(self) -> int:
        return ceil(self._asks.max_step_s / SLICE_S)

    def _terms(self, course: Course) -> Terms:
        allowed = {metric.name: metric.allowed for metric in self._asks.metrics}
        long_s = self._spec.epoch_s if self._spec.sticky else SLICE_S
        return Terms(
            weight=course.weight,
            next_weight=None if course.warming else course.next_weight,
            periods=max(1, ceil(self._asks.max_step_s / long_s)),
            slower={name: allowed[name] for name in LATENCIES if name in allowed},
            worse={name: allowed[name] for name in RATES if name in allowed},
            rates={
                "errors": failure_rate(*self.history.error_rate()),
                "stalls": failure_rate(*self.history.stall_rate()),
            },
            warming=course.warming,
        )

    # --- courses ----------------------------------------------------------------------------------------------------

    def begin(self, course: Course, now_s: float) -> None:
        terms = self._terms(course)
        compares = 0.0 < course.weight < 1.0
        if compares:
            self._threshold = self._spending.threshold(course.name)
        self._course = course
        self._began_s = self._tires_from_s = now_s
        self._thresholds = Thresholds(self._tolerance(terms, "ttft"), self._tolerance(terms, "time_per_chunk"))
        if compares and not course.warming:
            self._thresholds.refine(self.history)
        self._refined_s = now_s
        bets = compares and (not self._spec.sticky or self.plan.step == 0)
        guards = self._spec.sticky and course.weight > self._reached
        self.plan = self.plan._replace(
            step=self.plan.step + 1,
            limits=dict(self._thresholds.limits),
            bets=bets,
            guards=guards,
            floor=self._reached if guards else 0.0,
        )
        self._reached = max(self._reached, course.weight)
        self._evidence = None
        if compares:
            self._evidence = UnitEvidence(terms, self._past) if self._spec.sticky else StepEvidence(terms)
        if compares and self._spec.sticky and terms.measures("errors"):
            self._set_guard(terms)

    def _tolerance(self, terms: Terms, metric: str) -> Tolerance:
        return Tolerance(terms.slower.get(metric, 1.0), terms.slower_then(metric))

    def _set_guard(self, terms: Terms) -> None:
        """One guard for the rollout, whose bets follow the weight; a new one, by hand, where the last one struck."""
        bets = self._guard_bets(terms)
        if self._guard is None or self._guard.value >= self._guard_threshold:
            self._guard = Rate(bets, self._spec.judgements * self._longest_slices, FINE, EARLY)
            self._guard_threshold = self._spending.threshold("guard")
        self._guard.bets = bets

    def _guard_bets(self, terms: Terms) -> list[Cells]:
        """By the coin of a unit that lies above the floor: it is the canary's if it lies below the weight."""
        weight = (terms.weight - self.plan.floor) / (1 - self.plan.floor)
        return failing(weight, terms.rates["errors"], terms.worse["errors"])

    def end(self, now_s: float) -> None:
        self._course = self._evidence = None
        self._thresholds = Thresholds(Tolerance(1.0, 1.0), Tolerance(1.0, 1.0))
        self.plan = self.plan._replace(step=self.plan.step + 1, limits={}, bets=False, guards=False, floor=0.0)
        self._began_s = now_s
        if any(promise.canary_alone(self._slo_threshold) for promise in self._promises):
            self._promises = self._new_promises()  # a retry is not to end as it begins
            self._slo_threshold = self._spending.slo_threshold()

    def rest(self, now_s: float) -> None:
        self._tires_from_s = now_s

    def new_epoch(self, epoch: int, salt: bytes, now_s: float) -> None:
        """All units are drawn anew: bets begin or go on, and the guard's coin is the weight's."""
        serves = self._evidence is not None
        self.plan = self.plan._replace(
            epoch=epoch, salt=salt, bets=serves or not self._spec.sticky, guards=serves, floor=0.0
        )
        self._reached = self._course.weight if self._course is not None else 0.0
        if self._guard is not None and self._evidence is not None:
            self._guard.bets = self._guard_bets(self._evidence.terms)
            self._guards_from = int(now_s // SLICE_S) + 1

    # --- looking ----------------------------------------------------------------------------------------------------

    def read(self, harvest: Harvest, now_s: float) -> list[Look]:
        self.history.read(harvest, now_s)
        if self._evidence is None or harvest.step != self.plan.step:
            return []
        self._evidence.read(harvest)
        for number in sorted(harvest.early):
            if self._guard is not None and number >= self._guards_from:
                self._guard.read(number, harvest.early[number])
            for promise in self._promises:
                promise.read(number, harvest.early[number])
        if self._course is not None and not self._course.warming and now_s - self._refined_s >= REFINE_S:
            self._refined_s = now_s
            self._refine()
        elif not self._thresholds.limits and self._course is not None and not self._course.warming:
            self._refine()
        return []

    def _refine(self) -> None:
        if self._thresholds.refine(self.history):
            self.plan = self.plan._replace(limits=dict(self._thresholds.limits))

    def verdict(self, now_s: float) -> Verdict:
        if self._course is None:
            return Verdict(Kind.GO_ON)
        worse = self._worse()
        if worse is not None:
            return worse
        tiring = self._course.next_weight is not None and not self._course.warming
        if tiring and now_s - self._tires_from_s >= self._asks.max_step_s:
            lacks = "; ".join(self._waits_for(now_s))
            return Verdict(Kind.TIRED, f"after {now_s - self._tires_from_s:.0f} s: {lacks}", self._numbers())
        broken = [promise for promise in self._promises if promise.broken(self._holding)]
        self._holding = bool(broken)
        if broken:
            names = " and ".join(promise.name for promise in broken)
            cause = f"the canary breaks the SLO of {names}, and the baseline is not proved to keep it"
            if any(promise.shared for promise in broken):
                cause = f"a shared cause: the baseline breaks the SLO of {names}"
            return Verdict(Kind.HOLD, cause, self._numbers())
        if now_s - self._began_s < self._asks.min_step_s or self._waits_for(now_s):
            return Verdict(Kind.GO_ON)  # `explain` says what it waits for; a tick has better things to do
        return Verdict(Kind.STEP, self._proof(), self._numbers())

    def _worse(self) -> Verdict | None:
        evidence = self._evidence
        if evidence is None:
            return None
        found = [(evidence.strength, self._threshold, "E")]
        if self._guard is not None:
            found.append((self._guard.value, self._guard_threshold, "guard E"))
        value, threshold, name = max(found, key=lambda each: each[0] / each[1])
        if value >= threshold:
            return Verdict(Kind.WORSE, f"{name}={value:.4g} ≥ {threshold:.4g}", self._numbers())
        for promise in self._promises:
            if promise.canary_alone(self._slo_threshold):
                reason = f"the canary alone breaks the SLO of {promise.name}, E={promise.canary_worse.value:.4g}"
                return Verdict(Kind.WORSE, reason, self._numbers())
        return None

    def _waits_for(self, now_s: float) -> list[str]:
        """What is missing for the next step, each with its numbers; nothing where it may begin."""
        course, evidence = self._course, self._evidence
        if course is None or course.next_weight is None:
            return ["nothing comes after this weight"]
        waits = []
        lasted_s = now_s - self._began_s
        if lasted_s < self._asks.min_step_s:
            waits.append(f"{lasted_s:.0f} s < {self._asks.min_step_s:.0f} s")
        if evidence is None:
            return waits
        for arm, asked in ((1, self._asks.min_canary), (0, self._asks.min_baseline)):
            there = evidence.requests[2 * arm] + evidence.requests[2 * arm + 1]
            if there < asked:
                waits.append(f"{there} {'canary' if arm else 'baseline'} samples < {asked}")
        wanted = 1 / self._asks.alpha_advance
        proofs = evidence.proofs()
        waits += [f"{name}: {proof:.3g} < {wanted:.3g}" for name, proof in proofs.items() if proof < wanted]
        if not proofs:
            waits.append("no samples that prove anything")
        return waits

    def _proof(self) -> str:
        proofs = self._evidence.proofs() if self._evidence is not None else {}
        if not proofs:
            return "nothing was asked"
        name = min(proofs, key=lambda each: proofs[each])
        return f"the least proof is that of {name}, {proofs[name]:.4g} ≥ {1 / self._asks.alpha_advance:.4g}"

    def _numbers(self) -> dict[str, Any]:
        evidence = self._evidence
        if evidence is None:
            return {}
        return {
            "evidence": evidence.strength,
            "threshold": self._threshold,
            "families": evidence.families(),
            "proofs": evidence.proofs(),
        }

    # --- showing and keeping ----------------------------------------------------------------------------------------

    def explain(self, now_s: float) -> dict[str, Any]:
        shown = self._numbers() | {"proof_wanted": 1 / self._asks.alpha_advance, "waits_for": self._waits_for(now_s)}
        if self._guard is not None:
            shown["guard"] = {"evidence": self._guard.value, "threshold": self._guard_threshold}
        shown["slo"] = {
            promise.name: {
                "canary": promise.canary_worse.value,
                "baseline": promise.baseline_broke.value,
                "threshold": self._slo_threshold,
            }
            for promise in self._promises
        }
        shown["quantiles"] = list(QUANTILES)
        for arm, canary in (("baseline", False), ("canary", True)):
            failed, of = self.history.error_rate(canary)
            stalled, _ = self.history.stall_rate(canary)
            quantiles = self.history.ttft_quantiles(canary)
            shown[arm] = {"ttft_s": quantiles, "failed": failed, "stalled": stalled, "ended": of}
        return shown

    def dump(self, now_s: float) -> dict[str, Any]:
        slice_now = int(now_s // SLICE_S)
        period_now = self.plan.epoch if self._spec.sticky else slice_now
        return {
            "step": self.plan.step,
            "course": None if self._course is None else list(self._course),
            "age_s": now_s - self._began_s,
            "tires_age_s": now_s - self._tires_from_s,
            "threshold": self._threshold,
            "thresholds": self._thresholds.dump(),
            "rates": None if self._evidence is None else self._evidence.terms.rates,
            "evidence": None if self._evidence is None else self._evidence.dump(period_now),
            "spending": self._spending.dump(),
            "guard": None if self._guard is None else self._guard.wealths[0].dump(slice_now),
            "guard_threshold": self._guard_threshold,
            "slo_threshold": self._slo_threshold,
            "promises": [promise.dump(slice_now) for promise in self._promises],
            "holding": self._holding,
        }

    def restore(self, dumped: dict[str, Any], now_s: float) -> None:
        slice_now = int(now_s // SLICE_S)
        self._spending.restore(dumped["spending"])
        self._began_s = now_s - dumped["age_s"]
        self._tires_from_s = now_s - dumped["tires_age_s"]
        self._refined_s = now_s
        self._threshold, self._guard_threshold = dumped["threshold"], dumped["guard_threshold"]
        self._slo_threshold = dumped["slo_threshold"]
        self._holding = dumped["holding"]
        for promise, kept in zip(self._promises, dumped["promises"], strict=True):
            promise.restore(kept, slice_now)
        self._course = None if dumped["course"] is None else Course(*dumped["course"])
        if self._course is None or dumped["evidence"] is None:
            self.plan = self.plan._replace(step=dumped["step"], limits={}, bets=False, guards=False)
            return
        terms = self._terms(self._course)._replace(rates=dumped["rates"])
        self._thresholds = Thresholds(self._tolerance(terms, "ttft"), self._tolerance(terms, "time_per_chunk"))
        self._thresholds.restore(dumped["thresholds"])
        self._evidence = UnitEvidence(terms, self._past) if self._spec.sticky else StepEvidence(terms)
        self._evidence.restore(dumped["evidence"], self.plan.epoch if self._spec.sticky else slice_now)
        if dumped["guard"] is not None:
            self._guard = Rate(self._guard_bets(terms), self._spec.judgements * self._longest_slices, FINE, EARLY)
            self._guard.wealths[0].restore(dumped["guard"], slice_now)
        # Which units were seen is not kept: those of this epoch are no witnesses any more.
        limits, bets = dict(self._thresholds.limits), not self._spec.sticky
        self.plan = self.plan._replace(step=dumped["step"], limits=limits, bets=bets, guards=False, floor=0.0)
        self._reached = 1.0
