"""How canaries look in a terminal. One screen says why a weight is what it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.cli.section import Column, Row, Section
from proxy.cli.status_view import CANARY_COLOURS, lasted, number

LAST_EVENTS = 8
_TAKEN_BACK = ("rolling_back", "failed", "aborted")
_ARMS = ("baseline", "canary")
_COUNTED = ("started", "open", "fine", "failed", "refused", "gone", "stalled")


def canary_view(found: Mapping[str, Any]) -> RenderableType:
    """What `GET /canaries/NAME` tells."""
    analysis = found["analysis"]
    parts: list[RenderableType] = [_headline(found), *_next(found), "", _arms(found)]
    promise = _slo(analysis.get("slo", {}), found.get("bake"))
    for part in (_waits(analysis), _evidence(analysis), _means(analysis), promise):
        if part is not None:
            parts += ["", part]
    parts += ["", _events(found["events"]), *_around(found)]
    if found["change"]:
        parts += ["", Text("All goes to the canary. Say so in the configuration, and reload it:", "bold")]
        parts += [Text(line, {"-": "red", "+": "green"}.get(line[0], "dim")) for line in found["change"]]
    return Group(*parts)


def _state(state: str) -> Text:
    return Text(state, CANARY_COLOURS.get(state, ""))


def _headline(found: Mapping[str, Any]) -> Text:
    shadow = "of all requests as copies" if found["mode"] == "shadow" else "of all requests"
    return Text.assemble(
        (found["name"], "bold"),
        " · ",
        _state(found["state"]),
        f" for {lasted(found['since_s'])} · {found['canary_pool']} has {found['weight']:g} % {shadow}"
        f" beside {found['baseline_pool']}\n",
        *_ladder(found),
        f", by {found['method']}",
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


def _arms(found: Mapping[str, Any]) -> Section:
    """Counts at this weight, or those that it was taken back with."""
    arms = found["arms"]
    shown = _table("at its last weight" if found["state"] in _TAKEN_BACK else "at this weight", *_COUNTED, "errors")
    for arm in _ARMS:
        rate = arms[arm]["error_rate"]
        errors = "-" if rate is None else f"{100 * rate:.2f} %"
        shown.rows.append(Row([arm, *(str(arms[arm][name]) for name in _COUNTED), errors]))
    return shown


def _waits(analysis: Mapping[str, Any]) -> Section | None:
    """What first bytes took in the last half hour."""
    if not analysis.get("quantiles"):
        return None
    shown = _table("first byte ms", *(f"p{100 * share:g}" for share in analysis["quantiles"]))
    for arm in _ARMS:
        waits_s = analysis[arm]["ttft_s"] or [None] * len(analysis["quantiles"])
        shown.rows.append(Row([arm, *("-" if wait_s is None else f"{1000 * wait_s:.0f}" for wait_s in waits_s)]))
    return shown


def _evidence(analysis: Mapping[str, Any]) -> Section | None:
    """By family: what is to be shown before a step up, and what rolls back."""
    if "families" not in analysis:
        return None
    families, proofs = analysis["families"], analysis["proofs"]
    wanted, threshold = analysis["proof_wanted"], analysis["threshold"]
    shown = _table("evidence", "no worse", "steps up at", "worse", "rolls back at")
    for name in dict.fromkeys([*families, *proofs]):
        proof, worse = proofs.get(name), families.get(name)
        proved = Text("-") if proof is None else Text(number(proof), "green" if proof >= wanted else "")
        asked = "" if proof is None else number(wanted)
        warned = "-" if worse is None else _warning(worse, threshold)
        shown.rows.append(Row([name.replace("_", " "), proved, asked, warned]))
    shown.rows.append(Row(["all", "", "", _warning(analysis["evidence"], threshold), number(threshold)]))
    if (guard := analysis.get("guard")) is not None:
        warned = _warning(guard["evidence"], guard["threshold"])
        shown.rows.append(Row(["guard", "", "", warned, number(guard["threshold"])]))
    return shown


def _table(*titles: str) -> Section:
    return Section("", [Column(title) for title in titles])


def _warning(value: float, threshold: float) -> Text:
    return Text(number(value), "bold red" if value >= threshold else "yellow" if value * value >= threshold else "")


def _means(analysis: Mapping[str, Any]) -> Section | None:
    means = analysis.get("means")
    if means is None:
        return None
    shown = _table(f"{means['metric']} over {lasted(means['window_s'])}", "mean ms", "samples")
    for arm in _ARMS:
        mean_s = means[f"{arm}_mean_s"]
        mean = "-" if mean_s is None else f"{1000 * mean_s:.0f}"
        shown.rows.append(Row([arm, mean, str(means[f"{arm}_samples"])]))
    return shown


def _slo(slo: Mapping[str, Mapping[str, float]], bake: Mapping[str, float] | None) -> Section | None:
    """The promise that both arms are held to."""
    if not slo and bake is None:
        return None
    shown = _table("broken SLO", "baseline", "canary", "proved at")
    for name, one in slo.items():
        canary = _warning(one["canary"], one["threshold"])
        shown.rows.append(Row([name, number(one["baseline"]), canary, number(one["threshold"])]))
    if bake is not None:
        warned = _warning(bake["evidence"], bake["threshold"])
        shown.rows.append(Row(["bake", "", warned, number(bake["threshold"])]))
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
