"""`serinus bench`: what callers of an LLM API wait for, and what a proxy before it adds."""

import asyncio
import gc
import json
import math
import os
import random
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from proxy.benchmark.client import Client
from proxy.benchmark.dialects import DIALECTS, UNREADABLE
from proxy.benchmark.load import ArrivalRate, AtOnce, Extent, Load
from proxy.benchmark.prompts import OWN, Prompt, PromptsInvalid, read_prompts
from proxy.benchmark.report import report_of
from proxy.benchmark.run import Arm, Run
from proxy.benchmark.sample import Failure, Sample
from proxy.benchmark.target import Target
from proxy.cli.bench_report import as_json, show
from proxy.cli.parameters import Duration, Header, Tokens
from proxy.controlplane.secrets import SecretReader
from proxy.main import GC_ALLOCATIONS, clock

TOKENS = 64
TOKENS_FOR_BOTH = (10, 50, 200)
CALLERS, CALLS = 5, 50
LOOK_S = 0.5
WARM_UP_MOST = 50  # calls: enough to open connections, without asking much of whoever pays for the tokens

STREAM_HELP = "both: what does streaming cost, at 10, 50 and 200 tokens?  [default: yes]"
WARM_UP_HELP = f"Calls before, that do not count. [default: as many as at once, up to {WARM_UP_MOST}]"


@dataclass(frozen=True, slots=True)
class Plan:
    arms: tuple[Arm, ...]
    prompts: tuple[Prompt, ...]
    load: Load
    extent: Extent
    warm_up: int
    timeout_s: float


@click.command(short_help="Measure what callers of an LLM API wait for.")
@click.argument("url")
@click.option("--model", required=True, help="The model to ask.")
@click.option("--api", type=click.Choice(list(DIALECTS)), default="chat", show_default=True)
@click.option("--key", help="env:NAME, file:/path or the key itself. Absent: none is sent.")
@click.option("--header", "headers", type=Header(), multiple=True, help="One more, 'name: value'; may be repeated.")
@click.option("--body", default="{}", help='JSON fields for each request; null removes one: {"max_tokens": null}.')
@click.option("--prompts", type=click.Path(path_type=Path), help="One a line, or .jsonl. Absent: some of our own.")
@click.option(
    "--tokens", type=Tokens(), help=f"The most an answer may have, or several: 10,50,200. [default: {TOKENS}]"
)
@click.option("--stream", type=click.Choice(["yes", "no", "both"]), default="yes", help=STREAM_HELP)
@click.option("--concurrency", type=click.IntRange(min=1), help=f"So many calls at once. [default: {CALLERS}]")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Or so many a second, slow answers or not.")
@click.option("--arrivals", type=click.Choice(["random", "even"]), default="random", help="Of --rate; random: Poisson.")
@click.option("--requests", type=click.IntRange(min=1), help=f"Calls of each kind. [default: {CALLS}]")
@click.option("--duration", type=Duration(), help="No call of a kind begins after so long.")
@click.option("--warm-up", type=click.IntRange(min=1), help=WARM_UP_HELP)
@click.option("--timeout", type=Duration(), default="10m", show_default=True, help="Of one call, whole.")
@click.option("--compare", metavar="URL2", help="Measure this one too, in turns, and say what URL adds to it.")
@click.option("--compare-key", help="For URL2, if not that of --key.")
@click.option("--compare-model", help="For URL2, if not that of --model.")
@click.option("--seed", default=1, show_default=True, help="For the arrivals.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object, for programs.")
def bench(url: str, json_wanted: bool, **options: Any) -> None:
    """Measure what callers of the LLM API at URL wait for.

    URL is the base URL that an SDK would be given, such as http://127.0.0.1:8080/v1. Each call asks for an answer as an
    application does; the time to its first token, between its tokens and to its end is measured. Ctrl-C ends early and
    shows what there is. Real providers charge for these calls.
    """
    plan = _plan(url, options)
    began_at = datetime.now(UTC)
    _prepare_process()
    report = report_of(uvloop.run(_measure(plan, quiet=json_wanted)), str(plan.load))
    if json_wanted:
        click.echo(json.dumps(as_json(report, began_at), indent=2))
    else:
        show(report, began_at, Console(highlight=False))
    raise SystemExit(0 if any(summary.answered for summary in report.summaries) else 1)


def _plan(url: str, options: dict[str, Any]) -> Plan:
    """Raises click.UsageError for what does not go together."""
    if options["rate"] and not math.isfinite(options["rate"]):
        raise click.UsageError("--rate is no number of calls a second: write it as in 20, or 0.5")
    if options["rate"] and options["concurrency"]:
        raise click.UsageError(
            "--concurrency keeps so many calls open, --rate begins so many a second: give one of them"
        )
    fields = _fields(options["body"])
    dialect = DIALECTS[options["api"]]()
    try:
        prompts = read_prompts(options["prompts"]) if options["prompts"] else OWN
    except PromptsInvalid as error:
        raise click.UsageError(str(error)) from None

    def target(base_url: str, model: str, key: str | None) -> Target:
        name = base_url if options["compare"] != url else f"{model} at {base_url}"
        found = Target(name, _checked(base_url), model, key, dialect, dict(options["headers"]), fields)
        try:
            found.body(prompts[0], 1, stream=True)
        except UnicodeEncodeError:
            raise click.UsageError("--model, --body or the prompts hold half a character, which JSON cannot") from None
        return found

    key = _revealed(options["key"], "--key")
    targets = [target(url, options["model"], key)]
    if options["compare"]:
        compare_key = _revealed(options["compare_key"], "--compare-key") or key
        targets.append(target(options["compare"], options["compare_model"] or options["model"], compare_key))
    elif options["compare_key"] or options["compare_model"]:
        raise click.UsageError("--compare-key and --compare-model say how to ask --compare URL2, which is not given")
    both = options["stream"] == "both"
    streams = (True, False) if both else (options["stream"] == "yes",)
    tokens = options["tokens"] or (TOKENS_FOR_BOTH if both else (TOKENS,))
    arms = [Arm(target, stream, most) for most in tokens for stream in streams for target in targets]
    callers = options["concurrency"] or CALLERS
    load: Load = AtOnce(callers)
    if options["rate"]:
        dice = random.Random(options["seed"]) if options["arrivals"] == "random" else None  # noqa: S311 - no secret
        load = ArrivalRate(options["rate"], dice)
    calls = options["requests"] or (None if options["duration"] else CALLS)
    warm_up = options["warm_up"] or (1 if options["rate"] else min(callers, WARM_UP_MOST))
    return Plan(tuple(arms), prompts, load, Extent(calls, options["duration"]), warm_up, options["timeout"])


def _checked(base_url: str) -> str:
    right = "write it as an SDK takes it, http://127.0.0.1:8080/v1"
    if "@" in base_url.rpartition("://")[2].partition("/")[0]:
        raise click.UsageError(f"a base URL holds no user or password: {right}, and the key with --key")
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of its port, or its brackets
        usable = False
    if not usable or parts.query or parts.fragment or not parts.geturl().isprintable():
        raise click.UsageError(f"{base_url!r} is no base URL: {right}")
    return parts.geturl()


def _fields(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.ValidationError:
        raise click.UsageError('--body is no JSON object: write it as in {"temperature": 0}') from None
    except UNREADABLE as error:
        raise click.UsageError(f"--body is no JSON: {error}") from None


def _revealed(key: str | None, option: str) -> str | None:
    if key is None:
        return None
    try:
        revealed = SecretReader(os.environ, Path()).resolve(key).reveal()
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
    if not (revealed.isascii() and revealed.isprintable()):
        raise click.UsageError(f"{option}: it holds characters that no header may have, a line break perhaps")
    return revealed


def _prepare_process() -> None:
    """As many connections as the system allows, and a cycle collector that seldom stops the clock."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 10, 100)


async def _measure(plan: Plan, *, quiet: bool) -> Run:
    """Raises click.ClickException where the first calls show that there is nothing to measure."""
    async with Client(clock, plan.timeout_s) as client:
        run = Run(client, plan.prompts, clock=clock, cpu_clock=time.process_time)
        for arm in plan.arms:
            _judge_first(arm, await run.warm_up(arm, plan.warm_up))
        loop = asyncio.get_running_loop()
        measuring = loop.create_task(run.measure(plan.arms, plan.load, plan.extent))
        loop.add_signal_handler(signal.SIGINT, measuring.cancel)
        with _progress(quiet) as progress:
            bar = progress.add_task("measuring", total=1.0)
            while not measuring.done():
                await asyncio.wait([measuring], timeout=LOOK_S)
                progress.update(bar, completed=run.done, refresh=True)
        loop.remove_signal_handler(signal.SIGINT)
        if not measuring.cancelled():
            measuring.result()
    return run


def _progress(quiet: bool) -> Progress:
    """A bar on a terminal; drawn when it is told to, since a thread that draws would take turns with the measuring."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    return Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden)


def _judge_first(arm: Arm, samples: Sequence[Sample]) -> None:
    """Some failures no further call would mend."""
    wrong = [sample for sample in samples if sample.failure is Failure.CONNECT or _is_refusal(sample)]
    if len(wrong) == len(samples):
        raise click.ClickException(f"{arm.target.url}: {wrong[0].kind}: {wrong[0].said}")


def _is_refusal(sample: Sample) -> bool:
    """A 4xx that is no matter of load; or an answer that is not this API's."""
    if sample.failure is Failure.STATUS:
        return sample.status < 500 and sample.status not in (408, 425, 429)
    return sample.failure in (Failure.UNREADABLE, Failure.NO_END, Failure.NO_TOKENS)
