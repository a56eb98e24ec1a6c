"""Ports for servers that are to be where a configuration says, and for those that are not to be there at all.

A port that was free a moment ago may be another test's by now. One that is bound, and not listened on, is given to
nobody, as what it is bound to or as where a connection comes from; connects are refused, and who knows it may listen.
"""

import socket


def held_socket() -> socket.socket:
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
