"""What does the canary's judge do with arms that are alike, and with arms that are not?

    python bench/canary.py [--seeds 100] [--jobs 1] [--only NAME ...]

No sockets and no clock: each run is a whole rollout in made-up time, with the very object that serves
(`proxy/rehearsal/`). 600 requests a minute unless a row says otherwise, with LLM-like latencies; alpha 0.01.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from sys import path
from typing import Any, NamedTuple

path.insert(0, str(Path(__file__).parent.parent))

from proxy.policy.canary import CanarySpec
from proxy.rehearsal.run import Rehearsal
from proxy.rehearsal.scenario import Scenario

LADDER = [1, 5, 25, 50, 100]
HISTORY = "30m"


class Run(NamedTuple):
    state: str
    minutes: float
    canary_requests: int
    weight: float
    warm: bool  # still in its warm-up when it was rolled back
    seconds: float  # from the first canary request


class Row(NamedTuple):
    name: str
    asked: str
    spec: dict[str, Any]
    scenario: dict[str, Any]
    good: Callable[[list[Run]], bool]


def spec(weights: list[int], **more: Any) -> dict[str, Any]:
    return {"baseline": "a", "canary": "b", "steps": [{"set_weight": weight} for weight in weights]} | more


def share(runs: list[Run], *states: str) -> float:
    return sum(run.state in states for run in runs) / len(runs)


def requests(runs: list[Run]) -> float:
    return median(run.canary_requests for run in runs)


def back(runs: list[Run]) -> float:
    return share(runs, "rolling_back", "failed")


TEN = [10, 100]
WARM = {"min_requests": 200, "duration": "5m", "max_duration": "30m", "weight": 1}
SLO = {"ttft_p95": "4s", "error_rate": 0.02}
CLIENTS = {"unit": "client", "epoch": "10m"}
TWO = [{"name": "ttft"}, {"name": "errors"}]
DAYS = {"metrics": TWO, "max_step_duration": "20h"}
ERRORS_ONLY = {"metrics": [{"name": "errors", "allowed_delta": 0.01}]}
ROWS = [
    Row(
        "alike",
        "rolled back <= 1 %, promoted",
        spec(LADDER),
        {},
        lambda r: back(r) <= 0.01 and share(r, "succeeded") > 0.9,
    ),
    Row(
        "alike, default spec",
        "rolled back <= 1 %, promoted",
        spec([5, 25, 50, 100], warmup=WARM, slo=SLO),
        {"before": "0s"},
        lambda r: back(r) <= 0.01 and share(r, "succeeded") > 0.9,
    ),
    Row("latency x1.25", "rolled back >= 99 %", spec(LADDER), {"canary": {"latency": 1.25}}, lambda r: back(r) >= 0.99),
    Row(
        "latency x2",
        "within 60 canary requests, median",
        spec(TEN),
        {"canary": {"latency": 2}},
        lambda r: back(r) == 1 and requests(r) <= 60,
    ),
    Row(
        "fast failures",
        "20 % in 30 ms: within 100",
        spec(TEN),
        {"canary": {"fast_failures": 0.2}},
        lambda r: back(r) == 1 and requests(r) <= 100,
    ),
    Row(
        "errors +5 points",
        "within 300",
        spec(TEN),
        {"canary": {"errors": 0.055}},
        lambda r: back(r) == 1 and requests(r) <= 300,
    ),
    Row("stalls", "4 % for 30 s: rolled back", spec(LADDER), {"canary": {"stalls": 0.04}}, lambda r: back(r) >= 0.99),
    Row(
        "bursts in both arms",
        "never rolled back",
        spec(LADDER, slo=SLO),
        {"noise": {"burst_every": "20m", "burst": "2m"}},
        lambda r: back(r) == 0,
    ),
    Row(
        "latency follows weight",
        "never rolled back",
        spec(LADDER, slo=SLO),
        {"noise": {"follows_weight": 1}},
        lambda r: back(r) == 0,
    ),
    Row(
        "day and night",
        "never rolled back",
        spec(LADDER, slo=SLO),
        {"noise": {"diurnal": 0.6, "day": "2h"}},
        lambda r: back(r) == 0,
    ),
    Row(
        "hangs",
        "rolled back before its timeouts, 120 s",
        spec(TEN),
        {"canary": {"hangs": 1}},
        lambda r: back(r) == 1 and max(run.seconds for run in r) < 120,
    ),
    Row(
        "404 to everyone",
        "rolled back in the warm-up",
        spec(LADDER, warmup=WARM),
        {"canary": {"refuses": 1}},
        lambda r: back(r) == 1 and all(run.warm for run in r),
    ),
    Row(
        "2 requests a minute",
        "inconclusive, never promoted",
        spec(LADDER),
        {"per_minute": 2, "duration": "26h"},
        lambda r: share(r, "inconclusive") == 1,
    ),
    Row(
        "errors +0.8 points",
        "tolerated 1: not rolled back",
        spec(TEN, analysis=ERRORS_ONLY),
        {"canary": {"errors": 0.013}, "duration": "3h"},
        lambda r: back(r) == 0,
    ),
    Row(
        "clients, alike",
        "400, Zipf 1.1: rolled back <= 1 %, promoted in the end",
        spec([20, 50, 100], **CLIENTS, analysis=DAYS),
        {"clients": 400, "duration": "40h"},
        lambda r: back(r) <= 0.01 and share(r, "succeeded") > 0.9,
    ),
    Row(
        "clients, latency x2",
        "rolled back",
        spec([20, 50, 100], **CLIENTS, analysis=DAYS),
        {"clients": 400, "duration": "24h", "canary": {"latency": 2}},
        lambda r: back(r) >= 0.99,
    ),
    Row(
        "clients, 404",
        "rolled back within the epoch",
        spec([20, 50, 100], **CLIENTS),
        {"clients": 400, "duration": "2h", "canary": {"refuses": 1}},
        lambda r: back(r) == 1 and max(run.seconds for run in r) < 600,
    ),
    Row(
        "whole answers, alike",
        "20 s each: rolled back <= 1 %",
        spec(TEN),
        {"streams": 0, "baseline": {"chunk": 10}, "canary": {"chunk": 10}},
        lambda r: back(r) <= 0.01,
    ),
    Row(
        "whole answers, x1.5",
        "30 s instead of 20 s: rolled back",
        spec(TEN),
        {"streams": 0, "baseline": {"chunk": 10}, "canary": {"chunk": 15}},
        lambda r: back(r) >= 0.99,
    ),
    Row(
        "slow streams",
        "chunks 1.5 x as slow: rolled back",
        spec(TEN),
        {"canary": {"chunk": 1.5}},
        lambda r: back(r) >= 0.99,
    ),
    Row("latency x1.25 at 10 %", "(432)", spec(TEN), {"canary": {"latency": 1.25}}, lambda r: back(r) > 0),
    Row(
        "errors +1 point",
        "(1,378 without tolerance)",
        spec(TEN, analysis={"metrics": [{"name": "errors", "allowed_delta": 0}]}),
        {"canary": {"errors": 0.015}},
        lambda r: back(r) > 0,
    ),
]


def play(name: str, seed: int) -> Run:
    row = next(row for row in ROWS if row.name == name)
    rehearsal = Rehearsal(CanarySpec.parse(row.spec), Scenario.parse({"before": HISTORY} | row.scenario), seed)
    first_s = at_s = 0.0
    began_s: float | None = None
    state, weight, sent, warm = "", 0.0, 0, False
    for moment in rehearsal.play():
        began_s = moment.now_s if began_s is None else began_s
        if not first_s and moment.sent[1]:
            first_s = moment.now_s - 5.0
        names = {event.name for event in moment.events}
        if "rolled_back" in names:
            warm = state == "warming"
        if state != moment.state and state not in ("rolling_back", "promoting", "baking"):
            at_s, sent = moment.now_s, moment.sent[1]
        state, weight = moment.state, moment.weight
        if state == "inconclusive":
            break
    return Run(state, (at_s - (began_s or 0.0)) / 60, sent, weight, warm, at_s - first_s)


def told(runs: list[Run]) -> str:
    states = ", ".join(
        f"{state} {count / len(runs):.1%}" for state, count in Counter(r.state for r in runs).most_common()
    )
    ended = [run for run in runs if run.state in ("failed", "succeeded", "rolling_back", "inconclusive")] or runs
    return f"{states}; median {median(r.minutes for r in ended):.1f} min, {requests(ended):.0f} canary requests"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    with ProcessPoolExecutor(args.jobs) as pool:
        for row in ROWS:
            if args.only and row.name not in args.only:
                continue
            began = time.perf_counter()
            runs = list(pool.map(play, [row.name] * args.seeds, range(args.seeds)))
            verdict = "ok  " if row.good(runs) else "MISS"
            took = time.perf_counter() - began
            print(f"{verdict} {row.name}: {told(runs)}   [{row.asked}] ({took:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
