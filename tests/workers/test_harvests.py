"""What canaries saw at workers, as the process above gathers it."""

from types import SimpleNamespace

import pytest
from structlog.testing import CapturingLogger

from proxy.obs.metrics import Metrics
from proxy.policy.canary.counts import Harvest
from proxy.state.live import Registry
from proxy.workers import messages as m
from proxy.workers.cells import ABOVE, Cells, Rows
from proxy.workers.plane import Workers
from proxy.workers.staff import Worker


class Link:
    def __init__(self):
        self.asked = []

    def send(self, question):
        self.asked.append(question)


@pytest.fixture
async def plane():
    cells, nowhere = Cells(1), SimpleNamespace()
    registry = Registry()
    plane = Workers(
        nowhere, cells, Rows(cells, ABOVE), nowhere, registry, Metrics(), nowhere, lambda: 0.0, CapturingLogger()
    )
    yield plane
    plane.hand_over()


async def test_what_comes_too_late_counts_with_the_next_look(plane, monkeypatch):
    worker = Worker(0, Link(), None, 0.0, is_ready=True)
    plane.staff._workers[0] = worker
    monkeypatch.setattr("proxy.workers.staff.ANSWER_S", 0.0)
    assert await plane.harvests(["trial"], 5.0) == {"trial": []}
    (question,) = worker.link.asked
    late = Harvest(1)
    plane._hear(worker, m.Counts(question.number, [], 0, {"trial": late}))
    assert await plane.harvests(["trial"], 10.0) == {"trial": [late]}
    assert await plane.harvests(["trial"], 15.0) == {"trial": []}
    assert worker.answers == {}
