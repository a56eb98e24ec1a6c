"""One call, as its caller saw it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

Clock = Callable[[], float]


class Failure(Enum):
    """Why a call is not counted among the answers."""

    CONNECT = "no connection"
    NO_ANSWER = "no answer"  # the connection ended before any of it came
    TIMEOUT = "timeout"
    CUT = "cut short"  # the connection ended before the answer did
    NO_END = "no end"  # the stream ended without saying that it does
    ERROR_IN_ANSWER = "error in the answer"  # begun with 200, and then an error
    UNREADABLE = "unreadable"  # not what this API answers
    NO_TOKENS = "no tokens"
    STATUS = "status"  # any but 200


@dataclass(slots=True)
class Sample:
    """Times are seconds of one clock; of a call that failed only `due_s`, `sent_s` and `ended_s` mean anything."""

    due_s: float  # when it was to begin: what it waits for is counted from here
    sent_s: float  # when it was begun; later than due where the client did not keep up
    first_token_s: float | None = None  # None: not streamed
    last_token_s: float = 0.0
    ended_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)  # between one event with tokens and the next
    tokens: int = 0  # by the answer's own account, or as many as there were events with tokens
    failure: Failure | None = None
    status: int = 0
    said: str = ""  # of a failure, in few words

    @property
    def first_token_wait_s(self) -> float | None:
        return None if self.first_token_s is None else self.first_token_s - self.due_s

    @property
    def total_s(self) -> float:
        return self.ended_s - self.due_s

    @property
    def late_s(self) -> float:
        return self.sent_s - self.due_s

    @property
    def per_token_s(self) -> float | None:
        """The mean time between two tokens; an event may carry several. None where there are not two, or no stream."""
        if self.first_token_s is None or self.tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.tokens - 1)

    @property
    def kind(self) -> str:
        """How a failure is counted: `status 503`, `timeout`."""
        assert self.failure is not None  # noqa: S101 - only failures are asked
        return f"status {self.status}" if self.failure is Failure.STATUS else self.failure.value

    def fail(self, failure: Failure, said: str = "") -> None:
        self.failure, self.said = failure, said
