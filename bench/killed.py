"""A process is killed (-9) while it writes states and audit lines, again and again. Is all there that it said it saved?

python bench/killed.py [KILLS]

The child forks off, opens what the last one left, and says each number once it is saved; the parent kills it at a
random moment, reads what it said, and compares. Most kills fall into a wait for the disk; half a line is seldom seen,
for the kernel is quick to take one, though the lines are of up to three pages.
"""

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import msgspec
import stand

from proxy.controlplane.audit import Audit, Head, read, verify
from proxy.controlplane.state_file import StateFile, StateUnreadable

KILLS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
LIMIT_S = 60
LONGEST_LIFE_S = 0.2
KILLS_A_FOLDER = 50  # a log is verified after each kill, so none becomes long
SEED = 17


class Saved(msgspec.Struct):
    """`echo` repeats the number many times: a file of two halves would not agree with itself."""

    number: int
    echo: list[int]


def states(folder: Path) -> StateFile[Saved]:
    return StateFile(folder / "numbers.json", Saved)


def write(folder: Path, begin: int, says: int, dice: random.Random) -> None:
    """Save and append as fast as it goes, until killed."""
    state, audit = states(folder), Audit(folder / "audit.log", time.time)  # noqa: TID251 - a benchmark has the clock
    state.load()
    number = begin
    while True:
        number += 1
        state.save(Saved(number, [number] * dice.randrange(2000)))
        os.write(says, b"state %d\n" % number)
        audit.append("number_saved", "child", "", {"number": number, "filler": "x" * dice.randrange(12_000)})
        os.write(says, b"audit %d\n" % number)


def one_kill(folder: Path, begin: int, dice: random.Random) -> dict[str, int]:
    """The last numbers that a child said before its death."""
    hears, says = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(hears)
            write(folder, begin, says, dice)
        except BaseException:  # noqa: BLE001 - a child must not go on as its parent
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(says)
    time.sleep(dice.uniform(0, LONGEST_LIFE_S))
    os.kill(child, signal.SIGKILL)
    with os.fdopen(hears) as said:
        last = {name: int(number) for name, number in map(str.split, said)}
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        sys.exit("the child ended by itself: its traceback stands above")
    return last


def look(folder: Path, begin: int, said: dict[str, int], seen: Counter[str], wrong: Counter[str]) -> int:
    """Compare what is there with what was said; the highest number that is there."""
    said_state, said_line = said.get("state", begin), said.get("audit", begin)
    log = folder / "audit.log"
    seen["numbers said to be saved"] += said_state - begin
    seen["lines said to be written"] += said_line - begin
    seen["kills in the middle of a state"] += (folder / "numbers.json.new").exists()
    seen["kills in the middle of a line"] += log.exists() and log.read_bytes()[-1:] not in {b"", b"\n"}
    seen["kills in the middle of a head"] += (folder / "audit.head.new").exists()
    number = begin
    try:
        saved = states(folder).load()
        number = saved.number if saved else 0
        wrong["states of two halves"] += bool(saved and set(saved.echo) - {saved.number})
    except StateUnreadable as error:
        wrong["states that do not load"] += 1
        print(error)
    wrong["saved numbers lost"] += number < said_state
    verified = verify(log)
    head = StateFile(folder / "audit.head", Head).load()
    seen["kills between a line and its head"] += verified.lines > (head.number if head else 0)
    if verified.first_broken is not None:
        wrong["chains broken"] += 1
        print(f"line {verified.first_broken}: {verified.why}")
    numbers = Counter(entry.about.get("number") for entry in read(log, 10**6) if entry.what == "number_saved")
    wrong["audit lines lost"] += sum(not numbers[number] for number in range(begin + 1, said_line + 1))
    wrong["audit lines twice"] += sum(count > 1 for count in numbers.values())
    return max(number, begin)


def main() -> bool:
    dice = random.Random(SEED)
    seen: Counter[str] = Counter()
    wrong = Counter({"states that do not load": 0, "chains broken": 0})
    began_s = time.monotonic()  # noqa: TID251
    for first in range(0, KILLS, KILLS_A_FOLDER):
        with tempfile.TemporaryDirectory(prefix="serinus-bench-") as name:
            folder, number = Path(name), 0
            for _ in range(first, min(first + KILLS_A_FOLDER, KILLS)):
                number = look(folder, number, one_kill(folder, number, dice), seen, wrong)
                seen["kills"] += 1
            about_itself = [entry.what for entry in read(folder / "audit.log", 10**6) if entry.what != "number_saved"]
            seen.update(f"times {what} in the log" for what in about_itself)
    for what, count in (*seen.items(), *wrong.items()):
        print(f"{count:7} {what}")
    took_s = time.monotonic() - began_s  # noqa: TID251
    holds = stand.verdict("lost or damaged in all", wrong.total(), 0, "times")
    return stand.verdict("time", took_s, LIMIT_S, "s") and holds


if __name__ == "__main__":
    try:
        sys.exit(not main())
    except StateUnreadable as error:
        sys.exit(f"lost: {error}")
