"""Which arm a request is sent to. Drawn before balancing: where load picks the arm, the arms cannot be compared.

`unit: request` throws a coin each time. A sticky unit (a conversation, a client) is hashed with a salt into [0, 1) and
is the canary's where that lies below the weight: a rising weight only adds units, a rollback moves only the canary's,
and prompt caches live. The salt changes with each epoch, so that over time each unit is drawn anew.
"""

from enum import Enum
from hashlib import blake2b
from typing import Protocol


class Arm(Enum):
    BASELINE = "baseline"
    CANARY = "canary"

    __hash__ = object.__hash__


class Dice(Protocol):
    def random(self) -> float:
        """A number in [0, 1)."""


def place(salt: bytes, unit: str) -> float:
    """Where a unit lies in [0, 1) in the epoch of this salt. Callers who choose their ids cannot choose their arm.

    53 bits, as many as a float has: with more, the last ids would round up to 1.0, which no weight covers.
    """
    digest = blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def new_salt(dice: Dice) -> bytes:
    """104 bits of chance."""
    return b"".join(int(dice.random() * 2.0**52).to_bytes(7, "big") for _ in range(2))
