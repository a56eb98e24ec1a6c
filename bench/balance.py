"""Eight members, one of them in trouble. How long do callers wait, by which balancer?

    python bench/balance.py [REQUESTS]

A simulation without a clock: seeded, the same figures on every machine. Requests come at random (Poisson) at 60 % of
what healthy members can carry. Prompts and answers have heavy tails, as those of LLM calls do. A member serves a number
of requests at once and queues the others; a caller's wait is the queue's and the time to read the prompt.
"""

import sys
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from statistics import quantiles

import stand

from proxy.policy.balance import KINDS, Balancer, Node, balancer
from proxy.policy.load import Load, estimated_work

REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
SEED = 17
MEMBERS, SLOTS, BUSY = 8, 16, 0.6
READ_S, WRITE_S = 1 / 5000, 1 / 80  # a token of the prompt, of the answer
BYTES_A_TOKEN = 4
PROMPTS = 400  # different beginnings of prompts; some are asked far more often than others
WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 1)
SLOWER = 5.0
BY_LOAD = ("least_request", "least_work", "peak_ewma")


@dataclass(slots=True)
class Call:
    """A request: when it came, its size, and what the balancer was told."""

    came_s: float
    prompt_tokens: int
    output_tokens: int
    prefix: bytes
    cost: float = 0.0
    wait_s: float = 0.0


@dataclass(slots=True)
class Member:
    slots: int
    slower: float = 1.0
    fails: bool = False
    serving: int = 0
    queue: deque[Call] = field(default_factory=deque)


def calls(slots: int) -> list[Call]:
    """A load of BUSY times what so many slots can serve. Medians: 600 and 150 tokens; means: 1,850 and 300."""
    dice, now_s, made = Random(SEED), 0.0, []
    for _ in range(REQUESTS):
        prompt_tokens = min(int(dice.lognormvariate(6.4, 1.5)) + 1, 100_000)
        output_tokens = min(int(dice.lognormvariate(5.0, 1.2)) + 1, 8_000)
        prefix = b"%d" % min(dice.paretovariate(0.8), PROMPTS)
        made.append(Call(0.0, prompt_tokens, output_tokens, prefix))
    rate = BUSY * slots * REQUESTS / sum(served_s(call) for call in made)
    for call in made:
        now_s += dice.expovariate(rate)
        call.came_s = now_s
    return made


def served_s(call: Call) -> float:
    return call.prompt_tokens * READ_S + call.output_tokens * WRITE_S


class Simulation:
    """A pool under load: events in the order of their time."""

    def __init__(self, kind: str, members: list[Member], weights: tuple[int, ...]) -> None:
        self.members = members
        self.nodes = [Node(f"member-{index}", weight, Load()) for index, weight in enumerate(weights)]
        self.balancer: Balancer = balancer(kind, self.nodes, Random(SEED))
        self.ends: list[tuple[float, int, int, Call]] = []  # when, a running number, the member, the call
        self.picks = [0] * len(members)
        self.waits_s: list[float] = []
        self.begun = 0

    def run(self) -> None:
        for call in calls(sum(member.slots for member in self.members)):
            while self.ends and self.ends[0][0] <= call.came_s:
                self.end(*heappop(self.ends))
            self.arrive(call)

    def arrive(self, call: Call) -> None:
        known = [node.load.output_bytes for node in self.nodes]
        call.cost = estimated_work(call.prompt_tokens * BYTES_A_TOKEN, sum(known) / len(known))
        index = self.balancer.pick(call.came_s, call.cost, call.prefix)
        self.picks[index] += 1
        self.nodes[index].load.began(call.cost)
        member = self.members[index]
        if member.fails or member.serving < member.slots:
            self.begin(call.came_s, index, call)
        else:
            member.queue.append(call)

    def begin(self, now_s: float, index: int, call: Call) -> None:
        member = self.members[index]
        member.serving += 1
        call.wait_s = now_s - call.came_s + call.prompt_tokens * READ_S * member.slower
        took_s = 0.02 if member.fails else served_s(call) * member.slower
        self.begun += 1
        heappush(self.ends, (now_s + took_s, self.begun, index, call))

    def end(self, now_s: float, _number: int, index: int, call: Call) -> None:
        member = self.members[index]
        member.serving -= 1
        wrote = call.output_tokens * BYTES_A_TOKEN
        self.nodes[index].load.ended(call.cost, now_s, call.wait_s, member.fails, wrote)
        if not member.fails:
            self.waits_s.append(call.wait_s)
        if member.queue:
            self.begin(now_s, index, member.queue.popleft())

    def waits(self) -> tuple[float, float]:
        """The median and the 99th percentile. Who still stands in a queue at the end has waited till then at least."""
        last_s = max(end[0] for end in self.ends)
        left = [last_s - call.came_s for member in self.members for call in member.queue]
        hundredths = quantiles(self.waits_s + left, n=100)
        return hundredths[49], hundredths[98]


def simulated(kind: str, first: Member, weights: tuple[int, ...] = (1,) * MEMBERS) -> Simulation:
    simulation = Simulation(kind, [first, *(Member(SLOTS * weight) for weight in weights[1:])], weights)
    simulation.run()
    return simulation


def one_slow() -> bool:
    print(f"one of {MEMBERS} members {SLOWER:g} times slower; waits for the first byte:")
    print(f"  {'':16}{'p50, s':>9}{'p99, s':>9}{'the slow one has':>20}")
    p99 = {}
    for kind in KINDS:
        simulation = simulated(kind, Member(SLOTS, slower=SLOWER))
        median_s, p99[kind] = simulation.waits()
        print(f"  {kind:16}{median_s:9.2f}{p99[kind]:9.2f}{100 * simulation.picks[0] / REQUESTS:18.2f} %")
    limit_s = p99["smooth_rr"] / 2
    holds = [stand.verdict(f"  p99 of {kind}", p99[kind], limit_s, "s") for kind in ("least_work", "peak_ewma")]
    return all(holds)


def one_fails() -> bool:
    fair = 100 / MEMBERS
    print(f"\none of {MEMBERS} members fails at once; its share of the picks, of which {fair} % were fair:")
    holds = []
    for kind in KINDS:
        share = 100 * simulated(kind, Member(SLOTS, fails=True)).picks[0] / REQUESTS
        if kind in BY_LOAD:
            holds.append(stand.verdict(f"  {kind}", share, fair / 4, "%"))
        else:
            print(f"  {kind}: {share:.1f} %")
    return all(holds)


def equal_members() -> bool:
    print(f"\nmembers as strong as their weights {WEIGHTS}; how far from its weight is any one's share?")
    holds = []
    for kind in KINDS:
        picks = simulated(kind, Member(SLOTS * WEIGHTS[0]), WEIGHTS).picks
        pairs = zip(picks, WEIGHTS, strict=True)
        off = max(abs(count / REQUESTS - weight / sum(WEIGHTS)) for count, weight in pairs)
        if kind == "prefix_hash":  # as uneven as the prompts are
            print(f"  {kind}: {100 * off:.1f} points")
        else:
            # Who is asked more often sees higher peaks, for waits go by the prompt's length: from 10 ms to 20 s.
            holds.append(stand.verdict(f"  {kind}", 100 * off, 3 if kind == "peak_ewma" else 1, "points"))
    return all(holds)


if __name__ == "__main__":
    sys.exit(not all([one_slow(), one_fails(), equal_members()]))
