"""The nursery, begun by a process of its own: `nursing.py` has the scenes, and here is what must come of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import proxy as package
from tests.support.patience import PATIENCE_S

ROOT = Path(package.__file__).parent.parent
KILLED = -9


def scene(name: str, said: str = "") -> object:
    """What it printed. `said`: what it had to say on standard error."""
    command = [sys.executable, str(Path(__file__).parent / "nursing.py"), name]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    played = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert played.returncode == 0, played.stderr
    assert said in played.stderr
    assert said or not played.stderr
    return json.loads(played.stdout)


def test_workers_are_born_with_their_numbers_and_sockets():
    assert scene("births") == {
        "numbers": [0, 1, 2],
        "pids": True,
        "parents": True,
        "terminates": [False, False, False],
        "ignores": 4,
        "doors": ["door 0", "door 1", "door 2"],
    }


def test_how_each_ended_is_told():
    assert scene("ends", said="RuntimeError: as it was told") == [0, 1, 7, KILLED]


def test_a_nursery_that_is_killed_is_noticed_and_workers_live_on():
    assert scene("killed") == {"lost": 1, "same": True, "refused": True}


def test_signals_are_not_for_it():
    assert scene("signalled") == 5


def test_it_ends_when_it_is_closed_and_workers_live_on():
    assert scene("closed") == {"status": 0, "same": True, "lost": 0}


def test_it_keeps_nothing_of_those_who_ended():
    assert scene("many") == {"statuses": [0], "kept": 0}


def test_where_there_can_be_no_process_more_it_goes_on():
    assert scene("crowded") == {"refused": True, "later": 1}
