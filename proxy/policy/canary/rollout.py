"""One canary's rollout: it draws arms, hears what becomes of requests, and decides what follows.

Its parts know little of each other. The recorder counts, in each worker; the judge reads counts, of however many
workers, and gives a verdict; the table of states says what may follow, and `Progress` what does. Whoever owns a
rollout sends the requests, keeps its dumps, and tells people of its events. All times are seconds of one monotonic
clock.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from proxy.policy.canary import memory
from proxy.policy.canary.arms import Arm, Dice, new_salt, place
from proxy.policy.canary.commands import command
from proxy.policy.canary.counts import Harvest
from proxy.policy.canary.events import CanaryEvent
from proxy.policy.canary.plan import Plan, Watch
from proxy.policy.canary.progress import Progress
from proxy.policy.canary.recorder import Recorder
from proxy.policy.canary.spec import CanarySpec
from proxy.policy.canary.states import OVER, State

_BASELINE, _CANARY = Arm.BASELINE, Arm.CANARY


class Rollout:
    """Requests of which it is not told are no evidence: forced arms, and what the baseline answered to a copied
    request.

    In shadow mode the canary's requests are the copies; the caller applies `max_concurrent` before it asks for a draw.
    """

    def __init__(self, spec: CanarySpec, rng: Dice, now_s: float) -> None:
        self.spec = spec
        self._rng = rng
        self._random = rng.random
        self._sticky = spec.sticky
        self.id = new_salt(rng).hex()[:12]
        self._salt = new_salt(rng)
        self._epoch = 0
        self._epoch_s = now_s
        self._progress = Progress(spec, now_s)
        self._progress.judge.new_epoch(0, self._salt, now_s)
        self._recorder = recorder = Recorder(watch_of(spec), self._progress.judge.plan, now_s)
        self.started, self.first_byte, self.finished = recorder.started, recorder.first_byte, recorder.finished
        self._ticked_s = self._shown_s = now_s
        self._weight = 0.0
        self.is_over = False  # nothing is to be learnt any more
        if spec.analysis.method != "evidence":
            self._progress.begin(now_s)  # nothing is to be known first
        self._follow(now_s)

    # --- a request --------------------------------------------------------------------------------------------------

    @property
    def weight(self) -> float:
        """The canary's share of requests, 0..1."""
        return self._weight

    @property
    def plan(self) -> Plan:
        """What recorders of other workers are to follow after each tick and command."""
        return self._progress.judge.plan

    @property
    def state(self) -> State:
        return self._progress.life.state

    def draw(self, unit_id: str | None) -> Arm:
        """An arm at the present weight. The same for a unit while the epoch lasts, unless the weight passes over it."""
        if self._sticky and unit_id is not None:
            return _CANARY if place(self._salt, unit_id) < self._weight else _BASELINE
        return _CANARY if self._random() < self._weight else _BASELINE

    def stalled(self, token: int, now_s: float) -> None:
        """No byte for `max_gap`, and still open."""
        self._recorder.stalled(token)

    # --- the clock --------------------------------------------------------------------------------------------------

    def tick(self, now_s: float, others: Iterable[Harvest] = ()) -> list[CanaryEvent]:
        """What closed since the last tick is read, with what `others` (workers) harvested. Once for each `now_s`."""
        if now_s <= self._ticked_s and self.state is not State.PENDING:
            return []
        self._ticked_s = self._shown_s = now_s
        harvest = self._recorder.harvest(now_s)
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
        self._weight = self._progress.weight
        self.is_over = self.state in OVER
        self._recorder.follow(self._progress.judge.plan, now_s)

    # --- showing and keeping ----------------------------------------------------------------------------------------

    def explain(self) -> dict[str, Any]:
        """All that one screen needs, as of the last tick or command."""
        return {"id": self.id, "epoch": self._epoch} | memory.explain(self._progress, self._shown_s)

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


def watch_of(spec: CanarySpec) -> Watch:
    """What recorders are to count, in this process or in another."""
    stalls = spec.metric("stalls")
    bands = spec.analysis.bands
    return Watch(
        max_gap_s=stalls.max_gap_s if stalls is not None else float("inf"),
        sticky=spec.sticky,
        slo_ttft_s=None if spec.slo is None else spec.slo.ttft_s,
        slo=spec.slo is not None,
        piece_s=None if bands is None else bands.piece_s,
        mean_of="ttft" if bands is None else bands.metric,
    )
