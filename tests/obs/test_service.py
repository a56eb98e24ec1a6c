"""What a service manager is told, message by message."""

import os
import socket
from pathlib import Path

import pytest

from proxy.obs.service import Service


class Told:
    """A manager's end of the socket, and a log."""

    def __init__(self, address: str) -> None:
        self.warnings: list[dict[str, object]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    def warning(self, event: str, **fields: object) -> None:
        self.warnings.append({"event": event} | fields)

    def messages(self) -> list[list[str]]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a path", "abstract"])
def address(request, tmp_path) -> str:
    return str(tmp_path / "notify") if request.param == "a path" else f"@serinus-test-{os.getpid()}"


@pytest.fixture
def told(address):
    told = Told("\0" + address[1:] if address.startswith("@") else address)
    yield told
    told.close()


@pytest.fixture
def start(address, told):
    def start(**environ: str) -> Service:
        return Service({"NOTIFY_SOCKET": address} | environ, lambda: 12.5, told)

    return start


def test_each_stage_is_told(start, told):
    service = start()
    service.text = lambda: "Serving generation 7"
    service.ready()
    with service.reloading():
        pass
    service.stopping("Draining, 2 requests open", takes_s=37.5)
    assert told.messages() == [
        ["READY=1", "STATUS=Serving generation 7"],
        ["RELOADING=1", "MONOTONIC_USEC=12500000", "STATUS=Reading the configuration again"],
        ["READY=1", "STATUS=Serving generation 7"],
        ["STOPPING=1", "STATUS=Draining, 2 requests open", "EXTEND_TIMEOUT_USEC=37500000"],
    ]


def test_reload_that_fails_is_over_too(start, told):
    service = start()
    with pytest.raises(RuntimeError), service.reloading():
        raise RuntimeError
    assert [message[0] for message in told.messages()] == ["RELOADING=1", "READY=1"]


def test_of_several_reloads_the_last_ones_end_is_the_end(start, told):
    service = start()
    with service.reloading(), service.reloading():
        pass
    assert [message[0] for message in told.messages()] == ["RELOADING=1", "RELOADING=1", "READY=1"]


def test_who_stops_is_not_ready_again(start, told):
    service = start()
    with service.reloading():
        service.stopping("Draining", takes_s=1)
    assert [message[0] for message in told.messages()] == ["RELOADING=1", "STOPPING=1"]


def test_signs_of_life_are_given_twice_in_the_time_that_is_allowed(start, told):
    service = start(WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    assert service.deadline_s == float("inf")
    service.ready()
    assert service.deadline_s == 12.5 + 5
    service.expired(18.0)
    assert service.deadline_s == 18 + 5
    assert told.messages()[1:] == [["WATCHDOG=1"]]


def test_signs_of_life_that_another_process_is_to_give_are_not_given(start):
    service = start(WATCHDOG_USEC="10000000", WATCHDOG_PID="1")
    service.ready()
    assert service.deadline_s == float("inf")


def test_manager_that_is_gone_is_logged_and_nothing_else(start, told, address):
    service = start()
    told.close()
    Path(address).unlink(missing_ok=True)
    service.ready()
    (warning,) = told.warnings
    assert (warning["event"], warning["socket"]) == ("service_manager_not_told", address)


def test_without_a_manager_nothing_is_told(told):
    Service({}, lambda: 0.0, told).ready()
    assert (told.messages(), told.warnings) == ([], [])
