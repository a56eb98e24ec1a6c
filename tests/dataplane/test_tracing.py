"""What a collector is told of requests and of each try, and what upstreams are told of the trace they are in."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.collector import Collector, Recorded, collecting
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, Held, answering, answering_then_closing, whole

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
JSON = b"Content-Type: application/json\r\n"
USED = b'{"usage":{"prompt_tokens":140,"completion_tokens":90,"total_tokens":230}}'
CHAT = post(b'{"model":"m","messages":[]}', target=b"/v1/chat/completions?user=S3CR3T", fields=JSON)
BUSY = whole(b"busy", status=b"503 Busy")
TWICE = "balance: smooth_rr, slow_start: 0s, retry: {attempts: 2}"


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


def top(collector: Collector, more: str = "") -> str:
    return f"tracing: {{endpoint: '{collector.url}'{more}}}"


def traced(flags: str = "01", *, version: str = "00", more: str = "") -> bytes:
    fields = f"traceparent: {version}-{TRACE}-{PARENT}-{flags}{more}\r\ntracestate: vendor=1\r\n"
    return CHAT.replace(JSON, JSON + fields.encode())


async def told(running: RunningProxy, collector: Collector) -> tuple[Recorded, list[Recorded]]:
    """The request's span, and those of its tries."""
    await running.serinus.spans.flush()
    return collector.server, collector.of_kind("client")


# --- spans -----------------------------------------------------------------------------------------------------------


async def test_a_request_is_one_span_and_its_try_another_beneath(scripted, proxy, collector):
    upstream = await scripted(answering(whole(USED)))
    running = await proxy(config_for(upstream.url, top=top(collector)))
    answer = await ask(running.port, CHAT)
    server, (client,) = await told(running, collector)
    assert (server.name, server.parent_id, server.failed) == ("POST /v1", "", False)
    assert server.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1",
        "url.path": "/v1/chat/completions",
        "client.address": "127.0.0.1",
        "serinus.request_id": answer.field(b"x-request-id").decode(),
        "serinus.route": "/v1",
        "serinus.client": "tester",
        "serinus.pool": "chat",
        "serinus.upstream": "up0",
        "serinus.attempts": 1,
        "serinus.generation": 1,
        "serinus.outcome": "ok",
    }
    assert (client.name, client.parent_id, client.trace_id) == ("chat m", server.span_id, server.trace_id)
    assert client.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "up0",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 140,
        "gen_ai.usage.output_tokens": 90,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "serinus.pool": "chat",
        "serinus.upstream": "up0",
        "serinus.key": "main",
        "serinus.outcome": "ok",
    }
    assert client.resource["service.name"] == "serinus"
    sent = upstream.requests[0].field(b"traceparent").decode()
    assert sent == f"00-{client.trace_id}-{client.span_id}-01", "the upstream's parent is the try"


async def test_a_streams_spans_last_until_its_last_byte(scripted, proxy, collector):
    upstream = await scripted(held := Held())
    running = await proxy(config_for(upstream.url, top=top(collector)))
    caller = await RawCaller.connect(running.port)
    await caller.send(CHAT)
    await caller.read_until(b"data: 1\r\n")
    running.pass_time(4)
    held.may_end.set()
    await caller.read_until(b"0\r\n\r\n")
    server, (client,) = await told(running, collector)
    assert (server.lasted_s, client.lasted_s) == pytest.approx((4, 4), abs=0.001)
    assert client.attributes["gen_ai.response.time_to_first_chunk"] == 0.0


async def test_each_try_is_a_span_of_its_own_and_says_why_it_failed(scripted, proxy, collector):
    bad, good = await scripted(answering(BUSY)), await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(bad.url, good.url, pool=TWICE, top=top(collector)))
    assert (await ask(running.port, CHAT)).status == 200
    server, clients = await told(running, collector)
    first, second = sorted(clients, key=lambda span: span.attributes["serinus.upstream"])
    assert (first.failed, first.message) == (True, "status 503")
    assert (first.attributes["error.type"], first.attributes["serinus.outcome"]) == ("503", "upstream_error")
    assert (second.failed, second.attributes["http.request.resend_count"]) == (False, 1)
    assert {span.parent_id for span in clients} == {server.span_id}
    assert (server.failed, server.attributes["serinus.attempts"]) == (False, 2)
    for span, upstream in ((first, bad), (second, good)):
        assert span.span_id in upstream.requests[0].field(b"traceparent").decode()


async def test_a_fallback_is_in_the_same_trace(scripted, proxy, collector):
    good = await scripted(answering(whole(b"{}")))
    running = await proxy(f"""
{top(collector)}
upstreams: {{gone: {{base_url: 'http://127.0.0.1:1'}}, next: {{base_url: '{good.url}'}}}}
pools: {{chat: {{members: [{{upstream: gone}}], fallback: other}}, other: {{members: [{{upstream: next}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
""")
    assert (await ask(running.port, CHAT)).status == 200
    _, clients = await told(running, collector)
    pools = {span.attributes["serinus.pool"]: span for span in clients}
    assert (pools["chat"].failed, pools["chat"].message) == (True, "ECONNREFUSED")
    assert not pools["other"].failed


async def test_an_error_of_our_own_is_the_requests_span_alone(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector), route="max_body: 1B, buffer: 1B"))
    assert (await ask(running.port, traced())).status == 413
    server, clients = await told(running, collector)
    assert (clients, server.parent_id, server.attributes["http.response.status_code"]) == ([], PARENT, 413)
    assert not server.failed, "it is the caller's mistake"


async def test_an_upstream_that_cuts_its_answer_fails_both_spans(scripted, proxy, collector):
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    upstream = await scripted(answering_then_closing(cut))
    running = await proxy(config_for(upstream.url, top=top(collector)))
    assert not (await ask(running.port, CHAT)).whole
    server, (client,) = await told(running, collector)
    for span in (server, client):
        assert (span.failed, span.attributes["error.type"]) == (True, "truncated")
        assert span.attributes["serinus.outcome"] == "truncated"


async def test_a_caller_that_left_has_not_failed_anybody(scripted, proxy, collector):
    upstream = await scripted(Held())
    running = await proxy(config_for(upstream.url, top=top(collector)))
    caller = await RawCaller.connect(running.port)
    await caller.send(CHAT)
    await caller.read_until(b"data: 1\r\n")
    caller.writer.transport.abort()
    await running.until_logged()
    server, (client,) = await told(running, collector)
    assert (server.failed, client.failed) == (False, False)
    assert server.attributes["serinus.outcome"] == client.attributes["serinus.outcome"] == "client_gone"


async def test_both_tries_of_a_hedged_call_are_there(scripted, proxy, collector):
    slow, fast = await scripted(silent), await scripted(answering(whole(b"{}")))
    pool = "balance: smooth_rr, slow_start: 0s, hedge: {after: 1s}, retry: {attempts: 2}"
    running = await proxy(config_for(slow.url, fast.url, pool=pool, top=top(collector)))
    caller = await RawCaller.connect(running.port)
    await caller.send(CHAT)
    await slow.until(lambda: bool(slow.requests))
    running.pass_time(1.5)
    assert (await caller.answer()).status == 200
    _, clients = await told(running, collector)
    outcomes = {span.attributes["serinus.upstream"]: span.attributes["serinus.outcome"] for span in clients}
    assert outcomes == {"up0": "hedged", "up1": "ok"}
    assert len({span.span_id for span in clients}) == 2


async def silent(talk: Conversation) -> None:
    await talk.request()
    await talk.gone()


async def test_the_arm_of_a_canary_is_told(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(f"""
{top(collector)}
upstreams: {{old: {{base_url: '{upstream.url}'}}, new: {{base_url: '{upstream.url}'}}}}
pools: {{base: {{members: [{{upstream: old}}]}}, next: {{members: [{{upstream: new}}]}}}}
canaries: {{trial: {{baseline: base, canary: next, weight: 1, force_header: true}}}}
routes: [{{prefix: /v1, pool: base, canary: trial}}]
""")
    await ask(running.port, get(fields=b"x-serinus-arm: canary\r\n"))
    server, (client,) = await told(running, collector)
    assert server.attributes["serinus.arm"] == client.attributes["serinus.arm"] == "canary"
    assert client.attributes["serinus.pool"] == "next"
    assert client.name == "GET", "this asks no model"


async def test_no_query_body_or_key_is_in_a_span(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b'{"S3CR3T":1}')))
    config = config_for(upstream.url, top=top(collector)).replace("upstream-key-0", "S3CR3T")
    running = await proxy(config)
    await ask(running.port, CHAT.replace(b'"messages":[]', b'"messages":["S3CR3T"]').replace(b": 27", b": 35"))
    server, clients = await told(running, collector)
    assert clients
    assert "S3CR3T" not in repr([server, *clients])


async def test_of_a_long_path_a_span_has_the_beginning(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector)))
    path = b"/v1/" + 15_000 * b"a"
    assert (await ask(running.port, get(path))).status == 200
    server, _ = await told(running, collector)
    assert server.attributes["url.path"] == path[:1024].decode()


async def test_a_websocket_is_traced_until_it_is_closed(scripted, proxy, collector):
    async def accepting(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await talk.gone()

    upstream = await scripted(accepting)
    running = await proxy(config_for(upstream.url, top=top(collector)))
    caller = await RawCaller.connect(running.port)
    await caller.send(get(b"/v1/realtime", fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    assert (await caller.answer()).status == 101
    running.pass_time(3)
    caller.writer.write_eof()
    await running.until_logged()
    server, (client,) = await told(running, collector)
    assert (server.attributes["http.response.status_code"], server.failed) == (101, False)
    assert (server.lasted_s, client.lasted_s) == pytest.approx((3, 3), abs=0.001)
    assert client.span_id in upstream.requests[0].field(b"traceparent").decode()


async def test_the_copy_of_a_shadow_is_a_try_in_the_same_trace(scripted, proxy, collector):
    old, new = await scripted(answering(whole(b"{}"))), await scripted(answering(whole(b"{}")))
    running = await proxy(f"""
{top(collector)}
upstreams: {{old: {{base_url: '{old.url}'}}, new: {{base_url: '{new.url}'}}}}
pools: {{base: {{members: [{{upstream: old}}]}}, next: {{members: [{{upstream: new}}]}}}}
canaries: {{trial: {{baseline: base, canary: next, mode: shadow, weight: 100}}}}
routes: [{{prefix: /v1, pool: base, canary: trial}}]
""")
    running.pass_time(60)
    await ask(running.port, CHAT)
    copies = running.serinus.registry.canaries["trial"]
    await running.until(lambda: copies.copies_sent == 1 and copies.copies == 0)
    server, clients = await told(running, collector)
    arms = {span.attributes["serinus.upstream"]: span.attributes["serinus.arm"] for span in clients}
    assert arms == {"old": "baseline", "new": "canary"}
    assert {span.parent_id for span in clients} == {server.span_id}


# --- the caller's trace ----------------------------------------------------------------------------------------------


async def test_a_callers_trace_goes_on(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector, ", sample: 0%")))
    await ask(running.port, traced("03"))
    server, (client,) = await told(running, collector)
    assert (server.trace_id, server.parent_id, client.parent_id) == (TRACE, PARENT, server.span_id)
    sent = upstream.requests[0]
    assert sent.field(b"traceparent").decode() == f"00-{TRACE}-{client.span_id}-03"
    assert sent.field(b"tracestate") == b"vendor=1"


async def test_of_a_later_version_what_is_known_goes_on(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector)))
    await ask(running.port, traced("ff", version="cc", more="-what-else"))
    _, (client,) = await told(running, collector)
    assert upstream.requests[0].field(b"traceparent").decode() == f"00-{TRACE}-{client.span_id}-03"


async def test_a_caller_who_does_not_record_is_not_recorded_and_passed_on_as_it_came(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector)))
    await ask(running.port, traced("00"))
    await running.serinus.spans.flush()
    assert collector.spans == []
    assert upstream.requests[0].field(b"traceparent").decode() == f"00-{TRACE}-{PARENT}-00"


async def test_what_is_not_recorded_of_our_own_says_so_to_upstreams(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector, ", sample: 0%")))
    await ask(running.port, CHAT)
    await running.serinus.spans.flush()
    assert collector.spans == []
    assert upstream.requests[0].field(b"traceparent")[-3:] == b"-00"


async def test_the_share_that_is_recorded_is_about_the_one_asked_for(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector, ", sample: 50%")))
    caller = await RawCaller.connect(running.port)
    for _ in range(100):
        await caller.send(CHAT)
        assert (await caller.answer()).status == 200
    await running.serinus.spans.flush()
    flags = [request.field(b"traceparent")[-2:] for request in upstream.requests]
    assert len(collector.of_kind("server")) == flags.count(b"01")
    assert 10 < flags.count(b"01") < 90  # each way once in 10^17


# --- the collector ---------------------------------------------------------------------------------------------------


async def test_headers_and_the_services_name_are_the_configurations(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    more = ", headers: {authorization: env:TOKEN}, service_name: front"
    running = await proxy(config_for(upstream.url, top=top(collector, more)), environ={"TOKEN": "Bearer t"})
    await ask(running.port, CHAT)
    server, _ = await told(running, collector)
    assert server.resource["service.name"] == "front"
    assert collector.headers[0]["authorization"] == "Bearer t"


async def test_the_usual_variables_say_where_to_and_who(scripted, proxy, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=search")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top="tracing: {}"))
    await ask(running.port, CHAT)
    server, _ = await told(running, collector)
    assert server.resource["service.name"] == "gateway"
    assert server.resource["deployment.environment.name"] == "test"
    assert collector.headers[0]["x-team"] == "search"


async def test_what_is_left_is_sent_at_the_end(scripted, proxy, collector):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector)))
    await ask(running.port, CHAT)
    await running.serinus.spans.close()
    assert len(collector.spans) == 2
    assert 'serinus_trace_spans_total{result="exported"} 2.0' in running.serinus.metrics.render("")[0].decode()


async def test_a_collector_that_refuses_costs_spans_and_one_line_in_the_log(scripted, proxy, collector):
    collector.status = 400
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector)))
    for _ in range(2):
        assert (await ask(running.port, CHAT)).status == 200
        await running.serinus.spans.flush()
        running.pass_time(2)
    (said,) = running.events.named("spans_lost")
    assert said["spans"] == 2
    assert "400" in said["reason"]
    assert 'serinus_trace_spans_total{result="failed"} 4.0' in running.serinus.metrics.render("")[0].decode()


async def test_a_collector_that_holds_everything_up_costs_spans_beyond_the_queue(
    scripted, proxy, collector, monkeypatch
):
    monkeypatch.setattr("proxy.obs.traces.QUEUE_SPANS", 4)
    monkeypatch.setattr("proxy.obs.traces.BATCH_SPANS", 4)
    collector.held = asyncio.Event()
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=top(collector)))
    for _ in range(10):
        assert (await ask(running.port, CHAT)).status == 200
    running.pass_time(2)
    assert running.serinus.metrics.spans["dropped"] > 0
    assert len(running.events.named("spans_lost")) == 1
    collector.held.set()
