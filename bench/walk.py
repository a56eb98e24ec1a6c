"""What a request costs by itself: walked in this process between sockets that do nothing, so no kernel and no neighbour
is in the figure. Says what a change to the request path costs, to a tenth of a microsecond; not what a request costs.

    python bench/walk.py            plain, streamed, and each with what a configuration may ask for besides

Traces go to a collector in another process, which throws them away; the thread that sends them is in the figure.
"""

import asyncio
import gc
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parent.parent))

from proxy.controlplane.build import build
from proxy.controlplane.load import parse
from proxy.dataplane.callers import Door
from proxy.dataplane.server import DataPlane
from proxy.dataplane.tracer import Tracer
from proxy.dataplane.upstream import UpstreamConnection
from proxy.main import clock, wall_clock
from proxy.obs.log import configure
from proxy.obs.metrics import Metrics
from proxy.obs.spans import spans_to
from proxy.state.live import Registry
from proxy.state.snapshot import Snapshots

REQUESTS, ROUNDS, EVENTS = 5000, 9, 20
BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 540 + b'"}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer caller\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY
ANSWER_BODY = (
    b'{"id":"c","choices":[{"message":{"content":"'
    + b"y" * 330
    + (b'"}}],"usage":{"prompt_tokens":140,"completion_tokens":90,"total_tokens":230}}')
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER_BODY)
UNARY = [ANSWER + ANSWER_BODY]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENT = chunk(b'data: {"id":"c","choices":[{"delta":{"content":"' + b"z" * 100 + b'"}}]}\n\n')
STREAM = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + EVENT,
    *[EVENT] * (EVENTS - 1),
    chunk(b'data: {"usage":{"prompt_tokens":140,"completion_tokens":90,"total_tokens":230}}\n\ndata: [DONE]\n\n')
    + b"0\r\n\r\n",
]
PLAIN = """
listen: 127.0.0.1:0
log: {access: false}
upstreams: {up: {base_url: "http://127.0.0.1:9", keys: [{name: k, value: upstream-key}]}}
pools: {chat: {members: [{upstream: up}]}}
routes: [{prefix: /v1, pool: chat}]
clients: [{name: app, key: caller}]
"""
COLLECTOR = """
import http.server

class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(server.server_port, flush=True)
server.serve_forever()
"""
TRACED = "tracing: {{endpoint: 'http://127.0.0.1:{port}/v1/traces', sample: {share}}}\n"
COUNTED = PLAIN + "metrics: {tokens: all}\n"
LIMITED = PLAIN.replace(
    "key: caller}", "key: caller, limits: {requests_per_minute: 100000000, tokens_per_minute: 10000000000}}"
)


class Nothing(asyncio.Transport):
    """A socket that takes everything and does nothing with it."""

    def write(self, data: Any) -> None: ...
    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default


class Walk:
    def __init__(self, configuration: str) -> None:
        settings = parse(configuration, {}).settings
        registry, metrics = Registry(clock), Metrics()
        snapshots = Snapshots(build(settings, registry, metrics, 1))
        log = configure("info", "json")
        spans = spans_to(settings.tracing, wall_clock, metrics, log)
        dice = random.getrandbits
        tracer = Tracer.to(spans, dice, settings.tracing)
        plane = DataPlane(snapshots, clock, log, None, dice, "b", wall_clock, None, tracer)
        self.metrics, self.spans = metrics, spans
        upstream = next(iter(snapshots.current.upstreams.values()))
        pool = plane._pools.of(upstream)  # noqa: SLF001
        self._connection = UpstreamConnection(pool)
        self._connection.connection_made(Nothing())
        pool.give(self._connection)
        self._caller = cast("asyncio.Protocol", plane._protocol(Door()))  # noqa: SLF001
        self._caller.connection_made(Nothing())

    def run(self, answer: list[bytes], requests: int) -> float:
        """µs a request, of CPU time."""
        read_into, caller, connection = self._connection.get_buffer(0), self._caller, self._connection
        sizes = [len(piece) for piece in answer]
        began_s = time.process_time()
        for _ in range(requests):
            caller.data_received(REQUEST)
            for piece, size in zip(answer, sizes, strict=True):
                read_into[:size] = piece
                connection.buffer_updated(size)
        return (time.process_time() - began_s) / requests * 1e6


async def main(port: int) -> None:
    walks = {
        "plain": Walk(PLAIN),
        "tokens: all": Walk(COUNTED),
        "token limits": Walk(LIMITED),
        "traced: 0%": Walk(PLAIN + TRACED.format(port=port, share="0%")),
        "traced: 10%": Walk(PLAIN + TRACED.format(port=port, share="10%")),
        "traced: 100%": Walk(PLAIN + TRACED.format(port=port, share="100%")),
    }
    gc.freeze()
    for name, answer, requests in (("unary", UNARY, REQUESTS), (f"{EVENTS} events", STREAM, REQUESTS // 5)):
        took: dict[str, list[float]] = {each: [] for each in walks}
        for _ in range(ROUNDS):
            for each, walk in walks.items():
                took[each].append(walk.run(answer, requests))
                if walk.spans is not None:
                    await walk.spans.flush()
        for each, figures in took.items():
            print(f"{name:12} {each:16} {statistics.median(figures):7.2f} µs a request, least {min(figures):7.2f}")
    print({each: walk.metrics.spans for each, walk in walks.items() if walk.spans is not None})


if __name__ == "__main__":
    with subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True) as collector:
        assert collector.stdout is not None
        try:
            asyncio.run(main(int(collector.stdout.readline())))
        finally:
            collector.kill()
