"""What the system does with connections when a listener takes no more."""

import socket
import sys

import pytest

from proxy.dataplane.sockets import take_no_more
from tests.support.patience import PATIENCE_S


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        yield listening


def test_who_was_taken_before_is_accepted_and_nobody_else_connects(listening):
    with socket.create_connection(listening.getsockname()) as early, socket.socket() as late:
        take_no_more(listening)
        late.setblocking(False)
        late.connect_ex(listening.getsockname())
        accepted, peer = listening.accept()
        assert peer == early.getsockname()
        accepted.close()
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize("option", [option for option in (getattr(socket, "TCP_DEFER_ACCEPT", None),) if option])
def test_who_believes_to_be_connected_is_accepted_though_the_system_waits_for_a_packet(listening, option):
    assert sys.platform == "linux"
    listening.setsockopt(socket.IPPROTO_TCP, option, 10)  # it is taken with its first bytes
    with socket.create_connection(listening.getsockname()) as caller:
        take_no_more(listening)
        caller.sendall(b"request")
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.recv(100) == b"request"
