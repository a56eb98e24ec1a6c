"""From the options of `serinus bench` to what is to be measured. What does not go together is a click.UsageError."""

import math
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from proxy.benchmark.dialects import DIALECTS, UNREADABLE, Chat, Dialect
from proxy.benchmark.load import ArrivalRate, AtOnce, Extent, Load
from proxy.benchmark.prompts import OWN, Prompt, PromptsInvalid, read_prompts
from proxy.benchmark.run import Arm
from proxy.benchmark.target import Target
from proxy.controlplane.secrets import SecretReader

TOKENS = 64
TOKENS_FOR_BOTH = (10, 50, 200)
CALLERS, CALLS = 5, 50
WARM_UP_MOST = 50  # calls: enough to open connections, without asking much of whoever pays for the tokens
BASE_URL = "write the base URL as an SDK takes it, http://127.0.0.1:8080/v1"

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    arms: tuple[Arm, ...]
    prompts: tuple[Prompt, ...]
    load: Load
    extent: Extent
    warm_up: int
    timeout_s: float


def plan_of(url: str, options: Options) -> Plan:
    prompts = _prompts(options["prompts"])
    load = _load(options)
    at_once = load.callers if isinstance(load, AtOnce) else math.ceil(load.per_s)
    return Plan(
        arms=_arms(_targets(url, options, prompts), options),
        prompts=prompts,
        load=load,
        extent=Extent(options["requests"] or (None if options["duration"] else CALLS), options["duration"]),
        warm_up=options["warm_up"] or min(at_once, WARM_UP_MOST),
        timeout_s=options["timeout"],
    )


def _arms(targets: tuple[Target, ...], options: Options) -> tuple[Arm, ...]:
    both = options["stream"] == "both"
    streams = (True, False) if both else (options["stream"] == "yes",)
    tokens = options["tokens"] or (TOKENS_FOR_BOTH if both else (TOKENS,))
    return tuple(Arm(target, stream, most) for most in tokens for stream in streams for target in targets)


def _prompts(path: Path | None) -> tuple[Prompt, ...]:
    try:
        return OWN if path is None else read_prompts(path)
    except PromptsInvalid as error:
        raise click.UsageError(str(error)) from None


def _load(options: Options) -> Load:
    rate, callers = options["rate"], options["concurrency"]
    if rate is None:
        if options["arrivals"]:
            raise click.UsageError("--arrivals says how the calls of --rate come, which is not given")
        return AtOnce(callers or CALLERS)
    if callers:
        both = "--concurrency keeps so many calls open, --rate begins so many a second: give one of them"
        raise click.UsageError(both)
    if not math.isfinite(rate):
        raise click.UsageError("--rate is no number of calls a second: write it as in 20, or 0.5")
    even = options["arrivals"] == "even"
    return ArrivalRate(rate, None if even else random.Random(options["seed"]))  # noqa: S311 - no secret


def _targets(url: str, options: Options, prompts: tuple[Prompt, ...]) -> tuple[Target, ...]:
    dialect, fields, headers = _dialect(options), _fields(options["body"]), dict(options["headers"])
    model, key = options["model"], _revealed(options["key"], "--key")
    asked = [(_checked(url), model, key)]
    if options["compare"]:
        other_key = _revealed(options["compare_key"], "--compare-key", default=key)
        asked.append((_checked(options["compare"]), options["compare_model"] or model, other_key))
    elif options["compare_key"] or options["compare_model"]:
        raise click.UsageError("--compare-key and --compare-model say how to ask --compare URL2, which is not given")
    names = _names([(base_url, model) for base_url, model, _ in asked])
    targets = tuple(Target(name, *each, dialect, headers, fields) for name, each in zip(names, asked, strict=True))
    try:
        for target in targets:
            target.body(prompts[0], 1, stream=True)
    except UnicodeEncodeError:
        raise click.UsageError("--model, --body or the prompts hold half a character, which JSON cannot") from None
    return targets


def _names(asked: list[tuple[str, str]]) -> list[str]:
    """What tells the targets apart: their URLs, if need be with their models, or else their order."""
    urls = [url for url, _ in asked]
    if len(set(urls)) == len(urls):
        return urls
    if len(set(asked)) == len(asked):
        return [f"{model} at {url}" for url, model in asked]
    return [f"{url} ({which})" for url, which in zip(urls, ("first", "second"), strict=True)]


def _dialect(options: Options) -> Dialect:
    if options["tokens_field"] is None:
        return DIALECTS[options["api"]]()
    if options["api"] != "chat":
        raise click.UsageError("--tokens-field is about --api chat: the others have one name for it")
    return Chat(options["tokens_field"])


def _checked(base_url: str) -> str:
    if "@" in base_url.rpartition("://")[2].partition("/")[0]:
        raise click.UsageError(f"a base URL holds no user or password: {BASE_URL}, and the key with --key")
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of its port, or its brackets
        usable = False
    if not usable or parts.query or parts.fragment or not parts.geturl().isprintable():
        raise click.UsageError(f"{base_url!r} is no base URL: {BASE_URL}")
    if parts.path.rstrip("/").endswith(tuple(dialect.path for dialect in DIALECTS.values())):
        raise click.UsageError(f"{base_url!r} is the URL of a call, which is added here: {BASE_URL}")
    return parts.geturl()


def _fields(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.ValidationError:
        raise click.UsageError('--body is no JSON object: write it as in {"temperature": 0}') from None
    except UNREADABLE as error:
        raise click.UsageError(f"--body is no JSON: {error}") from None


def _revealed(key: str | None, option: str, default: str | None = None) -> str | None:
    if key is None or key == "none":
        return default if key is None else None
    try:
        revealed = SecretReader(os.environ, Path()).resolve(key).reveal()
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
    if not (revealed.isascii() and revealed.isprintable()):
        raise click.UsageError(f"{option}: it holds characters that no header may have, a line break perhaps")
    return revealed
