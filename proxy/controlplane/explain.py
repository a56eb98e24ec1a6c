"""Pydantic's errors in an operator's words: what was found, and what would be right.

A value is shown only where it can be no secret. Under keys, tokens, clients and headers it is described by its kind:
whoever pastes a key into the wrong line must not find it in the log of their deployment.
"""

import re
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from proxy.controlplane.document import Document
from proxy.controlplane.problems import Path, Problem
from proxy.controlplane.shape import closest, fields, homes, record_at
from proxy.model.quantities import shown


def explain(errors: Iterable[ErrorDetails], document: Document) -> list[Problem]:
    """One problem for each error that says something new."""
    errors = list(errors)
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    said = {(*loc[:-1], meant(loc[:-1], str(loc[-1]))) for loc in unknown}
    return [_problem(error, document) for error in errors if _is_news(error, document, said)]


def _is_news(error: ErrorDetails, document: Document, said: set[tuple[int | str | None, ...]]) -> bool:
    match error["type"]:
        case "extra_forbidden":
            return True
        case "missing" if error["loc"] in said:  # as what an unknown field was meant to be
            return False
        case "too_short" if error["input"]:  # there are entries, and each has a problem of its own
            return False
    return document.existing(error["loc"]) not in document.holes


def _problem(error: ErrorDetails, document: Document) -> Problem:
    path: Path = error["loc"]
    if error["type"] == "extra_forbidden":
        return Problem(path, document.key_line(path), _unknown(path), document.file)
    if error["type"] == "missing":
        return Problem(path[:-1], document.line(path[:-1]), f"{path[-1]} is missing", document.file)
    if path and path[-1] == "[key]":  # pydantic's way to say that the name itself is wrong
        path = path[:-1]
        return Problem(path, document.key_line(path), _message(error, path, document), document.file)
    place = document.existing(path)
    return Problem(place, document.line(place), _message(error, place, document), document.file)


def is_discreet(path: Path) -> bool:
    """Whether a secret may be written at the path, or may have been by mistake."""
    match path:
        case ("clients", *_) | ("admin", "tokens", *_) | ("upstreams", _):
            return True
        case ("canaries", _, "webhooks", _) | ("canaries", _, "webhooks", _, "secret" | "url"):
            return True
        case ("upstreams", _, "keys" | "headers" | "query" | "auth" | "base_url", *_) | ("routes", _, "headers", *_):
            return True
    return False


def discreet(path: Path) -> Path:
    """The path without names that might be a secret's text: `{value:sk-…}`, its blank forgotten, is one."""
    for depth, step in enumerate(path):
        record = record_at(path[:depth])
        if isinstance(step, int) or record is None or step in fields(record) or not is_discreet(path[:depth]):
            continue
        if not re.fullmatch(r"[A-Za-z_-]{1,24}", step):
            return (*path[:depth], "?")
    return path


def meant(parent: Path, name: str) -> str | None:
    """The field of the record at `parent` that an unknown name was probably meant to be."""
    record = record_at(parent)
    names = fields(record) if record else {}
    start = name.partition(":")[0]
    if start in names:
        return start
    return closest(name, names, cutoff=0.6 if not homes(name) else 0.8)


def _unknown(path: Path) -> str:
    *parent, name = path
    name = str(name)
    likely = meant(tuple(parent), name)
    if likely and name.startswith(f"{likely}:"):
        return f"unknown field: a blank is missing after '{likely}:'"
    if likely:
        return f"unknown field: did you mean '{likely}'?"
    if places := homes(name):
        return f"unknown field: {shown(name)} belongs in {' or '.join(places[:2])}"
    record = record_at(tuple(parent))
    return f"unknown field: there are {', '.join(fields(record))}" if record else "unknown field"


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return "nothing"


def _message(error: ErrorDetails, path: Path, document: Document) -> str:
    context: dict[str, Any] = error.get("ctx", {})
    kind = error["type"]
    if kind == "value_error":
        return str(context["error"])
    found = _kind(error["input"])
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{found} where a mapping{_of_what(error['loc'])} is expected"
    if kind == "tuple_type":
        return f"{found} where a list is expected: write each entry after '- ', or all of them in [ ]"
    shy = is_discreet(path)
    value = found if shy else shown(error["input"])
    if kind in ("string_type", "path_type"):
        return _not_text(error["input"], None if shy else document.places[path].text)
    if kind in ("int_type", "int_from_float", "int_parsing", "int_parsing_size"):
        return f"{value} is not a whole number: write one without quotes or decimals, such as 3"
    if kind in ("float_type", "float_parsing", "finite_number"):
        return f"{value} is not a number: write one without quotes or a unit, such as 10 or 0.5"
    if kind == "bool_type":
        return f"{value} is neither true nor false: write one of them, without quotes"
    if kind == "literal_error":
        return _not_one_of(error["input"], value, re.findall(r"'([^']*)'", context["expected"]))
    if kind in ("greater_than_equal", "less_than_equal"):
        limit = f"at least {_plain(context['ge'])}" if "ge" in context else f"at most {_plain(context['le'])}"
        return f"out of range: write {limit}" if shy else f"{value} is out of range: write {limit}"
    if kind in ("too_short", "string_too_short"):
        return "empty: write one entry at least" if kind == "too_short" else "empty: write something between the quotes"
    return "this value does not fit here"


def _plain(limit: float) -> str:
    """As one would write it: 100 and not 100.0."""
    return str(int(limit) if limit == int(limit) else limit)


def _of_what(path: Path) -> str:
    record = record_at(path)
    if record is None:
        return " of names to values"
    needed = [field.alias or name for name, field in record.model_fields.items() if field.is_required()]
    return f" with {' and '.join(f'{name}:' for name in needed or list(fields(record))[:2])}"


def _not_text(value: object, written: str | None) -> str:
    found = _kind(value)
    if isinstance(value, bool | int | float):
        in_quotes = f'write "{written}"' if written else "put it in quotes"
        return f"{found if written is None else written} is not text: {in_quotes}"
    return f"{found} where text is expected"


def _not_one_of(found: object, value: str, choices: list[str]) -> str:
    likely = closest(found, choices) if isinstance(found, str) else None
    if likely:
        return f"{value} is unknown: did you mean '{likely}'?"
    return f"{value} is unknown: write {' or '.join(choices)}"
