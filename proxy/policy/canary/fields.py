"""Reading a mapping that a person wrote: each error names the place, what was found, and what would be right."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import TypeVar

from proxy.model.quantities import shown

T = TypeVar("T")
_MISSING = object()


class Fields:
    """One mapping, read field by field. `done` refuses what nobody asked for: a typo is no default."""

    __slots__ = ("_found", "_known", "_place")

    def __init__(self, value: object, place: str = "") -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place or 'the canary'}: {shown(value)} is not a mapping: write its fields")  # noqa: TRY004
        self._place = place
        self._found = dict(value)
        self._known: list[str] = []

    def at(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def has(self, name: str) -> bool:
        return name in self._found

    def read(self, name: str, parse: Callable[[object], T], default: object = _MISSING) -> T:
        """Raises ValueError where it is missing without a default, or not what `parse` takes."""
        self._known.append(name)
        value = self._found.pop(name, default)
        if value is _MISSING:
            raise ValueError(f"{self.at(name)} is missing")
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f"{self.at(name)}: {error}") from None

    def maybe(self, name: str, parse: Callable[[object], T]) -> T | None:
        """As `read`; None where it is missing or empty."""
        if self._found.get(name) is None:
            self._known.append(name)
            self._found.pop(name, None)
            return None
        return self.read(name, parse)

    def fields(self, name: str) -> "Fields":
        """A mapping within; an empty one where it is missing."""
        self._known.append(name)
        return Fields(self._found.pop(name, {}), self.at(name))

    def done(self) -> None:
        if self._found:
            name = str(next(iter(self._found)))
            raise ValueError(f"{self.at(name)} is unknown; write one of {', '.join(self._known)}")


def number(lowest: float, highest: float, right: str) -> Callable[[object], float]:
    """Parses a number in lowest..highest, both included."""

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"{shown(value)} is not a number: write {right}")
        if not lowest <= value <= highest:
            raise ValueError(f"{value} is out of range: write {right}")
        return float(value)

    return parse


def whole(lowest: int, right: str) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ValueError(f"{shown(value)} is no such count: write {right}")
        return value

    return parse


def one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in words or not isinstance(value, str):
            raise ValueError(f"{shown(value)} is none of them: write {' or '.join(words)}")
        return value

    return parse


def yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither: write true or false")  # noqa: TRY004
    return value


def text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{shown(value)} is no text: write a name")
    return value


def items(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)} is not a list: write one")  # noqa: TRY004
    return list(value)
