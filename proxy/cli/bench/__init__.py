"""`serinus bench`: what callers of an LLM API wait for, and what a proxy before it adds."""

import asyncio
import gc
import json
import resource
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from proxy.benchmark.client import Client
from proxy.benchmark.dialects import DIALECTS
from proxy.benchmark.report import report_of
from proxy.benchmark.run import Arm, Run
from proxy.benchmark.sample import Failure, Sample
from proxy.cli.bench.plan import CALLERS, CALLS, TOKENS, WARM_UP_MOST, Plan, plan_of
from proxy.cli.bench.show import as_json, show
from proxy.cli.parameters import Duration, Header, Tokens
from proxy.main import clock
from proxy.process import GC_ALLOCATIONS

LOOK_S = 0.5

TOKENS_HELP = f"The most an answer may have, or several: 10,50,200. [default: {TOKENS}]"
STREAM_HELP = "both: what does streaming cost, at 10, 50 and 200 tokens?  [default: yes]"
WARM_UP_HELP = f"Calls before, that do not count. [default: as many as at once or in a second, up to {WARM_UP_MOST}]"


@click.command(short_help="Measure what callers of an LLM API wait for.")
@click.argument("url")
@click.option("--model", required=True, help="The model to ask.")
@click.option("--api", type=click.Choice(list(DIALECTS)), default="chat", show_default=True)
@click.option("--key", help="env:NAME, file:/path or the key itself. Absent: none is sent.")
@click.option("--header", "headers", type=Header(), multiple=True, help="One more, 'name: value'; may be repeated.")
@click.option("--body", default="{}", help='JSON fields for each request; null removes one: {"max_tokens": null}.')
@click.option("--prompts", type=click.Path(path_type=Path), help="One a line, or .jsonl. Absent: some of our own.")
@click.option("--tokens", type=Tokens(), help=TOKENS_HELP)
@click.option("--tokens-field", help='How chat names them; newer models of OpenAI want "max_completion_tokens".')
@click.option("--stream", type=click.Choice(["yes", "no", "both"]), default="yes", help=STREAM_HELP)
@click.option("--concurrency", type=click.IntRange(min=1), help=f"So many calls at once. [default: {CALLERS}]")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Or so many a second, slow answers or not.")
@click.option("--arrivals", type=click.Choice(["random", "even"]), help="Of --rate; random (Poisson) if not said.")
@click.option("--requests", type=click.IntRange(min=1), help=f"Calls of each kind. [default: {CALLS}]")
@click.option("--duration", type=Duration(), help="No call of a kind begins after so long.")
@click.option("--warm-up", type=click.IntRange(min=1), help=WARM_UP_HELP)
@click.option("--timeout", type=Duration(), default="10m", show_default=True, help="Of one call, whole.")
@click.option("--compare", metavar="URL2", help="Measure this one too, in turns, and say what URL adds to it.")
@click.option("--compare-key", help="For URL2, if not that of --key; none: no key.")
@click.option("--compare-model", help="For URL2, if not that of --model.")
@click.option("--seed", default=1, show_default=True, help="For arrivals at random.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object, for programs.")
def bench(url: str, json_wanted: bool, **options: Any) -> None:
    """Measure what callers of the LLM API at URL wait for.

    URL is the base URL that an SDK would be given, such as http://127.0.0.1:8080/v1. Each call asks for an answer as an
    application does; the time to its first token, between its tokens and to its end is measured. Ctrl-C ends early and
    shows what there is. Real providers charge for these calls.
    """
    plan = plan_of(url, options)
    began_at = datetime.now(UTC)
    _prepare_process()
    report = report_of(uvloop.run(_measure(plan, quiet=json_wanted)), str(plan.load))
    if json_wanted:
        click.echo(json.dumps(as_json(report, began_at), indent=2))
    else:
        show(report, began_at, Console(highlight=False))
    raise SystemExit(0 if any(summary.answered for summary in report.summaries) else 1)


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
