"""The demo's canaries: what is shown of them, and that they end as they are said to."""

import asyncio
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from proxy.cli import main
from proxy.cli.demo import Demo, Options
from proxy.cli.demo.canary_panel import BAR_COLUMNS, bar, canary_line, decision, lasted, number, panel
from proxy.cli.demo.scene import BAD, GOOD, behaviours, config
from proxy.cli.demo.view import LastRequests, View
from proxy.controlplane.load import parse
from proxy.controlplane.status import PoolStatus, Status, Traffic
from tests.support.trial import Played

SEEDS = range(25)


@pytest.mark.parametrize("trial", [BAD, GOOD])
def test_its_configuration_is_valid_without_warnings(trial):
    urls = {behaviour.name: "http://127.0.0.1:9001" for behaviour in behaviours(trial)}
    loaded = parse(config(urls, 8080, 9090, Path("state"), trial), {})
    assert not loaded.warnings
    assert list(loaded.settings.canaries) == ["next"]


# --- how they end ------------------------------------------------------------------------------------------------


def ends(trial, within_s):
    """How often each, over the seeds."""
    found = {}
    for seed in SEEDS:
        played = Played(trial, seed)
        assert played.until_over(within_s) < within_s
        state = played.rollout.state.value
        found[state] = found.get(state, 0) + 1
    return found


def test_the_bad_canary_is_rolled_back_within_minutes():
    assert ends(BAD, 150) == {"failed": len(SEEDS)}


def test_the_good_canary_is_promoted_within_minutes():
    assert ends(GOOD, 240) == {"succeeded": len(SEEDS)}


def test_a_rollback_says_why_in_numbers():
    played = Played(BAD, 1)
    played.until_over(150)
    said = decision(played.rollout.explain()).plain
    assert said.startswith("Rolled back after ")
    assert "≥ 400 after" in said
    assert "canary requests; errors " in said


# --- what is shown -----------------------------------------------------------------------------------------------

EVENTS = [
    {"name": "began", "ago_s": 40.2, "text": "began: the warm-up, at 5 %", "numbers": {"weight": 0.05}},
    {"name": "stepped", "ago_s": 25.0, "text": "stepped: from 5 % to 10 %; after 18 …", "numbers": {"weight": 0.1}},
]
ROLLED_BACK = {
    "name": "rolled_back",
    "ago_s": 0.0,
    "text": "rolled_back: E=412 ≥ 400 after 68 canary requests; errors 6/67 vs 0/488",
    "numbers": {"evidence": 412.0, "threshold": 400.0, "families": {"ttft": 820.0}, "proofs": {"ttft": 0.5}},
}
ANALYSIS = {"proof_wanted": 20.0, "quantiles": [0.5, 0.75, 0.9, 0.95, 0.99]}
ANALYSIS["baseline"] = {"ttft_s": [0.22, 0.3, 0.616, 0.9, 1.366]}
ANALYSIS["canary"] = {"ttft_s": [0.3214, 0.4, 0.664, 0.8, 0.963]}


def explained(**changes):
    """As a rollout explains itself: on its first step, and on the way back."""
    numbers = {"evidence": 20.0, "threshold": 400.0, "families": {"ttft": 40.0, "errors": 0.955}}
    return {
        "baseline_pool": "chat",
        "canary_pool": "chat-next",
        "state": "progressing",
        "weight": 0.1,
        "step": 0,
        "steps": [{"weight": 0.1}, {"pause_s": None}, {"weight": 1.0}],
        "arms": {"baseline": {"started": 488, "error_rate": 0.0}, "canary": {"started": 68, "error_rate": 6 / 67}},
        "analysis": ANALYSIS | numbers | {"proofs": {"ttft": 0.5312}},
        "waits_for": ["15 s < 20 s", "ttft: 0.531 < 20"],
        "events": EVENTS,
    } | changes


def status():
    def pool(rate):
        return PoolStatus(Traffic(rate, 0.0, None, None), [])

    pools = {"chat": pool(13.5), "chat-next": pool(1.52)}
    return Status("1", True, 1, 1.0, 10.0, 0, pools["chat"].traffic, 0.0, {}, pools)


def drawn(what):
    console = Console(width=80, file=StringIO(), record=True)
    console.print(what)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_panel_shows_steps_arms_evidence_and_events():
    assert drawn(panel(explained(), status())) == [
        "chat-next beside chat · progressing · 10 % of requests · steps 10 → pause → 100",
        "                  req/s  first byte ms, p50 / p90 / p99  requests  failed",
        "baseline chat      13.5               220 /  616 / 1366       488   0.0 %",
        "canary chat-next    1.5               321 /  664 /  963        68   9.0 %",
        "worse?      1              10             100        back at 400",
        "  E, of all ████████████████████····················          20",
        "  ttft      ████████████████████████▋···············          40",
        "  errors    ········································       0.955",
        "no worse?   1                             10            on at 20",
        "  ttft      ········································       0.531",
        "waits for: 15 s < 20 s; ttft: 0.531 < 20",
        "  0:00  began: the warm-up, at 5 %",
        "  0:15  stepped: from 5 % to 10 %; after 18 …",
    ]


def rolled_back():
    """The analysis has no evidence then, and the counts are of no more interest."""
    return explained(state="failed", weight=0.0, analysis=ANALYSIS, waits_for=[], events=[*EVENTS, ROLLED_BACK])


def test_the_panel_of_a_rollback_keeps_what_decided():
    lines = drawn(panel(rolled_back(), status()))
    assert lines[:2] == [
        "chat-next beside chat · failed · 0 % of requests · steps 10 → pause → 100",
        "Rolled back after 0:40: E=412 ≥ 400 after 68 canary requests; errors 6/67 vs",
    ]
    assert f"  ttft      {'█' * BAR_COLUMNS}         820" in lines
    assert not any("failed" in line for line in lines[2:6])


def test_a_canary_without_evidence_is_shown_too():
    bands = explained(analysis={"interval_s": 5.0}, method="bands", waits_for=[], events=[])
    lines = drawn(panel(bands, status()))
    assert lines[-1] == "canary chat-next    1.5                               -        68   9.0 %"
    assert canary_line(bands).plain == "chat-next at 10 %, progressing"


def test_on_paper_it_is_a_line_with_the_evidence():
    line = canary_line(explained()).plain
    assert line == "chat-next at 10 %, progressing; worse: E=20 of 400; no worse: ttft 0.531 of 20"
    assert decision(explained()) is None


@pytest.mark.parametrize(
    ("value", "full", "columns"), [(0.0, 400, 0), (1.0, 400, 0), (20.0, 400, 20), (400.0, 400, 40), (1e9, 400, 40)]
)
def test_a_bar_grows_by_factors(value, full, columns):
    text = bar(value, full, "red").plain
    assert len(text) == BAR_COLUMNS
    assert text.count("█") == columns


def test_numbers_are_short():
    assert [number(each) for each in (0, 0.5312, 41.84, 1236.4, 2.5e9)] == ["0", "0.531", "41.8", "1236", "2.5e+09"]
    assert [lasted(each) for each in (0, 34.4, 61)] == ["0:00", "0:34", "1:01"]


def test_the_screen_has_the_canary_first_and_its_rule():
    view = View(None, LastRequests(lambda: None), "curl", BAD.rule)
    view.look(status(), explained())
    lines = drawn(view.screen())
    titles = [line.split(" ─")[0] for line in lines if "──" in line]
    assert titles == ["canary", "upstreams", "callers", "its rule", "requests as they end", "try it"]
    assert "    steps: [{set_weight: 10}, {set_weight: 50}, {set_weight: 100}]" in lines
    assert not view.canary_is_over
    view.look(status(), rolled_back())
    assert view.canary_is_over


# --- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bad-canary", "--good-canary"), "one at a time"),
        (("--until-decided",), "nothing to decide"),
        (("--until-decided", "--bad-canary", "--rate", "0"), "nothing to decide"),
    ],
)
def test_what_makes_no_sense_is_refused(options, said):
    shown = CliRunner().invoke(main, ["demo", *options])
    assert shown.exit_code == 2
    assert said in shown.output


@pytest.mark.parametrize("trial", [BAD, GOOD])
async def test_it_prints_its_rule_begins_and_ends_when_it_is_decided(monkeypatch, tmp_path, trial):
    states = iter(("began", "over"))

    def shown(serinus):
        found = serinus.canaries.rollouts["next"].explain()
        return found if next(states) == "began" else rolled_back()

    command = import_module("proxy.cli.demo")  # the name in proxy.cli is that of the function
    monkeypatch.setattr(command, "LOOK_S", 0.0)
    monkeypatch.setattr(command, "_explained", shown)
    console = Console(file=StringIO(), width=100)
    options = Options(0, 0, None, trial, True, None, True, 1, None)
    async with asyncio.timeout(30):
        await Demo(options, console, tmp_path / "demo.yaml").run()
    said = console.file.getvalue()
    assert trial.rule in said
    assert "Rolled back after 0:40: E=412 ≥ 400" in said
    assert said.endswith("Serinus has stopped.\n")
