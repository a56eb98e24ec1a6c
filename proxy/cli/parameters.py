"""Kinds of parameters that several commands take."""

import re

import click

from proxy.model.quantities import parse_wait

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


class Duration(click.ParamType[float]):
    """`250ms`, `30s` or `5m`, in seconds; more than nothing."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_wait(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Tokens(click.ParamType[tuple[int, ...]]):
    """`64`, or several as in `10,50,200`."""

    name = "tokens"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} is no number of tokens, nor several: write 64, or 10,50,200", param, ctx)
        return tuple(dict.fromkeys(numbers))


class Header(click.ParamType[tuple[str, str]]):
    """`name: value`."""

    name = "header"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, colon, text = str(value).partition(":")
        if not colon or not _TOKEN.fullmatch(name.strip()) or not text.isprintable():
            self.fail(f"{value!r} is no header: write it as in 'x-team: search'", param, ctx)
        return name.strip().lower(), text.strip()


class Choices(click.ParamType[tuple[str, ...]]):
    """One or several of these words, as in `keys,clients`."""

    name = "names"

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        found = str(value).split(",")
        for name in found:
            if name not in self._names:
                self.fail(f"{name!r} is none of {', '.join(self._names)}", param, ctx)
        return tuple(dict.fromkeys(found))
