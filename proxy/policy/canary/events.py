"""What happened to a rollout, with the numbers that it hung on."""

from typing import Any, NamedTuple

EVENTS = (
    "began",  # the warm-up, or the first step
    "stepped",
    "promoted",
    "succeeded",
    "rolled_back",
    "failed",  # after a rollback: the canary's last request has ended
    "holding",
    "went_on",
    "paused",
    "resumed",
    "inconclusive",
    "aborted",
    "retried",
    "weight_set",
    "evaluated",  # bands: one look, the report of the allocation
    "alert",  # bands: above all of them
    "slo_alarm",  # promoted, and worse than the SLO
)


class CanaryEvent(NamedTuple):
    """`text` is one line for people, which begins with the name; `numbers` are what it says, weights as shares of 1."""

    name: str
    at_s: float
    text: str
    numbers: dict[str, Any]
