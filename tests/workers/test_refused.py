"""A worker that cannot have in force what it is told, as when a certificate's file is half written just then."""

import asyncio
import socket
from types import SimpleNamespace

import pytest
from structlog.testing import CapturingLogger

from proxy.controlplane.problems import ConfigInvalid, Problem
from proxy.obs.metrics import Metrics
from proxy.state.live import Registry
from proxy.workers import messages as m
from proxy.workers import worker as module
from proxy.workers.cells import ABOVE, Cells, Rows
from proxy.workers.link import Link
from proxy.workers.plane import Workers
from proxy.workers.staff import Worker
from tests.support.patience import PATIENCE_S


async def test_a_worker_whose_first_configuration_is_refused_says_why_and_ends(monkeypatch):
    """Another one follows it, and may find the files whole."""

    def build(*_):
        raise ConfigInvalid((Problem(("listen", 0), None, "no certificate in it"),))

    monkeypatch.setattr(module, "build", build)
    ours, theirs = socket.socketpair()
    our_door, their_door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    said, lost = [], asyncio.Event()
    link = Link(said.append, lost.set)
    await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
    link.send(m.Configuration(7, SimpleNamespace(), {}, {}, None, {}, {}))
    clocks = module.Clocks(lambda: 0.0, lambda: 0.0)
    async with asyncio.timeout(PATIENCE_S):
        await module.Worker(Cells(2), clocks, 0, their_door).run(theirs)
        await lost.wait()
    assert said == [m.Applied(7, "configuration: listen[0]: no certificate in it")]
    for each in (our_door, their_door):
        each.close()


@pytest.fixture
def plane():
    cells, registry = Cells(2), Registry()
    rows = Rows(cells, ABOVE)
    plane = Workers(
        SimpleNamespace(),
        cells,
        rows,
        SimpleNamespace(current=None),
        registry,
        Metrics(),
        SimpleNamespace(),
        lambda: 0.0,
        CapturingLogger(),
    )
    yield plane
    plane.hand_over()


@pytest.mark.parametrize("problem", ["", "no certificate in it"])
async def test_who_cannot_serve_is_handed_no_connections(plane, monkeypatch, problem):
    welcomed: list[object] = []
    monkeypatch.setattr(plane._doorman, "welcome", welcomed.append)
    door = object()
    worker = Worker(0, Link(lambda _: None, lambda: None), door, 0.0)
    plane._hear(worker, m.Applied(1, problem))
    assert worker.is_ready == (not problem)
    assert welcomed == ([] if problem else [door])


async def test_who_serves_already_goes_on_with_what_it_has(plane, monkeypatch):
    welcomed: list[object] = []
    monkeypatch.setattr(plane._doorman, "welcome", welcomed.append)
    worker = Worker(0, Link(lambda _: None, lambda: None), object(), 0.0)
    plane._hear(worker, m.Applied(1))
    plane._hear(worker, m.Applied(2, "no certificate in it"))
    assert (worker.is_ready, worker.generation, len(welcomed)) == (True, 2, 1)
