"""What happened to a rollout, with the numbers that it hung on."""

from typing import Any, NamedTuple


class CanaryEvent(NamedTuple):
    """`text` is one line for people, which begins with the name; `numbers` are what it says, weights as shares of 1."""

    name: str
    at_s: float
    text: str
    numbers: dict[str, Any]
