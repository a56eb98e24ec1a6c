"""The canaries of a configuration: each has a rollout, which is asked every few seconds what follows from what it saw.

A rollout outlives snapshots and restarts as long as the canary's settings stay the same: another weight or threshold is
another question, and begins anew. Nothing here decides: `policy/canary` does, and what it says is done, told, and kept.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from proxy.controlplane.canary_history import History
from proxy.controlplane.state_file import StateFile, StateUnreadable
from proxy.model.canary_settings import Canary as CanarySettings
from proxy.model.settings import Settings
from proxy.obs.log import Log
from proxy.policy.canary import CanaryEvent, CanarySpec, Rollout
from proxy.policy.canary.arms import Dice
from proxy.policy.canary.counts import Harvest
from proxy.policy.canary.states import OVER

QUIET = frozenset(("evaluated",))  # told often, and asked for by nobody
ITSELF = "serinus"  # who did what nobody commanded


class CanaryNotFound(LookupError):
    """The message says what is known."""


class Kept(msgspec.Struct, frozen=True):
    """What is kept across restarts: each rollout's dump, by the canary's name."""

    rollouts: dict[str, dict[str, Any]]


class CanaryStore:
    """`canaries.json` in `state_dir`. To load and to save waits for the disk."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "canaries.json"
        self._file = StateFile(self.path, Kept)

    def load(self) -> Kept:
        """Raises StateUnreadable: without it a canary that was rolled back would begin once more."""
        return self._file.load() or Kept({})

    def save(self, kept: Kept) -> None:
        """Raises StateUnwritable or StateUnreadable; what was remembered before is whole."""
        self._file.save(kept)


class Canaries:
    def __init__(
        self, settings: Settings, clock: Callable[[], float], dice: Dice, log: Log, kept: Kept | None = None
    ) -> None:
        self.clock, self._dice, self._log = clock, dice, log
        self.rollouts: dict[str, Rollout] = {}
        self._histories: dict[str, History] = {}
        self._coming: tuple[Settings, dict[str, Rollout]] | None = None
        self._due_s: dict[str, float] = {}
        self.transitions: dict[tuple[str, str], int] = {}  # how often what happened to which canary
        self.on_event: Callable[[str, CanaryEvent, str], None] = lambda canary, event, who: None
        self.on_change: Callable[[], None] = lambda: None
        self.on_due: Callable[[Collection[str], float], None] = lambda due, now_s: self.look(due, now_s, {})
        self.deadline_s = 0.0  # of the next look
        self._take(settings, {} if kept is None else kept.rollouts)

    # --- which there are -----------------------------------------------------------------------------------------

    def in_force(self, settings: Settings) -> Mapping[str, Rollout]:
        """The rollouts under these settings; those that are new begin when the settings are taken."""
        if self._coming is None or self._coming[0] is not settings:
            self._coming = (
                settings,
                {name: self._rollout(name, canary, {}) for name, canary in settings.canaries.items()},
            )
        return self._coming[1]

    def take(self, settings: Settings) -> None:
        """These settings are in force now."""
        self.rollouts = dict(self.in_force(settings))
        self._due_s = {name: self._due_s.get(name, 0.0) for name in self.rollouts}
        self._histories = {name: each for name, each in self._histories.items() if name in self.rollouts}
        self.deadline_s = 0.0
        self.on_change()

    def _take(self, settings: Settings, kept: Mapping[str, dict[str, Any]]) -> None:
        rollouts = {name: self._rollout(name, canary, kept) for name, canary in settings.canaries.items()}
        self._coming = settings, rollouts
        self.rollouts = dict(rollouts)
        self._due_s = dict.fromkeys(rollouts, 0.0)

    def _rollout(self, name: str, canary: CanarySettings, kept: Mapping[str, dict[str, Any]]) -> Rollout:
        spec, known = CanarySpec.of(canary), self.rollouts.get(name)
        if known is not None and known.spec.hash == spec.hash:
            return known
        dump = kept.get(name)
        if dump is None:
            return Rollout(spec, self._dice, self.clock())
        try:
            return Rollout.load(dump, spec, self._dice, self.clock())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StateUnreadable(
                f"canaries.json in state_dir: what it holds of {name} cannot be taken up ({type(error).__name__}): put "
                "a good copy in its place, or move it away and all canaries begin anew"
            ) from None

    def find(self, name: str) -> Rollout:
        """Raises CanaryNotFound."""
        rollout = self.rollouts.get(name)
        if rollout is None:
            there = ", ".join(self.rollouts) or "none"
            raise CanaryNotFound(f"no canary is called {name!r}; there are: {there}")
        return rollout

    # --- what happens to them ------------------------------------------------------------------------------------

    def expired(self, now_s: float) -> None:
        """It is time to look at those that are due."""
        due = [name for name, one in self.rollouts.items() if self._due_s[name] <= now_s and one.state not in OVER]
        for name in due:
            self._due_s[name] = now_s + self.rollouts[name].spec.analysis.interval_s
        self._wait()
        if due:
            self.on_due(due, now_s)

    def look(self, due: Collection[str], now_s: float, harvests: Mapping[str, Iterable[Harvest]]) -> None:
        """See what follows from what these saw until then, here and (`harvests`) elsewhere."""
        for name in due:
            rollout = self.rollouts.get(name)
            if rollout is not None:
                events = rollout.tick(now_s, harvests.get(name, ()))
                self._remember(name, now_s, events)
                self._told(name, events, ITSELF)
        self._wait()
        self.on_change()

    def _wait(self) -> None:
        waiting = [due_s for name, due_s in self._due_s.items() if self.rollouts[name].state not in OVER]
        self.deadline_s = min(waiting, default=math.inf)

    def command(self, name: str, what: str, who: str, **options: object) -> list[CanaryEvent]:
        """Tell a rollout something by hand. Raises CanaryNotFound, IllegalTransition where it is no time for it, and
        ValueError where it is said wrongly; nothing has changed then."""
        rollout = self.find(name)
        events = rollout.command(what, now_s := self.clock(), **options)
        self._remember(name, now_s, events)
        self._due_s[name] = self.deadline_s = 0.0
        self._told(name, events, who)
        self.on_change()
        return events

    def _remember(self, name: str, now_s: float, events: Iterable[CanaryEvent]) -> None:
        rollout, history = self.rollouts[name], self._histories.get(name)
        if history is None or history.rollout != rollout.id:
            history = self._histories[name] = History(rollout.id)
        history.add(now_s, rollout.explain(), events)

    def history(self, name: str) -> list[dict[str, Any]]:
        """How it came to where it is."""
        history = self._histories.get(name)
        return [] if history is None or history.rollout != self.find(name).id else history.told(self.clock())

    def _told(self, name: str, events: Iterable[CanaryEvent], who: str) -> None:
        for event in events:
            if event.name not in QUIET:
                count = name, event.name
                self.transitions[count] = self.transitions.get(count, 0) + 1
            log = self._log.debug if event.name in QUIET else self._log.info
            log("canary", canary=name, happened=event.name, said=event.text, who=who, numbers=event.numbers)
            self.on_event(name, event, who)

    def kept(self) -> Kept:
        """What is to be remembered now."""
        now_s = self.clock()
        return Kept({name: rollout.dump(now_s) for name, rollout in self.rollouts.items()})
