"""The settings' shape as paths see it: which record stands at a path, which fields it has, where a name belongs."""

import types
import typing
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache

from proxy.controlplane.problems import Path, path_text
from proxy.model.record import Record
from proxy.model.settings import Settings


def fields(record: type[Record]) -> dict[str, typing.Any]:
    """YAML name → type."""
    return {field.alias or name: field.annotation for name, field in record.model_fields.items()}


def _inner(annotation: typing.Any) -> typing.Any:
    """What is inside `X | None`, a tuple of X or a mapping to X."""
    while arguments := typing.get_args(annotation):
        origin = typing.get_origin(annotation)
        if origin in (typing.Union, types.UnionType, tuple, typing.Annotated):
            annotation = arguments[0]
        elif origin is dict:
            annotation = arguments[1]
        else:
            break
    return annotation


def _is_many(annotation: typing.Any) -> bool:
    return typing.get_origin(annotation) in (tuple, dict)


def record_at(path: Path) -> type[Record] | None:
    """The record whose fields are written at the path, or None where there is none, or no such path."""
    here: typing.Any = Settings
    many = False
    for step in path:
        if many:
            many = False
        elif isinstance(here, type) and issubclass(here, Record) and step in fields(here):
            annotation = fields(here)[str(step)]
            here, many = _inner(annotation), _is_many(annotation)
        else:
            return None
    return here if not many and isinstance(here, type) and issubclass(here, Record) else None


def _walk(record: type[Record], prefix: Path) -> Iterator[Path]:
    for name, annotation in fields(record).items():
        yield (*prefix, name)
        inner = _inner(annotation)
        if isinstance(inner, type) and issubclass(inner, Record):
            yield from _walk(inner, (*prefix, name, "NAME") if _is_named(annotation) else (*prefix, name))


def _is_named(annotation: typing.Any) -> bool:
    return typing.get_origin(annotation) is dict


@cache
def homes(name: str) -> tuple[str, ...]:
    """Where a field of this name belongs: `upstreams.NAME`, `the top level`."""
    return tuple(path_text(path[:-1]) or "the top level" for path in _walk(Settings, ()) if path[-1] == name)


def closest(name: str, names: typing.Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of the names that was probably meant."""
    by_fold = {known.casefold().replace("-", "_"): known for known in names}
    found = get_close_matches(name.casefold().replace("-", "_"), by_fold, n=1, cutoff=cutoff)
    return by_fold[found[0]] if found else None
