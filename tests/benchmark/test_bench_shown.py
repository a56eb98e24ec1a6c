"""What is shown of a report: the same figures to people and to programs."""

import io
import json
from datetime import UTC, datetime

import pytest
from rich.console import Console

from proxy.benchmark.difference import Added
from proxy.benchmark.report import Difference, Report
from proxy.benchmark.run import Arm
from proxy.benchmark.summary import Failed, Spread, Summary
from proxy.cli.bench.show import as_json, show
from tests.benchmark.conftest import target_of

BEGAN = datetime(2026, 11, 21, 9, 30, 5, tzinfo=UTC)
FIRST, SECOND = (Arm(target_of(f"http://{name}/v1"), stream=True, tokens=64) for name in "ab")
WHOLE = Arm(SECOND.target, stream=False, tokens=64)
SUMMARY = Summary(
    answered=40,
    failed=(Failed("status 503", 2, "busy"), Failed("timeout", 1, "no end within 5 s")),
    first_token=Spread(0.02001, 0.02002, 0.02003, 0.02004),
    between_tokens=Spread(0.0501, 0.0502, 0.0503, 0.0504),
    per_token=Spread(0.0601, 0.0602, 0.0603, 0.0604),
    total=Spread(1.001, 1.002, 1.003, 1.004),
    late=Spread(0.0001, 0.0002, 0.0003, 0.0004),
    tokens=2560,
    tokens_an_event=1.0,
    answers_a_s=12.3456,
    tokens_a_s=790.25,
)
BARE = Summary(0, (), None, None, None, None, None, 0, None, 0.0, 0.0)
ADDED = Added(0.0051, (0.0041, 0.0061), -0.0031, (-0.0042, -0.0021))
FEW = Added(0.0071, None, 0.0081, None)


def report(
    *differences: Difference, streaming: tuple[Difference, ...] = (), summaries: tuple[Summary, ...] = (SUMMARY, BARE)
) -> Report:
    return Report("5 at once", (FIRST, SECOND)[: len(summaries)], summaries, differences, streaming, 0.123, None)


def shown(what: Report, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(what, BEGAN, console)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_table_has_every_figure() -> None:
    lines = shown(report())
    assert lines[0] == "2026-11-21 09:30:05 UTC · 5 at once · waits in ms"
    assert lines.count("mean p50 p95 p99") == 1  # nobody answered for the other
    for line in (
        "http://a/v1 · m · streamed · at most 64 tokens",
        "40 answers, 3 failed · 12.3 answers/s · 790.2 tokens/s",
        "first token 20.01 20.02 20.03 20.04",
        "between two events with tokens 50.10 50.20 50.30 50.40",
        "a token, each answer's mean 60.10 60.20 60.30 60.40",
        "whole answer 1001.0 1002.0 1003.0 1004.0",
        "http://b/v1 · m · streamed · at most 64 tokens",
        "0 answers · 0 answers/s · 0 tokens/s",
        "2 failed: status 503: busy",
        "1 failed: timeout: no end within 5 s",
        "The client used 12% of a core.",
    ):
        assert lines.count(line) == 1, line


def test_one_target_is_not_named() -> None:
    lines = shown(report(summaries=(SUMMARY,)))
    assert "m · streamed · at most 64 tokens" in lines
    assert not any("http://" in line for line in lines)


def test_what_is_added_has_its_intervals() -> None:
    target = Difference(FIRST, SECOND, "first token", ADDED)
    lines = shown(report(target, streaming=(Difference(SECOND, WHOLE, "whole answer", FEW),)))
    at = lines.index("What http://a/v1 adds to http://b/v1")
    assert lines[at + 1 : at + 3] == [
        "mean 95 % interval p50 95 % interval",
        "64 tokens, streamed, first token +5.10 +4.10 … +6.10 -3.10 -4.20 … -2.10",
    ]
    at = lines.index("What streaming adds to an answer that comes whole")
    assert lines[at + 2] == "64 tokens, whole answer +7.10 - +8.10 -"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 300])
def test_no_terminal_is_too_narrow(width: int) -> None:
    text = "".join(shown(report(Difference(FIRST, SECOND, "first token", ADDED)), width)).replace(" ", "")
    assert "Theclientused12%ofacore." in text


def test_json_has_every_figure_in_ms() -> None:
    difference = Difference(FIRST, SECOND, "first token", ADDED)
    got = as_json(report(difference, streaming=(Difference(SECOND, WHOLE, "whole answer", FEW),)), BEGAN)
    assert json.loads(json.dumps(got)) == {
        "began_at": "2026-11-21T09:30:05+00:00",
        "load": "5 at once",
        "arms": [
            {
                **ARM_A,
                "answered": 40,
                "failed": [
                    {"kind": "status 503", "count": 2, "said": "busy"},
                    {"kind": "timeout", "count": 1, "said": "no end within 5 s"},
                ],
                "first_token_ms": {"mean": 20.01, "p50": 20.02, "p95": 20.03, "p99": 20.04},
                "between_tokens_ms": {"mean": 50.1, "p50": 50.2, "p95": 50.3, "p99": 50.4},
                "per_token_ms": {"mean": 60.1, "p50": 60.2, "p95": 60.3, "p99": 60.4},
                "total_ms": {"mean": 1001.0, "p50": 1002.0, "p95": 1003.0, "p99": 1004.0},
                "late_ms": {"mean": 0.1, "p50": 0.2, "p95": 0.3, "p99": 0.4},
                "tokens": 2560,
                "tokens_an_event": 1.0,
                "answers_a_s": 12.3456,
                "tokens_a_s": 790.25,
            },
            {
                **ARM_B,
                "answered": 0,
                "failed": [],
                "tokens": 0,
                "answers_a_s": 0.0,
                "tokens_a_s": 0.0,
                **dict.fromkeys(
                    ("first_token_ms", "between_tokens_ms", "per_token_ms", "total_ms", "late_ms", "tokens_an_event")
                ),
            },
        ],
        "added_by_target": [
            {
                "of": ARM_A,
                "to": ARM_B,
                "measure": "first token",
                "mean_ms": 5.1,
                "mean_interval_ms": [4.1, 6.1],
                "p50_ms": -3.1,
                "p50_interval_ms": [-4.2, -2.1],
            }
        ],
        "added_by_streaming": [
            {
                "of": ARM_B,
                "to": {**ARM_B, "stream": False},
                "measure": "whole answer",
                "mean_ms": 7.1,
                "mean_interval_ms": None,
                "p50_ms": 8.1,
                "p50_interval_ms": None,
            }
        ],
        "client": {"busy": 0.123, "limit": None},
        "notes": [],
    }


ARM_A = {"url": "http://a/v1", "model": "m", "stream": True, "max_tokens": 64}
ARM_B = {**ARM_A, "url": "http://b/v1"}
