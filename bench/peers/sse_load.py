#!/usr/bin/env python3
"""Open N SSE streams at once and count what arrives: sse_load.py PORT STREAMS. Prints one line of JSON."""

import asyncio
import json
import random
import sys
import time

import uvloop

PORT, STREAMS = int(sys.argv[1]), int(sys.argv[2])
BODY = (
    b'{"model":"gpt-4.1","stream":true,"messages":[{"role":"user","content":"'
    + b"Explain quantum computing. " * 10
    + b'"}]}'
)
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer sk-client-3f9a0b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a\r\nContent-Length: %d\r\n\r\n"
    % len(BODY)
) + BODY
events = done = bad = 0
first_byte_s = []


class Client(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.sent_s, self.tail, self.first = transport, time.perf_counter(), b"", True
        self.ended = asyncio.get_running_loop().create_future()
        transport.write(REQUEST)

    def data_received(self, data):
        global events, done, bad
        if self.first:
            self.first = False
            first_byte_s.append(time.perf_counter() - self.sent_s)
            bad += not data.startswith(b"HTTP/1.1 200")
        events += data.count(b"data: {")
        self.tail = (self.tail + data)[-24:]
        if b"[DONE]" in self.tail and self.tail.endswith(b"0\r\n\r\n"):
            done += 1
            self.ended.done() or self.ended.set_result(None)
            self.transport.close()

    def connection_lost(self, error):
        self.ended.done() or self.ended.set_result(None)


async def one(delay_s):
    await asyncio.sleep(delay_s)
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", PORT)
    await asyncio.wait_for(client.ended, 60)


async def main():
    await asyncio.gather(*(one(random.random()) for _ in range(STREAMS)), return_exceptions=True)
    first_byte_s.sort()

    def at(q):
        return round(first_byte_s[min(len(first_byte_s) - 1, int(len(first_byte_s) * q))] * 1e3, 2)

    print(
        json.dumps(
            {
                "streams": STREAMS,
                "events": events,
                "done": done,
                "bad": bad,
                "ttfb_p50_ms": at(0.5),
                "ttfb_p99_ms": at(0.99),
            }
        )
    )


uvloop.run(main())
