"""What one configuration has otherwise than another: place by place, and which of it a running proxy cannot take."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from proxy.model.settings import Settings

# Read once, when the process starts. Which files certificates are in is no matter: they are read again.
AT_START: Mapping[str, Callable[[Settings], object]] = {
    "listen": lambda settings: [(listener.address, listener.tls is None) for listener in settings.listen],
    "admin.listen": lambda settings: settings.admin.listen,
    "admin.tokens": lambda settings: settings.admin.tokens,
    "admin.tls": lambda settings: settings.admin.tls is None,
    "state_dir": lambda settings: settings.state_dir,
    "workers": lambda settings: settings.workers,
    "tracing": lambda settings: settings.tracing,
    "log.format": lambda settings: settings.log.format,
}


def need_restart(before: Settings, after: Settings, *, listen: bool) -> tuple[str, ...]:
    """The places that differ, of those that are read only at the start. `listen`: is that one of them, too?"""
    places = _at_start(listen=listen)
    return tuple(place for place in places if AT_START[place](before) != AT_START[place](after))


def _at_start(*, listen: bool) -> tuple[str, ...]:
    return tuple(place for place in AT_START if listen or place != "listen")


@dataclass(frozen=True, slots=True)
class Difference:
    path: str  # upstreams.openai.keys[main].weight
    kind: Literal["added", "removed", "changed"]
    before: Any  # None: it is not there
    after: Any
    needs_restart: bool


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    """Between two configurations as `effective` shows them, without secrets; the one before is in force.

    What has a name is compared with what has the same one, wherever in its list that stands; of other lists, what is
    there in both is left out, and what takes another's place is compared with that.
    """
    at_start = _at_start(listen=before.get("workers", 1) != 1)  # workers are handed callers, and open nothing
    for path, old, new in _differing(before, after, ""):
        kind = "added" if old is None else "removed" if new is None else "changed"
        restart = ".tls." not in path and any(_is_within(path, place) for place in at_start)
        yield Difference(path, kind, old, new, restart)  # type: ignore[arg-type]


def _differing(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if before == after:
        return
    match before, after:
        case dict(), dict():
            for name in [*before, *(name for name in after if name not in before)]:
                place = f"{path}.{name}" if path else name
                yield from _differing(before.get(name), after.get(name), place)
        case list(), list() if all(isinstance(each, dict) for each in [*before, *after]):
            for place, old, new in _paired(before, after):
                yield from _differing(old, new, f"{path}[{place}]")
        case _:
            yield path, before, after


_Pair = tuple[str | int, Any, Any]


def _paired(before: Sequence[Any], after: Sequence[Any]) -> Iterator[_Pair]:
    """The entries that belong together, with a place; None where there is no other."""
    old, new = _by_name(before), _by_name(after)
    if old is not None and new is not None:
        for name in [*old, *(name for name in new if name not in old)]:
            yield name, old.get(name), new.get(name)
        return
    was, now = ([json.dumps(each, sort_keys=True) for each in entries] for entries in (before, after))
    for _, left, left_end, right, right_end in SequenceMatcher(None, was, now, autojunk=False).get_opcodes():
        for step in range(max(left_end - left, right_end - right)):
            there, comes = left + step < left_end, right + step < right_end
            place = right + step if comes else left + step
            yield place, before[left + step] if there else None, after[right + step] if comes else None


def _by_name(entries: Sequence[Any]) -> dict[str, Any] | None:
    """None where they have no names, or the same."""
    named = {entry.get("name", entry.get("address")): entry for entry in entries}
    return None if None in named or len(named) < len(entries) else named


def _is_within(path: str, place: str) -> bool:
    return path == place or path.startswith((f"{place}.", f"{place}["))
