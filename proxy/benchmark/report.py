"""All that a measurement has to say: each arm on its own, what arms add to each other, and what to make of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.benchmark.difference import Added, added
from proxy.benchmark.run import Arm, Measured, Run
from proxy.benchmark.summary import Summary, limit_of, summed_up

MEASURES = {
    "first token": lambda sample: sample.first_token_wait_s,
    "a token": lambda sample: sample.per_token_s,
    "whole answer": lambda sample: sample.total_s,
}
LATE_WORTH_SAYING_S = 0.002  # a timer may be off by one
TOKENS_AN_EVENT_WORTH_SAYING = 1.05


@dataclass(frozen=True, slots=True)
class Difference:
    """What `of` adds to `to`, in what one of MEASURES says."""

    of: Arm
    to: Arm
    measure: str
    added: Added


@dataclass(frozen=True, slots=True)
class Report:
    load: str
    arms: tuple[Arm, ...]
    summaries: tuple[Summary, ...]  # one an arm
    by_target: tuple[Difference, ...]  # what the first target adds to the second
    by_streaming: tuple[Difference, ...]  # what streaming adds to an answer that comes whole
    client_busy: float  # the share of a core that the client used
    client_limit: str | None  # how the client was the limit of what it measured, if it was

    @property
    def notes(self) -> Iterator[str]:
        """What a reader might misread."""
        answered = any(summary.answered for summary in self.summaries)
        if self.client_limit is not None and answered:  # where all failed, that is what matters
            yield f"The client was the limit: {self.client_limit}. These waits are partly its own; ask less of it."
        late_s = max((summary.late.p99_s for summary in self.summaries if summary.late), default=0.0)
        if late_s > LATE_WORTH_SAYING_S:
            yield f"1 call in 100 was begun {late_s * 1000:.1f} ms late or more; that is part of its waits."
        events = max((summary.tokens_an_event or 0.0 for summary in self.summaries), default=0.0)
        if events > TOKENS_AN_EVENT_WORTH_SAYING:
            yield f"Events carry {events:.1f} tokens each: between two of them passes more time than for a token."
        if (self.by_target or self.by_streaming) and all(
            difference.added.interval_s is None for difference in (*self.by_target, *self.by_streaming)
        ):
            yield "Too few rounds for an interval: ask for more requests."


def report_of(run: Run, load: str) -> Report:
    pairs = {(one.arm.target, one.arm.stream, one.arm.tokens): one for one in run.measured}
    targets = tuple(dict.fromkeys(one.arm.target for one in run.measured))
    by_target: list[Difference] = []
    by_streaming: list[Difference] = []
    for (target, stream, tokens), one in pairs.items():
        if target is targets[0] and len(targets) > 1 and (other := pairs.get((targets[1], stream, tokens))):
            by_target += _differences(one, other, *MEASURES)
        if stream and (whole := pairs.get((target, False, tokens))):
            by_streaming += _differences(one, whole, "whole answer")
    return Report(
        load=load,
        arms=tuple(one.arm for one in run.measured),
        summaries=tuple(map(summed_up, run.measured)),
        by_target=tuple(by_target),
        by_streaming=tuple(by_streaming),
        client_busy=run.client_load.busy,
        client_limit=limit_of(run.client_load),
    )


def _differences(of: Measured, to: Measured, *measures: str) -> Iterator[Difference]:
    for name in measures:
        adds = added(of, to, MEASURES[name])
        if adds is not None:
            yield Difference(of.arm, to.arm, name, adds)
