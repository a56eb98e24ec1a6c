"""Mutated bytes at every edge where the proxy reads what others wrote, for as long as you like.

    python -m tests.fuzz [SECONDS [SEED [TARGET...]]]        # or: make fuzz SECONDS=600

Each round takes the next seed, and each target some examples; the first example that fails is made small, printed, and
ends the run with status 1. The same seed gives the same rounds.
"""

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import answers, bodies, requests

EXAMPLES = {"answers": 400, "requests": 200, "heads": 100, "models": 400, "ids": 300, "events": 200}  # a round


@dataclass(frozen=True)
class Target:
    examples: st.SearchStrategy[Any]
    check: Callable[[Any], None]


def targets(stand: requests.Stand) -> dict[str, Target]:
    def over_sockets(parts: list[bytes]) -> None:
        stand.loop.run_until_complete(stand.look(parts))

    return {
        "answers": Target(answers.EXAMPLES, answers.check),
        "requests": Target(requests.EXAMPLES, over_sockets),
        "heads": Target(requests.nearly_alike(), requests.check_heads),
        "models": Target(bodies.MODELS, bodies.check_model),
        "ids": Target(bodies.JSON_IDS, bodies.check_ids),
        "events": Target(bodies.EVENTS, bodies.check_events),
    }


class OutOfTime(BaseException):
    """Passes through hypothesis: it is no failure."""


def one_round(name: str, target: Target, number: int, until_s: float, done: Counter[str]) -> None:
    @seed(number)
    @settings(
        max_examples=EXAMPLES[name],
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.examples)
    def look(example: Any) -> None:
        if time.monotonic() > until_s and not failing:  # noqa: TID251 - what fails is made small all the same
            raise OutOfTime
        done[name] += 1
        try:
            target.check(example)
        except BaseException:
            failing.append(example)
            raise

    failing: list[Any] = []
    try:
        look()
    except Exception:
        say(f"\n{name}, seed {number}: {failing[-1]!r}\n")
        raise


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(seconds: float = 180, first: int | None = None, *names: str) -> int:
    number = SystemRandom().randrange(10**6) if first is None else first
    say(f"seed {number}, {seconds:.0f} s")
    until_s, done = time.monotonic() + seconds, Counter[str]()  # noqa: TID251
    stand = requests.Stand()
    try:
        while True:
            for name, target in targets(stand).items():
                if not names or name in names:
                    one_round(name, target, number, until_s, done)
            number += 1
    except OutOfTime:
        stand.close()
        say("nothing found in " + ", ".join(f"{count} {name}" for name, count in done.items()))
        return 0
    except Exception:  # noqa: BLE001 - whatever it is, it was found
        traceback.print_exc(file=sys.stdout)
        return 1


if __name__ == "__main__":
    sys.exit(main(*(float(text) for text in sys.argv[1:2]), *map(int, sys.argv[2:3]), *sys.argv[3:]))
