#!/usr/bin/env python3
"""A mock LLM upstream on uvloop: upstream.py PORT unary|stream [EVENTS [GAP_MS]] (200 SSE events, 20 ms apart)."""

import asyncio
import re
import sys

import uvloop

EVENT = b'data: {"id":"chatcmpl-abc123","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4.1","choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
DONE = b"data: [DONE]\n\n"
LAST = b"%x\r\n%s\r\n0\r\n\r\n" % (len(DONE), DONE)
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
TEXT = b"Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore. " * 2
JSON = (
    b'{"id":"chatcmpl-abc123","object":"chat.completion","created":1700000000,"model":"gpt-4.1","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":50,"total_tokens":69}}'
    % TEXT
)
UNARY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(JSON), JSON)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
PORT, STREAM = int(sys.argv[1]), sys.argv[2] == "stream"
EVENTS = int(sys.argv[3]) if len(sys.argv) > 3 else 200
GAP_S = float(sys.argv[4]) / 1000 if len(sys.argv) > 4 else 0.020


class Upstream(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer, self.loop = transport, b"", asyncio.get_running_loop()

    def data_received(self, data):
        self.buffer += data
        while self.buffer:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[: end + 2]
            found = LENGTH.search(head)
            if found:
                size = end + 4 + int(found.group(1))
                if len(self.buffer) < size:
                    return
            elif b"chunked" in head.lower():
                tail = self.buffer.find(b"0\r\n\r\n", end + 4)
                if tail < 0:
                    return
                size = tail + 5
            else:
                size = end + 4
            self.buffer = self.buffer[size:]
            if STREAM and head.startswith(b"POST"):
                self.transport.write(SSE_HEAD)
                self.sent = 0
                self.loop.call_later(GAP_S, self.tick)
            else:
                self.transport.write(UNARY)

    def tick(self):
        if self.transport.is_closing():
            return
        self.sent += 1
        if self.sent > EVENTS:
            self.transport.write(LAST)
        else:
            self.transport.write(CHUNK)
            self.loop.call_later(GAP_S, self.tick)


async def main():
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", PORT, backlog=4096)
    await server.serve_forever()


uvloop.run(main())
