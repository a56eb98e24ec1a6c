"""Requests as a recorder sees them, and what it counted of the first slice."""

from proxy.model.outcome import Outcome
from proxy.policy.canary.arms import Arm
from proxy.policy.canary.counts import (
    EARLY,
    LATE,
    LATE_S,
    SLICE_S,
    Harvest,
)
from proxy.policy.canary.plan import Limits, Plan, Watch
from proxy.policy.canary.recorder import Recorder
from proxy.policy.canary.strata import Key, Stratum

BASELINE, CANARY = Arm.BASELINE, Arm.CANARY
STREAM, WHOLE = Stratum(1000, True, "m"), Stratum(1000, False, "m")
ALL = Key(None, None, None)
# Thresholds of the baseline 1..5 s, of the canary twice that; of the next step 2 and 6 s, 3 and 9 s. A chunk: a tenth.
TTFT = ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 10.0])
CHUNKS = ([0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.4, 0.6, 0.8, 1.0])
LIMITS = Limits(TTFT, ([2.0, 6.0], [3.0, 9.0]), CHUNKS, ([0.2, 0.6], [0.3, 0.9]), (150.0, 300.0), late=False)


WATCH = Watch(max_gap_s=15.0)


def recorder(limits: Limits = LIMITS, watch: Watch = WATCH, **plan: object) -> Recorder:
    return Recorder(watch, Plan(1, {ALL: limits}, **plan), 0.0)  # type: ignore[arg-type]


def serve(
    record: Recorder,
    token: int,
    arm: Arm,
    start_s: float,
    *,
    ttft_s: float = 0.5,
    took_s: float = 1.0,
    outcome: Outcome = Outcome.OK,
    chunks: int = 10,
    status: int = 200,
    stratum: Stratum = STREAM,
    unit: str | None = None,
) -> None:
    record.started(token, arm, stratum, start_s, unit)
    record.first_byte(token, start_s + ttft_s)
    record.finished(token, outcome, start_s + took_s, chunks, 0.0, status)


def closed(record: Recorder, now_s: float = LATE_S + 2 * SLICE_S) -> Harvest:
    """Everything that began in the first slice."""
    return record.harvest(now_s)


def early(harvest: Harvest, canary: bool, at: int, size: int) -> list[int]:
    first = EARLY * canary + at
    return harvest.early[0][first : first + size]


def late(harvest: Harvest, canary: bool, at: int, size: int) -> list[int]:
    first = LATE * canary + at
    return harvest.late[0][first : first + size]
