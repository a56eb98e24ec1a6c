"""What the benchmark measures is what happened, to the last bit: time passes only where the upstream waits."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from proxy.benchmark.client import Client
from proxy.benchmark.load import AtOnce, Extent
from proxy.benchmark.report import Report, report_of
from proxy.benchmark.run import Arm, Run
from proxy.simulation import SimulatedUpstream
from tests.benchmark.conftest import ASK, FIRST_S, TOKEN_S, Time, Watched, target_of
from tests.support.running import RunningProxy, config_for

APIS = ["chat", "responses", "messages"]
TOKENS = 9
HOP_S = 1 / 256
Proxies = Callable[..., "asyncio.Future[RunningProxy]"]


def base(url: str, api: str) -> str:
    return url if api == "messages" else f"{url}/v1"


async def measured(client: Client, time: Time, *arms: Arm, calls: int = 6) -> tuple[Run, Report]:
    run = Run(client, [ASK], clock=time, cpu_clock=time)
    await run.measure(arms, AtOnce(1), Extent(calls, None))
    return run, report_of(run, "1 at once")


@pytest.mark.parametrize("api", APIS)
async def test_a_streamed_answer_takes_what_the_upstream_takes(
    api: str, client: Client, time: Time, paced: SimulatedUpstream, watched: Mapping[str, Watched]
) -> None:
    target = target_of(base(paced.url, api), dialect=watched[api])
    run, report = await measured(client, time, Arm(target, stream=True, tokens=TOKENS), calls=3)
    whole_s = FIRST_S + (TOKENS - 1) * TOKEN_S
    for one in run.measured[0].samples:
        assert one.failure is None
        assert (one.first_token_wait_s, one.total_s, one.late_s) == (FIRST_S, whole_s, 0.0)
        assert one.gaps_s == [TOKEN_S] * (TOKENS - 1)
        assert (one.tokens, one.per_token_s) == (TOKENS, TOKEN_S)
    (summary,) = report.summaries
    assert (summary.answered, summary.failed, summary.tokens) == (3, (), 3 * TOKENS)
    assert summary.first_token is not None
    assert {summary.first_token.mean_s, summary.first_token.p50_s, summary.first_token.p99_s} == {FIRST_S}
    assert summary.tokens_an_event == 1.0
    assert run.measured[0].lasted_s == 3 * whole_s
    assert summary.tokens_a_s == pytest.approx(TOKENS / whole_s)
    assert summary.answers_a_s == pytest.approx(1 / whole_s)


@pytest.mark.parametrize("api", APIS)
async def test_a_whole_answer_takes_what_its_stream_would(
    api: str, client: Client, time: Time, paced: SimulatedUpstream, watched: Mapping[str, Watched]
) -> None:
    target = target_of(base(paced.url, api), dialect=watched[api])
    run, report = await measured(client, time, Arm(target, stream=False, tokens=TOKENS), calls=3)
    for one in run.measured[0].samples:
        assert (one.failure, one.first_token_s, one.gaps_s, one.per_token_s) == (None, None, [], None)
        assert (one.total_s, one.tokens) == (FIRST_S + (TOKENS - 1) * TOKEN_S, TOKENS)
    (summary,) = report.summaries
    assert (summary.first_token, summary.between_tokens, summary.tokens_an_event) == (None, None, None)


async def test_streaming_itself_adds_nothing_here(
    client: Client, time: Time, paced: SimulatedUpstream, watched: Mapping[str, Watched]
) -> None:
    target = target_of(f"{paced.url}/v1", dialect=watched["chat"])
    arms = [Arm(target, stream, tokens) for tokens in (3, 8) for stream in (True, False)]
    _, report = await measured(client, time, *arms)
    assert [(one.of.tokens, one.measure) for one in report.by_streaming] == [(3, "whole answer"), (8, "whole answer")]
    for one in report.by_streaming:
        assert (one.added.mean_s, one.added.interval_s) == (0.0, (0.0, 0.0))
    assert report.by_target == ()


@asynccontextmanager
async def hop(port: int, time: Time) -> AsyncIterator[str]:
    """A relay that takes HOP_S before it passes on a request. It reads no HTTP: a request comes in one piece."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float) -> None:
        while block := await reader.read(65536):
            time.now_s += wait_s
            writer.write(block)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(relay(reader, to_there, HOP_S), relay(there, writer, 0.0), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("fast_lane", [True, False])
@pytest.mark.parametrize("api", APIS)
async def test_the_proxy_adds_no_wait_of_its_own(
    api: str, client: Client, time: Time, paced: SimulatedUpstream, watched: Mapping[str, Watched], proxy: Proxies
) -> None:
    running = await proxy(config_for(f"{paced.url}/v1", keys=False, clients=False))
    through = f"{running.url}/v1"
    targets = [target_of(url, dialect=watched[api]) for url in (through, f"{paced.url}/v1")]
    arms = [Arm(target, stream, TOKENS) for stream in (True, False) for target in targets]
    _, report = await measured(client, time, *arms)
    assert [summary.failed for summary in report.summaries] == [()] * 4
    assert [(one.of.stream, one.measure) for one in report.by_target] == [
        (True, "first token"),
        (True, "a token"),
        (True, "whole answer"),
        (False, "whole answer"),
    ]
    for one in report.by_target:
        assert one.added.mean_s == one.added.p50_s == 0.0
        assert one.added.interval_s == one.added.p50_interval_s == (0.0, 0.0)
    await client._session.close()
    await running.until(lambda: not running.serinus.data_plane.callers.open)


async def test_a_hop_adds_what_it_takes(
    client: Client, time: Time, paced: SimulatedUpstream, watched: Mapping[str, Watched]
) -> None:
    assert paced._address is not None
    async with hop(paced._address[1], time) as slow:
        targets = [target_of(f"{url}/v1", dialect=watched["chat"]) for url in (slow, paced.url)]
        arms = [Arm(target, stream, TOKENS) for stream in (True, False) for target in targets]
        _, report = await measured(client, time, *arms)
        await client._session.close()
    added = {(one.of.stream, one.measure): one.added for one in report.by_target}
    for kind in ((True, "first token"), (True, "whole answer"), (False, "whole answer")):
        assert (added[kind].mean_s, added[kind].p50_s) == (HOP_S, HOP_S)
        assert added[kind].interval_s == added[kind].p50_interval_s == (HOP_S, HOP_S)
    assert added[True, "a token"].mean_s == 0.0
    assert report.by_target[0].of.target is targets[0]
