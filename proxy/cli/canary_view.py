"""How canaries look in a terminal. One screen says why a weight is what it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.cli.status_view import columns, lasted
from proxy.controlplane.canary_status import CanaryStatus

_COLOURS = {
    "warming": "cyan",
    "progressing": "cyan",
    "promoting": "green",
    "baking": "green",
    "succeeded": "bold green",
    "holding": "yellow",
    "paused": "yellow",
    "inconclusive": "yellow",
    "rolling_back": "bold red",
    "failed": "bold red",
    "aborted": "red",
}
LAST_EVENTS = 8
_ENDS = ("failed", "refused", "gone", "stalled")


def canaries_table(canaries: Mapping[str, CanaryStatus]) -> Table:
    shown = columns("canary", "state", "weight", "since")
    shown.add_column("baseline → canary", no_wrap=True)
    shown.add_column("waits for", overflow="fold")
    for name, one in canaries.items():
        arms = f"{one.baseline} → {one.canary}{' (shadow)' if one.mode == 'shadow' else ''}"
        waits = Text("; ".join(one.waits_for) or "-")
        shown.add_row(Text(name), _state(one.state), f"{one.weight:g} %", lasted(one.since_s), Text(arms), waits)
    return shown


def canary_view(found: Mapping[str, Any]) -> RenderableType:
    """What `GET /canaries/NAME` tells."""
    analysis = found["analysis"]
    parts: list[RenderableType] = [_headline(found), *_next(found), "", _arms(found["arms"], analysis)]
    for part in (_evidence(analysis), _means(analysis), _slo(analysis.get("slo", {}), found.get("bake"))):
        if part is not None:
            parts += ["", part]
    parts += ["", _events(found["events"]), *_around(found)]
    if found["change"]:
        parts += ["", Text("All goes to the canary. Say so in the configuration, and reload it:", "bold")]
        parts += [Text(line, {"-": "red", "+": "green"}.get(line[0], "dim")) for line in found["change"]]
    return Group(*parts)


def _state(state: str) -> Text:
    return Text(state, _COLOURS.get(state, ""))


def _headline(found: Mapping[str, Any]) -> Text:
    shadow = "of all requests as copies" if found["mode"] == "shadow" else "of all requests"
    return Text.assemble(
        (found["name"], "bold"),
        " · ",
        _state(found["state"]),
        f" for {lasted(found['since_s'])} · {found['canary_pool']} has {found['weight']:g} % {shadow}"
        f" beside {found['baseline_pool']} · by {found['method']}\n",
        *_ladder(found),
    )


def _ladder(found: Mapping[str, Any]) -> Iterator[Text | str]:
    """The steps, with the present one marked."""
    yield "steps: "
    for i, step in enumerate(found["steps"]):
        if "weight" in step:
            text = f"{step['weight']:g} %"
        else:
            text = "pause" if step["pause_s"] is None else f"pause {lasted(step['pause_s'])}"
        yield " → " if i else ""
        yield Text(f"[{text}]", "bold") if i == found["step"] else text


def _next(found: Mapping[str, Any]) -> Iterator[Text]:
    if found["reason"]:
        yield Text(f"because: {found['reason']}")
    for i, wanted in enumerate(found["waits_for"]):
        yield Text(f"{'waits for:' if not i else '          '} {wanted}")
    if found["commands"]:
        yield Text(f"commands: {', '.join(found['commands'])}", "dim")


def _arms(arms: Mapping[str, Mapping[str, Any]], analysis: Mapping[str, Any]) -> Table:
    """Counts at this weight, and what first bytes took in the last half hour."""
    quantiles = analysis.get("quantiles", [])
    shown = columns("at this weight", "started", "open", "fine", *_ENDS, "errors")
    if quantiles:
        names = " / ".join(f"p{100 * each:g}" for each in quantiles)
        shown.add_column(f"first byte ms\n{names}", justify="right", no_wrap=True)
    for arm in ("baseline", "canary"):
        counts = arms[arm]
        rate = "-" if counts["error_rate"] is None else f"{100 * counts['error_rate']:.2f} %"
        row = [arm, *(str(counts[name]) for name in ("started", "open", "fine", *_ENDS)), rate]
        if quantiles:
            waits_s = analysis[arm]["ttft_s"]
            row.append("-" if waits_s is None else " / ".join(f"{1000 * wait_s:.0f}" for wait_s in waits_s))
        shown.add_row(*row)
    return shown


def _evidence(analysis: Mapping[str, Any]) -> Table | None:
    """By family: what is to be shown before a step up, and what rolls back."""
    if "families" not in analysis:
        return None
    families, proofs = analysis["families"], analysis["proofs"]
    wanted, threshold = analysis["proof_wanted"], analysis["threshold"]
    shown = columns("evidence", "no worse", "steps up at", "worse", "rolls back at")
    for name in dict.fromkeys([*families, *proofs]):
        proof, worse = proofs.get(name), families.get(name)
        proved = Text("-") if proof is None else Text(_number(proof), "green" if proof >= wanted else "")
        asked = "" if proof is None else _number(wanted)
        shown.add_row(name, proved, asked, "-" if worse is None else _warning(worse, threshold), "")
    shown.add_row("all", "", "", _warning(analysis["evidence"], threshold), _number(threshold))
    if (guard := analysis.get("guard")) is not None:
        shown.add_row("guard", "", "", _warning(guard["evidence"], guard["threshold"]), _number(guard["threshold"]))
    return shown


def _warning(value: float, threshold: float) -> Text:
    return Text(_number(value), "bold red" if value >= threshold else "yellow" if value * value >= threshold else "")


def _means(analysis: Mapping[str, Any]) -> Table | None:
    means = analysis.get("means")
    if means is None:
        return None
    shown = columns(f"{means['metric']} over {lasted(means['window_s'])}", "mean ms", "samples")
    for arm in ("baseline", "canary"):
        mean_s = means[f"{arm}_mean_s"]
        shown.add_row(arm, "-" if mean_s is None else f"{1000 * mean_s:.0f}", str(means[f"{arm}_samples"]))
    return shown


def _slo(slo: Mapping[str, Mapping[str, float]], bake: Mapping[str, float] | None) -> Table | None:
    """The promise that both arms are held to."""
    if not slo and bake is None:
        return None
    shown = columns("broken SLO", "baseline", "canary", "proved at")
    for name, one in slo.items():
        canary = _warning(one["canary"], one["threshold"])
        shown.add_row(name, _number(one["baseline"]), canary, _number(one["threshold"]))
    if bake is not None:
        shown.add_row("bake", "", _warning(bake["evidence"], bake["threshold"]), _number(bake["threshold"]))
    return shown


def _events(events: list[Mapping[str, Any]]) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    shown.add_column("ago", justify="right", no_wrap=True)
    shown.add_column("what happened", overflow="fold")
    for event in events[-LAST_EVENTS:]:
        shown.add_row(lasted(event["ago_s"]), Text(event["text"]))
    return shown


def _around(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    if (copies := found.get("copies")) is not None:
        yield ""
        yield Text(f"copies: {copies['sent']} sent, {copies['failed']} failed, {copies['open']} under way")
    for i, hook in enumerate(found["webhooks"]):
        if not i:
            yield ""
        said = "; is gone (410)" if hook["gone"] else f"; last: {hook['last']}" if hook["last"] else ""
        counts = f"{hook['delivered']} delivered, {hook['waiting']} waiting, {hook['given_up']} given up"
        yield Text(f"webhook {hook['host']}: {counts}{said}", "red" if hook["gone"] or hook["given_up"] else "")


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"
