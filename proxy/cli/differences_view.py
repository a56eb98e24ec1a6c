"""What a file would change, a line for each place."""

import json
from collections.abc import Collection, Iterator
from typing import Any

from rich.text import Text

from proxy.controlplane.differences import Difference

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def difference_lines(found: Collection[Difference], waiting: Collection[str], url: str) -> Iterator[Text]:
    """`waiting`: what was changed before, and is not in force before a restart."""
    for difference in found:
        mark, colour = _MARKS[difference.kind]
        restart = " (needs a restart)" if difference.needs_restart else ""
        yield Text.assemble((f"{mark} {difference.path}", colour), f": {_values(difference)}", (restart, "red"))
    if waiting:
        yield Text(f"changed before, and not in force without a restart: {', '.join(waiting)}", "yellow")
    yield Text(summary(found, url))


def summary(found: Collection[Difference], url: str) -> str:
    if not found:
        return f"nothing differs from what is in force at {url}"
    restart = sum(each.needs_restart for each in found)
    places = "place" if len(found) == 1 else "places"
    said = f"differs from what is in force at {url} in {len(found)} {places}"
    return f"{said}, {restart} of which wait{'s' if restart == 1 else ''} for a restart" if restart else said


def _values(difference: Difference) -> str:
    match difference.kind:
        case "added":
            return _shown(difference.after)
        case "removed":
            return _shown(difference.before)
    return f"{_shown(difference.before)} → {_shown(difference.after)}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_brief(value), ensure_ascii=False)


def _brief(value: Any) -> Any:
    """Without what is empty."""
    if isinstance(value, dict):
        return {name: _brief(inner) for name, inner in value.items() if inner not in ({}, [])}
    return [_brief(inner) for inner in value] if isinstance(value, list) else value
