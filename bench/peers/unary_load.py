#!/usr/bin/env python3
"""Closed-loop load in two writes a request, head then body: unary_load.py PORT CONNECTIONS SECONDS. Prints JSON."""

import asyncio
import json
import sys
import time

import uvloop

PORT, CONNECTIONS, SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
BODY = b'{"model":"gpt-4.1","messages":[{"role":"user","content":"' + b"Explain quantum computing. " * 16 + b'"}]}'
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nUser-Agent: OpenAI/Python 1.0\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer sk-client-3f9a0b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a\r\nContent-Length: %d\r\n\r\n"
    % len(BODY)
)
times, bad, stop = [], 0, False


class Client(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.loop = transport, asyncio.get_running_loop()
        self.send()

    def send(self):
        self.sent_s, self.buffer = time.perf_counter(), b""
        self.transport.write(HEAD)
        self.loop.call_soon(
            self.loop.call_soon, self.transport.write, BODY
        )  # a turn of the loop later: a write of its own

    def data_received(self, data):
        global bad
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        low = self.buffer[:end].lower()
        at = low.find(b"content-length:")
        whole = (
            self.buffer.endswith(b"0\r\n\r\n")
            if at < 0
            else len(self.buffer) >= end + 4 + int(low[at + 15 :].split(b"\r\n", 1)[0])
        )
        if whole:
            times.append(time.perf_counter() - self.sent_s)
            bad += not self.buffer.startswith(b"HTTP/1.1 200")
            self.transport.close() if stop else self.send()

    def connection_lost(self, error):
        global bad
        bad += not stop


async def main():
    global stop
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(Client, "127.0.0.1", PORT)
    await asyncio.sleep(SECONDS)
    stop = True
    await asyncio.sleep(0.2)
    times.sort()

    def at(q):
        return round(times[min(len(times) - 1, int(len(times) * q))] * 1e3, 3) if times else None

    print(json.dumps({"requests": len(times), "bad": bad, "p50_ms": at(0.5), "p99_ms": at(0.99)}))


uvloop.run(main())
