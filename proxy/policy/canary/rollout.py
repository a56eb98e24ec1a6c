"""One canary's rollout: it draws arms, hears what becomes of requests, and decides what follows.

Its parts know little of each other. The recorder counts, in each worker; the judge reads counts, of however many
workers, and gives a verdict; the table of states says what may follow, and `Progress` what does. Whoever owns a
rollout sends the requests, keeps its dumps, and tells people of its events. All times are seconds of one monotonic
clock.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from proxy.policy.canary import memory
from proxy.policy.canary.arms import Dice, new_salt
from proxy.policy.canary.commands import command
from proxy.policy.canary.counts import Harvest
from proxy.policy.canary.enrolment import Enrolment, Standing
from proxy.policy.canary.events import CanaryEvent
from proxy.policy.canary.plan import Plan
from proxy.policy.canary.progress import Progress
from proxy.policy.canary.spec import CanarySpec
from proxy.policy.canary.states import OVER, State


class Rollout(Enrolment):
    """Requests of which it is not told are no evidence: forced arms, and what the baseline answered to a copied
    request.

    In shadow mode the canary's requests are the copies; the caller applies `max_concurrent` before it asks for a draw.
    """

    def __init__(self, spec: CanarySpec, rng: Dice, now_s: float) -> None:
        self._rng = rng
        self.id = new_salt(rng).hex()[:12]
        salt = new_salt(rng)
        self._epoch = 0
        self._epoch_s = now_s
        self._progress = Progress(spec, now_s)
        self._progress.judge.new_epoch(0, salt, now_s)
        super().__init__(spec, rng, Standing(0.0, salt, False, self._progress.judge.plan), now_s)
        self._ticked_s = self._shown_s = now_s
        if spec.analysis.method != "evidence":
            self._progress.begin(now_s)  # nothing is to be known first
        self._follow(now_s)

    @property
    def plan(self) -> Plan:
        """What recorders are to follow after each tick and command."""
        return self._progress.judge.plan

    @property
    def state(self) -> State:
        return self._progress.life.state

    # --- the clock --------------------------------------------------------------------------------------------------

    def tick(self, now_s: float, others: Iterable[Harvest] = ()) -> list[CanaryEvent]:
        """What closed since the last tick is read, with what `others` (workers) harvested. Once for each `now_s`."""
        if now_s <= self._ticked_s and self.state is not State.PENDING:
            return []
        self._ticked_s = self._shown_s = now_s
        harvest = self.harvest(now_s)
        for other in others:
            harvest.merge(other)
        self._turn_epoch(now_s)
        self._progress.look(harvest, now_s)
        self._follow(now_s)
        return self._progress.told()

    def command(self, name: str, now_s: float, **args: Any) -> list[CanaryEvent]:
        """pause, resume, abort, promote (full, reason), retry, weight (percent); all take a `reason`.

        Raises IllegalTransition where it is no time for it, ValueError where it is said wrongly; nothing has changed
        then.
        """
        command(self._progress, name, now_s, **args)
        self._shown_s = max(self._shown_s, now_s)
        self._follow(now_s)
        return self._progress.told()

    def _turn_epoch(self, now_s: float) -> None:
        """Sticky units are drawn anew. Epochs that passed unseen are one: nobody was drawn in them."""
        passed = int((now_s - self._epoch_s) // self.spec.epoch_s)
        if not self._sticky or passed < 1:
            return
        self._epoch += 1
        self._epoch_s += passed * self.spec.epoch_s
        self._salt = new_salt(self._rng)
        self._progress.judge.new_epoch(self._epoch, self._salt, now_s)

    def _follow(self, now_s: float) -> None:
        self.follow(Standing(self._progress.weight, self._salt, self.state in OVER, self.plan), now_s)

    # --- showing and keeping ----------------------------------------------------------------------------------------

    def explain(self, now_s: float | None = None) -> dict[str, Any]:
        """All that one screen needs, as of the last tick or command; where `now_s` is given, ages are as of then."""
        shown = memory.explain(
            self._progress, self.analysis(), self._shown_s, self._shown_s if now_s is None else now_s
        )
        return {"id": self.id, "epoch": self._epoch} | shown

    def analysis(self) -> dict[str, Any]:
        """How the arms compare, as of the last tick or command."""
        return self._progress.judge.explain(self._shown_s)

    def dump(self, now_s: float) -> dict[str, Any]:
        """What must survive a restart, as JSON has it: ages, no instants, for clocks begin anew. No open request."""
        return {
            "version": memory.VERSION,
            "id": self.id,
            "spec": self.spec.hash,
            "salt": self._salt.hex(),
            "epoch": self._epoch,
            "epoch_age_s": now_s - self._epoch_s,
            "progress": memory.dump(self._progress, now_s),
        }

    @classmethod
    def load(cls, state: Mapping[str, Any], spec: CanarySpec, rng: Dice, now_s: float) -> "Rollout":
        """As it was; a new rollout where the spec is another one. Raises ValueError for what is no dump."""
        rollout = cls(spec, rng, now_s)
        if state.get("version") != memory.VERSION:
            raise ValueError(f"version: {state.get('version')!r} is no dump of a rollout: write {memory.VERSION}")
        if state["spec"] == spec.hash:
            rollout.restore(state, now_s)
        return rollout

    def restore(self, state: Mapping[str, Any], now_s: float) -> None:
        self.id = state["id"]
        self._salt = bytes.fromhex(state["salt"])
        self._epoch = state["epoch"]
        self._epoch_s = now_s - state["epoch_age_s"]
        self._progress.judge.new_epoch(self._epoch, self._salt, now_s)
        memory.restore(self._progress, state["progress"], now_s)
        self._progress.told()  # that it began, which was told before
        self._follow(now_s)
