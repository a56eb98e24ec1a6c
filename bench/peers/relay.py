#!/usr/bin/env python3
"""What any hop costs: a relay that reads nothing into the bytes, for one caller at a time: relay.py PORT UPSTREAM_PORT."""

import selectors
import socket
import sys

PORT, UPSTREAM_PORT = int(sys.argv[1]), int(sys.argv[2])


def relay(caller):
    with (
        caller,
        socket.create_connection(("127.0.0.1", UPSTREAM_PORT)) as upstream,
        selectors.DefaultSelector() as ready,
    ):
        for here, there in ((caller, upstream), (upstream, caller)):
            here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.register(here, selectors.EVENT_READ, there)
        while True:
            for key, _ in ready.select():
                data = key.fileobj.recv(65536)
                if not data:
                    return
                key.data.sendall(data)


with socket.create_server(("127.0.0.1", PORT)) as server:
    while True:
        relay(server.accept()[0])
