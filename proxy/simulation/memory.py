"""What an upstream remembers between requests, in bounded memory: the oldest thing makes room for the newest.

Each upstream has its own shelf, as each vendor account has: an id made by one is unknown to another. A proxy that sends
the second request elsewhere is answered with 404, as in life.
"""

from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Thing = TypeVar("Thing", bound=Sized)


class Shelf(Generic[Thing]):
    def __init__(self, max_things: int, max_bytes: int) -> None:
        self._things: dict[str, Thing] = {}  # in the order they came
        self._max_things = max_things
        self._max_bytes = max_bytes
        self._bytes = 0

    def put(self, key: str, thing: Thing) -> None:
        self.pop(key)
        self._things[key] = thing
        self._bytes += len(thing)
        while len(self._things) > self._max_things or (self._bytes > self._max_bytes and len(self._things) > 1):
            self.pop(next(iter(self._things)))

    def get(self, key: str) -> Thing | None:
        return self._things.get(key)

    def pop(self, key: str) -> Thing | None:
        thing = self._things.pop(key, None)
        if thing is not None:
            self._bytes -= len(thing)
        return thing

    def newest_first(self) -> list[tuple[str, Thing]]:
        return list(reversed(self._things.items()))

    def __contains__(self, key: object) -> bool:
        return key in self._things

    def __len__(self) -> int:
        return len(self._things)


@dataclass(frozen=True, slots=True)
class StoredFile:
    filename: str
    purpose: str
    content: bytes
    created_s: int

    def __len__(self) -> int:
        return len(self.content)


@dataclass(slots=True)
class Memory:
    """What one upstream keeps. The bounds are generous for a demo and small for a laptop."""

    responses: Shelf[bytes] = field(default_factory=lambda: Shelf(max_things=1000, max_bytes=64 << 20))
    files: Shelf[StoredFile] = field(default_factory=lambda: Shelf(max_things=1000, max_bytes=256 << 20))
