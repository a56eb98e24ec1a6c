"""How `serinus bench` shows what it measured: tables for people, one JSON object for programs."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.benchmark.difference import Added
from proxy.benchmark.report import Difference, Report
from proxy.benchmark.run import Arm
from proxy.benchmark.summary import Spread, Summary


def show(report: Report, began_at: datetime, console: Console) -> None:
    console.print(Text(f"{began_at:%Y-%m-%d %H:%M:%S} UTC · {report.load} · waits in ms", style="dim"))
    for arm, summary in zip(report.arms, report.summaries, strict=True):
        console.print(Text(_title(arm, report), "bold"))
        console.print(Text(_counts(summary), "dim"))
        if summary.answered:
            console.print(_waits(summary))
        for failed in summary.failed:
            console.print(Text(f"  {failed.count} failed: {failed.kind}: {failed.said}".rstrip(": "), "red"))
    for title, differences in _comparisons(report):
        console.print(Text(title, "bold"))
        console.print(_differences(differences))
    console.print(Text(f"The client used {report.client_busy:.0%} of a core.", style="dim"))
    for note in report.notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)


def _table(*columns: str) -> Table:
    """What is shown is a `Text` wherever others chose the words: they could look like markup."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", min_width=32)
    for column in columns:
        table.add_column(column, justify="right", min_width=7)
    return table


def _waits(summary: Summary) -> Table:
    table = _table("mean", "p50", "p95", "p99")
    for name, spread in (
        ("first token", summary.first_token),
        ("between two events with tokens", summary.between_tokens),
        ("a token, each answer's mean", summary.per_token),
        ("whole answer", summary.total),
    ):
        if spread is not None:
            table.add_row(f"  {name}", *_ms(spread.mean_s, spread.p50_s, spread.p95_s, spread.p99_s))
    return table


def _title(arm: Arm, report: Report) -> str:
    streamed = "streamed" if arm.stream else "whole"
    name = f"{arm.target.name} · " if len({each.target for each in report.arms}) > 1 else ""
    return f"{name}{arm.target.model} · {streamed} · at most {arm.tokens} tokens"


def _counts(summary: Summary) -> str:
    failed = summary.calls - summary.answered
    counts = f"{summary.answered} answers" + (f", {failed} failed" if failed else "")
    return f"{counts} · {summary.answers_a_s:.3g} answers/s · {summary.tokens_a_s:.4g} tokens/s"


def _comparisons(report: Report) -> Iterable[tuple[str, tuple[Difference, ...]]]:
    if report.by_target:
        first = report.by_target[0]
        yield f"What {first.of.target.name} adds to {first.to.target.name}", report.by_target
    if report.by_streaming:
        yield "What streaming adds to an answer that comes whole", report.by_streaming


def _differences(differences: tuple[Difference, ...]) -> Table:
    table = _table("mean", "95 % interval", "p50", "95 % interval")
    several = len({difference.of.target for difference in differences}) > 1
    for difference in differences:
        of = difference.of
        what = [f"{of.tokens} tokens", difference.measure, of.target.name if several else ""]
        if difference.of.target is not difference.to.target:
            what.insert(1, "streamed" if of.stream else "whole")
        adds = difference.added
        table.add_row(
            Text("  " + ", ".join(filter(None, what))),
            f"{adds.mean_s * 1000:+.2f}",
            _interval(adds.interval_s),
            f"{adds.p50_s * 1000:+.2f}",
            _interval(adds.p50_interval_s),
        )
    return table


def _interval(interval_s: tuple[float, float] | None) -> str:
    return "-" if interval_s is None else " … ".join(f"{bound * 1000:+.2f}" for bound in interval_s)


def _ms(*seconds: float) -> list[str]:
    """Three digits and more."""
    return [f"{each * 1000:.2f}" if each < 0.1 else f"{each * 1000:.1f}" for each in seconds]


def as_json(report: Report, began_at: datetime) -> dict[str, Any]:
    """Durations in ms, rates a second."""
    return {
        "began_at": began_at.isoformat(),
        "load": report.load,
        "arms": [
            {**_arm(arm), **_summary(summary)} for arm, summary in zip(report.arms, report.summaries, strict=True)
        ],
        "added_by_target": list(map(_difference, report.by_target)),
        "added_by_streaming": list(map(_difference, report.by_streaming)),
        "client": {"busy": round(report.client_busy, 3), "limit": report.client_limit},
        "notes": list(report.notes),
    }


def _arm(arm: Arm) -> dict[str, Any]:
    return {"url": arm.target.base_url, "model": arm.target.model, "stream": arm.stream, "max_tokens": arm.tokens}


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "answered": summary.answered,
        "failed": [asdict(failed) for failed in summary.failed],
        "first_token_ms": _spread(summary.first_token),
        "between_tokens_ms": _spread(summary.between_tokens),
        "per_token_ms": _spread(summary.per_token),
        "total_ms": _spread(summary.total),
        "late_ms": _spread(summary.late),
        "tokens": summary.tokens,
        "tokens_an_event": summary.tokens_an_event,
        "answers_a_s": round(summary.answers_a_s, 4),
        "tokens_a_s": round(summary.tokens_a_s, 4),
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {name.removesuffix("_s"): _rounded_ms(seconds) for name, seconds in asdict(spread).items()}


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "of": _arm(difference.of),
        "to": _arm(difference.to),
        "measure": difference.measure,
        **_added(difference.added),
    }


def _added(adds: Added) -> dict[str, Any]:
    return {
        "mean_ms": _rounded_ms(adds.mean_s),
        "mean_interval_ms": adds.interval_s and list(map(_rounded_ms, adds.interval_s)),
        "p50_ms": _rounded_ms(adds.p50_s),
        "p50_interval_ms": adds.p50_interval_s and list(map(_rounded_ms, adds.p50_interval_s)),
    }


def _rounded_ms(seconds: float) -> float:
    return round(seconds * 1000, 4)
