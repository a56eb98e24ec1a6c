"""How a rollout looks while it goes on, from what it says of itself (`explain`): the steps, both arms, the evidence.

Evidence grows and falls by factors, so its bars are drawn on a logarithmic scale: empty at 1, where every bet begins,
full at what decides.
"""

from collections.abc import Iterator, Mapping
from math import log
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.controlplane.status import Status
from proxy.policy.canary.states import OVER

Explained = Mapping[str, Any]

EVENTS_SHOWN = 5
BAR_COLUMNS = 40
EIGHTHS = " ▏▎▍▌▋▊▉█"
SHOWN_QUANTILES = (0.5, 0.9, 0.99)
DECISIONS = {"promoted": "green", "rolled_back": "bold red", "aborted": "bold red"}
COLOURS = {"failed": "bold red", "rolling_back": "bold red", "aborted": "bold red"}
COLOURS |= {"succeeded": "green", "promoting": "green", "baking": "green"}
COLOURS |= {"holding": "yellow", "paused": "yellow", "inconclusive": "yellow"}
_OVER = frozenset(state.value for state in OVER)


def panel(explained: Explained, status: Status) -> Group:
    """All of it, in at most 80 columns but for the events."""
    parts: list[RenderableType] = [_head(explained), _arms(explained, status), *_evidence(explained)]
    decided = decision(explained)
    if decided is not None:
        parts.insert(1, decided)
    if explained["waits_for"]:
        parts.append(Text("waits for: " + "; ".join(explained["waits_for"]), "dim"))
    return Group(*parts, *event_lines(explained)[-EVENTS_SHOWN:])


def canary_line(explained: Explained) -> Text:
    """For paper: `next at 10 %, progressing; worse: E=3.2 of 400, …; no worse: ttft 1.3 of 20`."""
    text = Text.assemble(f"{explained['canary_pool']} at {_percent(explained)}, ", _state(explained))
    numbers = _numbers(explained)
    if numbers:
        text.append(f"; worse: E={number(numbers['evidence'])} of {numbers['threshold']:g}")
        proofs = ", ".join(f"{name} {number(proof)}" for name, proof in numbers["proofs"].items())
        wanted = explained["analysis"].get("proof_wanted")
        text.append(f"; no worse: {proofs} of {wanted:g}" if proofs and wanted else "")
    return text


def decision(explained: Explained) -> Text | None:
    """What became of the canary and after how long, with the numbers; None while nothing is decided."""
    events = explained["events"]
    for event in reversed(events):
        if event["name"] in DECISIONS:
            after = lasted(events[0]["ago_s"] - event["ago_s"])
            what, why = event["name"].replace("_", " ").capitalize(), event["text"].partition(": ")[2]
            return Text(f"{what} after {after}: {why}", DECISIONS[event["name"]])
    return None


def is_over(explained: Explained) -> bool:
    """Decided, and the last request of the arm that is left has ended."""
    return explained["state"] in _OVER


def event_lines(explained: Explained) -> list[Text]:
    """Times are since the first one."""
    events = explained["events"]
    return [
        Text.assemble(
            (lasted(events[0]["ago_s"] - event["ago_s"]).rjust(6) + "  ", "dim"),
            (event["text"], DECISIONS.get(event["name"], "")),
        )
        for event in events
    ]


def _head(explained: Explained) -> Text:
    head = Text.assemble((explained["canary_pool"], "bold"), f" beside {explained['baseline_pool']} · ")
    head.append_text(_state(explained)).append(f" · {_percent(explained)} of requests · ")
    for at, step in enumerate(explained["steps"]):
        here = at == explained["step"] and explained["weight"] > 0
        name = f"{100 * step['weight']:g}" if "weight" in step else "pause"
        head.append(" → " if at else "steps ").append(name, "reverse" if here else "")
    return head


def _percent(explained: Explained) -> str:
    return f"{100 * explained['weight']:g} %"


def _state(explained: Explained) -> Text:
    return Text(explained["state"].replace("_", " "), COLOURS.get(explained["state"], "cyan"))


def _arms(explained: Explained, status: Status) -> Table:
    """The latest rate; first bytes of the last half hour; while they are compared, what the present weight saw."""
    compared = decision(explained) is None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    names = " / ".join(f"p{100 * share:g}" for share in SHOWN_QUANTILES)
    for column in ("req/s", f"first byte ms, {names}", *(("requests", "failed") if compared else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for arm in ("baseline", "canary"):
        pool, counts = explained[f"{arm}_pool"], explained["arms"][arm]
        rate = status.pools[pool].traffic.requests_per_s if pool in status.pools else 0.0
        failed = counts["error_rate"]
        seen = str(counts["started"]), Text("-" if failed is None else f"{100 * failed:.1f} %", "red" if failed else "")
        table.add_row(
            Text(f"{arm} {pool}", "bold" if arm == "canary" else ""),
            f"{rate:.1f}",
            _quantiles(explained["analysis"], arm),
            *(seen if compared else ()),
        )
    return table


def _quantiles(analysis: Mapping[str, Any], arm: str) -> str:
    seen = analysis.get(arm, {}).get("ttft_s")
    if seen is None:
        return "-"
    by_share = dict(zip(analysis["quantiles"], seen, strict=True))
    return " / ".join(f"{by_share[share] * 1000:4.0f}" for share in SHOWN_QUANTILES)


def _numbers(explained: Explained) -> Mapping[str, Any] | None:
    """The evidence; when it is decided, that which decided."""
    analysis: Mapping[str, Any] = explained["analysis"]
    known = [analysis, *(event["numbers"] for event in reversed(explained["events"]))]
    return next((numbers for numbers in known if "evidence" in numbers and "proofs" in numbers), None)


def _evidence(explained: Explained) -> Iterator[RenderableType]:
    numbers = _numbers(explained)
    if numbers is None:
        return
    threshold, wanted = numbers["threshold"], explained["analysis"]["proof_wanted"]
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(width=BAR_COLUMNS, no_wrap=True)
    table.add_column(justify="right", no_wrap=True, min_width=8)
    table.add_row(Text("worse?", "bold"), _scale(threshold), Text(f"back at {threshold:g}", "dim"))
    for name, evidence in {"E, of all": numbers["evidence"], **numbers["families"]}.items():
        table.add_row(f"  {name}", bar(evidence, threshold, "red"), number(evidence))
    if numbers["proofs"]:
        table.add_row(Text("no worse?", "bold"), _scale(wanted), Text(f"on at {wanted:g}", "dim"))
        for name, proof in numbers["proofs"].items():
            table.add_row(f"  {name}", bar(proof, wanted, "green"), number(proof))
    yield table


def bar(value: float, full: float, colour: str) -> Text:
    """Empty at 1 and below, full at `full`: halfway is its square root."""
    share = 0.0 if value <= 1 else min(1.0, log(value) / log(full))
    eighths = int(share * BAR_COLUMNS * 8)
    whole, rest = divmod(eighths, 8)
    filled = "█" * whole + (EIGHTHS[rest] if rest else "")
    return Text.assemble(
        (filled, f"bold {colour}" if share >= 1 else colour), ("·" * (BAR_COLUMNS - len(filled)), "dim")
    )


def _scale(full: float) -> Text:
    """Powers of ten where they lie."""
    marks = [" "] * BAR_COLUMNS
    power = 1
    while power < full:
        at = int(log(power) / log(full) * BAR_COLUMNS)
        name = str(power)
        if at + len(name) < BAR_COLUMNS:
            marks[at : at + len(name)] = name
        power *= 10
    return Text("".join(marks), "dim")


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}" if value < 1e6 else f"{value:.1e}"


def lasted(seconds: float) -> str:
    """`0:34`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
