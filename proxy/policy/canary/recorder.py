"""What is seen of each request, as counts. One for each worker; it decides nothing and knows no evidence.

Three calls a request, a microsecond each: thresholds are looked up when a request starts (so they were fixed before
it), and what it is worth is counted when it ends or when its slice closes, whichever comes first. A request still
running by then is judged by its age: else a canary that hangs is seen only after its timeouts.

Failures count as endless waits: else a canary that fails fast looks fast. A caller who left counts only for what had
been exceeded by then. What the proxy itself ended (it stopped, or another try was faster) counts like one who left.

A stream that is open for 5 minutes counts as slow per chunk, whatever it carries: else a canary three times as slow
would end after its slice and look good. The canary gets its tolerance here as well: 300 s, the baseline 300 s / r.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from math import inf

from proxy.model.outcome import Outcome
from proxy.policy.canary.arms import Arm, place
from proxy.policy.canary.counts import (
    CHUNK,
    EARLY,
    EARLY_S,
    EARLY_TTFT,
    LATE,
    LATE_S,
    LATE_TTFT,
    LEFT,
    NEXT_RANKS,
    SLICE_S,
    SLO_FAILED,
    SLO_FINE,
    SLO_SLOW,
    SMOOTH,
    STALLED,
    TALLY,
    Counts,
    Harvest,
)
from proxy.policy.canary.endings import FAILED, FINE, GONE, REFUSED, STALLS, STARTED, ending_of
from proxy.policy.canary.ledger import Cell, Ledger, Open
from proxy.policy.canary.plan import Plan, Watch
from proxy.policy.canary.strata import MOST_MODELS, SHORTEST_S, SIZES, Key, Stratum, bucket

MOST_OPEN = 100_000  # requests under way that are watched
MOST_UNITS = 20_000  # in an epoch; those beyond are no evidence
MOST_SAMPLES = 20_000  # of a stratum between two givings
SAMPLES_S, YOUNG_S = 30.0, 120.0  # how often samples are given, and until when with each harvest
ALL = Key(None, None, None)

_CANARY = Arm.CANARY
_OK = Outcome.OK


class Recorder:
    """`started` with a token, then what happens to it. A token that is not open is passed over: late, twice, forced."""

    def __init__(self, watch: Watch, plan: Plan, now_s: float) -> None:
        self._watch = watch
        self._slo = watch.slo or watch.sticky
        self._plan = plan
        self._open: dict[int, Open] = {}
        self._cells: dict[tuple[int, bool, str], Cell] = {}
        self._models: set[str] = set()
        self._early: deque[Ledger] = deque()  # slices not closed yet, in order
        self._late: deque[Ledger] = deque()
        self._slice = Ledger(-1)
        self._slice_ends_s = now_s
        self._units: dict[str, Ledger] = {}
        self._ended: deque[tuple[float, int, dict[str, Ledger]]] = deque()  # when an epoch ended, its number and units
        self._seen: set[str] = set()
        self._canary_ttft: list[int] = []
        self._means: dict[int, list[float]] = {}
        self._tally: Counts = [0] * (2 * TALLY)
        self._born_s = now_s
        self._turn = 0  # of giving samples
        self._under_way = [0, 0]  # of each arm, as of the last harvest

    def follow(self, plan: Plan, now_s: float) -> None:
        """A new plan. Slices of another step are forgotten; requests under way no longer count for any."""
        if plan is self._plan:
            return
        before, self._plan = self._plan, plan
        if plan.step != before.step:
            self._early, self._late = deque(), deque()
            self._units, self._ended = {}, deque()
            self._slice_ends_s = now_s
        elif plan.epoch != before.epoch:
            self._ended.append((now_s, before.epoch, self._units))
            self._units = {}
        if (plan.step, plan.epoch) != (before.step, before.epoch):
            self._seen = set()
        for key, cell in self._cells.items():
            cell.limits = plan.limits_of(*key)

    # --- a request --------------------------------------------------------------------------------------------------

    def started(self, token: int, arm: Arm, stratum: Stratum, now_s: float, unit_id: str | None = None) -> None:
        if token in self._open or len(self._open) >= MOST_OPEN:
            return
        key = (bisect_right(SIZES, stratum[0]), stratum[1], stratum[2])
        cell = self._cells.get(key) or self._new_cell(key)
        if now_s >= self._slice_ends_s:
            self._begin_slice(now_s)
        canary = 1 if arm is _CANARY else 0
        request = self._open[token] = Open(canary, cell, self._slice, now_s)
        self._tally[TALLY * canary + STARTED] += 1
        if self._watch.sticky:
            self._enter_unit(request, unit_id)

    def first_byte(self, token: int, now_s: float) -> None:
        request = self._open.get(token)
        if request is not None and request.first_s < 0.0:
            request.first_s = now_s

    def stalled(self, token: int) -> None:
        request = self._open.get(token)
        if request is not None:
            request.stalled = True

    def finished(
        self, token: int, outcome: Outcome, now_s: float, chunks: int = 0, longest_gap_s: float = 0.0, status: int = 200
    ) -> None:
        """`status`: the upstream's. `Outcome.OK` with a 4xx is an answer that the canary may be alone in giving."""
        request = self._open.pop(token, None)
        if request is None:
            return
        ending = FINE if outcome is _OK and status < 400 else ending_of(outcome, status)
        if longest_gap_s > self._watch.max_gap_s or outcome is Outcome.STALLED:
            request.stalled = True
        started_s = request.started_s
        first_s = request.first_s
        if first_s >= 0.0:
            ttft_s = first_s - started_s
            chunk_s = (now_s - first_s) / (chunks or 1)
        else:
            ttft_s = now_s - started_s
            chunk_s = ttft_s / (chunks or 1)
        if chunk_s < SHORTEST_S:  # no time at all lies in a bucket too, above its lower edge
            chunk_s = SHORTEST_S
        if ttft_s < SHORTEST_S:
            ttft_s = SHORTEST_S
        if not request.early_done:
            self._count_early(request, ending, ttft_s)
        self._count_late(request, ending, ttft_s, chunk_s, now_s - started_s)
        tally = self._tally
        at = TALLY * request.arm
        tally[at + ending] += 1
        if request.stalled:
            tally[at + STALLS] += 1
        if ending == FINE:
            self._sample(request, ttft_s, chunk_s, now_s)

    # --- counting ---------------------------------------------------------------------------------------------------

    def _count_early(self, request: Open, ending: int, ttft_s: float) -> None:
        request.early_done = True
        if self._slo:
            self._count_slo(request, ending, ttft_s)
        ledger = request.ledger
        if ledger is None:
            return
        counts = ledger.early
        at = EARLY * request.arm
        if ending == FINE:
            counts[at] += 1
        elif ending != GONE:
            counts[at + 1] += 1
        limits = request.limits
        if limits is not None and not limits.late:
            _rank_ttft(counts, at + EARLY_TTFT, request, ending, ttft_s)

    def _count_slo(self, request: Open, ending: int, ttft_s: float) -> None:
        """By the slice, whatever the unit; and the guard's, which are the first requests of units."""
        if ending == GONE:
            return
        counts = request.slice.early
        at = EARLY * request.arm
        limit_s = self._watch.slo_ttft_s
        slow = limit_s is not None and (ending == FAILED or ttft_s > limit_s)
        counts[at + (SLO_SLOW if slow else SLO_FINE)] += 1
        if ending != FINE:
            counts[at + SLO_FAILED] += 1
        if request.guard:
            counts[at if ending == FINE else at + 1] += 1

    def _count_late(self, request: Open, ending: int, ttft_s: float, chunk_s: float, took_s: float) -> None:
        ledger = request.ledger
        if ledger is None:
            return
        arm = request.arm
        counts = ledger.late
        at = LATE * arm
        if ending != GONE:
            counts[at if ending == FINE else at + 1] += 1
            counts[at + (STALLED if request.stalled else SMOOTH)] += 1
        elif request.stalled:
            counts[at + STALLED] += 1
        limits = request.limits
        if limits is None:
            return
        if limits.late:
            _rank_ttft(counts, at + LATE_TTFT, request, ending, ttft_s)
        if limits.chunk is None:
            return
        at += CHUNK
        if ending == FAILED or took_s > limits.longest_s[arm]:
            chunk_s = inf
        if ending == GONE:
            if request.first_s < 0.0:
                return  # it waited for the first byte, which is another latency
            at += LEFT
        counts[at + bisect_left(limits.chunk[arm], chunk_s)] += 1
        counts[at + NEXT_RANKS + bisect_left(limits.chunk_next[arm], chunk_s)] += 1

    def _sample(self, request: Open, ttft_s: float, chunk_s: float, now_s: float) -> None:
        """A latency as it is, for quantiles and means: of requests that went well."""
        cell = request.cell
        if request.arm:
            samples = self._canary_ttft
        else:
            samples = cell.ttft
            if cell.stream and len(cell.chunk) < MOST_SAMPLES:
                cell.chunk.append(bucket(chunk_s))
        if len(samples) < MOST_SAMPLES:
            samples.append(bucket(ttft_s))
        if self._watch.piece_s is not None:
            self._add_to_mean(request, ttft_s, chunk_s, int(now_s // self._watch.piece_s))

    def _add_to_mean(self, request: Open, ttft_s: float, chunk_s: float, piece: int) -> None:
        of_ttft = self._watch.mean_of == "ttft"
        if of_ttft or request.cell.stream:
            sums = self._means.setdefault(piece, [0.0, 0.0, 0.0, 0.0])
            sums[2 * request.arm] += ttft_s if of_ttft else chunk_s
            sums[2 * request.arm + 1] += 1.0

    # --- what closes ------------------------------------------------------------------------------------------------

    def harvest(self, now_s: float) -> Harvest:
        """What closed since the last call. What is still running is judged as it stands."""
        self._settle(now_s)
        found = Harvest(self._plan.step)
        for slices, lag_s, closed in ((self._early, EARLY_S, "early"), (self._late, LATE_S, "late")):
            into: dict[int, Counts] = getattr(found, closed)
            while slices and (slices[0].number + 1) * SLICE_S + lag_s <= now_s:
                slice_ = slices.popleft()
                into[slice_.number] = getattr(slice_, closed)
        while self._ended and self._ended[0][0] + SLICE_S + LATE_S <= now_s:
            _, epoch, units = self._ended.popleft()
            found.units.update({(epoch, unit): (each.early, each.late) for unit, each in units.items()})
        self._give(found, now_s)
        return found

    def _settle(self, now_s: float) -> None:
        """Requests lie in the order in which they started, so the walk ends with the first that is young."""
        early_before_s = (now_s - EARLY_S) // SLICE_S * SLICE_S
        late_before_s = (now_s - LATE_S) // SLICE_S * SLICE_S
        forgotten = []
        for token, request in self._open.items():
            if request.started_s >= early_before_s:
                break
            late = request.started_s < late_before_s
            if request.early_done and not late:
                continue
            ttft_s = (now_s if request.first_s < 0.0 else request.first_s) - request.started_s
            if not request.early_done:
                self._count_early(request, FINE, ttft_s)
            if late:
                self._count_late(request, FINE, ttft_s, inf, inf)
                forgotten.append(token)
        for token in forgotten:
            self._under_way[self._open.pop(token).arm] -= 1

    def _give(self, found: Harvest, now_s: float) -> None:
        self._give_samples(found, now_s)
        found.means, self._means = self._means, {}
        found.tally, self._tally = self._tally, [0] * (2 * TALLY)
        for arm in (0, 1):
            began, *ended = (found.tally[TALLY * arm + each] for each in (STARTED, FINE, REFUSED, FAILED, GONE))
            self._under_way[arm] += began - sum(ended)
        found.open = list(self._under_way)

    def _give_samples(self, found: Harvest, now_s: float) -> None:
        """At first with each harvest, for thresholds wait for them; then now and then, for many at once cost less."""
        turn = int(now_s // SAMPLES_S)
        if turn == self._turn and now_s - self._born_s > YOUNG_S:
            return
        self._turn = turn
        ttft, chunk = {}, {}
        for key, cell in self._cells.items():
            if cell.ttft:
                ttft[Key(*key)], cell.ttft = cell.ttft, []
            if cell.chunk:
                chunk[Key(*key)], cell.chunk = cell.chunk, []
        found.latencies = {"ttft": ttft, "chunk": chunk}
        if self._canary_ttft:
            found.latencies["canary_ttft"], self._canary_ttft = {ALL: self._canary_ttft}, []

    # --- slices, units, strata --------------------------------------------------------------------------------------

    def _begin_slice(self, now_s: float) -> None:
        number = int(now_s // SLICE_S)
        self._slice_ends_s = (number + 1) * SLICE_S
        self._slice = Ledger(number)
        self._early.append(self._slice)
        self._late.append(self._slice)

    def _enter_unit(self, request: Open, unit_id: str | None) -> None:
        """A unit's ledger, and whether this is its first request; none of both where it is no evidence."""
        request.ledger = None
        if unit_id is None:
            return
        plan = self._plan
        if unit_id not in self._seen and len(self._seen) < MOST_UNITS:
            self._seen.add(unit_id)
            request.guard = plan.guards and (not plan.floor or place(plan.salt, unit_id) >= plan.floor)
        if plan.bets and unit_id in self._seen:
            request.ledger = self._units.get(unit_id)
            if request.ledger is None:
                request.ledger = self._units[unit_id] = Ledger(plan.epoch)

    def _new_cell(self, key: tuple[int, bool, str]) -> Cell:
        size, stream, model = key
        if model not in self._models:
            if len(self._models) >= MOST_MODELS:
                key = (size, stream, "")
            else:
                self._models.add(model)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(stream, self._plan.limits_of(*key))
        return cell


def _rank_ttft(counts: Counts, at: int, request: Open, ending: int, ttft_s: float) -> None:
    """Which thresholds the wait for the first byte exceeded."""
    limits = request.limits
    if limits is None:
        return
    if ending == FAILED:
        ttft_s = inf
    elif ending == GONE and request.first_s < 0.0:
        at += LEFT
    arm = request.arm
    counts[at + bisect_left(limits.ttft[arm], ttft_s)] += 1
    counts[at + NEXT_RANKS + bisect_left(limits.ttft_next[arm], ttft_s)] += 1
