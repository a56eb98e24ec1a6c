"""A pool as the configuration describes it: who shares its requests, how, and what happens when one of them fails."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from proxy.model.quantities import Count, Duration, Name, Wait, shown
from proxy.model.record import Record

BALANCERS = ("least_work", "smooth_rr", "least_request", "peak_ewma", "prefix_hash")
RETRIED: tuple[Literal["connect", "reset", "timeout", 429, 502, 503, 504, 529], ...]
RETRIED = ("connect", "reset", "timeout", 429, 502, 503, 504, 529)


class Member(Record):
    """An upstream's part in a pool."""

    upstream: Name = Field(description="The upstream's name.")
    weight: Count = Field(
        1, ge=0, le=1000, description="Its share of the requests, against the other members'; 0: none."
    )
    model: str | None = Field(
        None, min_length=1, description="Replaces the model that the caller named. Absent: it stays as it is."
    )
    key: Name | None = Field(None, description="The only key of that upstream to use. Absent: any of them.")


class Outlier(Record):
    """When a member that fails is left out for a while."""

    consecutive_failures: Count = Field(
        5, ge=1, description="So many failures, with no success between them: no connection, no valid answer, 5xx, cut."
    )
    base_ejection_s: Wait = Field(
        "30s",
        alias="base_ejection",
        validate_default=True,
        description="For how long the first time; twice as long each time after, up to 5m or ten times this.",
    )
    max_ejected_percent: Count = Field(
        50, ge=0, le=100, description="No more of the pool's upstreams are left out at once, but always one may be."
    )


def _condition(value: object) -> object:
    if value not in RETRIED or isinstance(value, bool):
        right = ", ".join(map(str, RETRIED))
        raise ValueError(f"{shown(value)} is no failure that another try may mend: write one of {right}")
    return value


Condition = Annotated[Literal["connect", "reset", "timeout", 429, 502, 503, 504, 529], BeforeValidator(_condition)]


class Retry(Record):
    """What is tried again, elsewhere, as long as the caller has got nothing of an answer."""

    attempts: Count = Field(2, ge=1, le=10, description="Tries in all; 1: none is repeated.")
    on: tuple[Condition, ...] = Field(
        RETRIED,
        description="connect: no connection. reset: it ended before an answer began, or that was none. timeout: no "
        "first byte in time. After these two the upstream may be at work all the same, and then both bill it.",
    )
    budget_percent: Count = Field(
        20, ge=0, le=100, description="Requests on a further try are at most so many of the pool's, or 3."
    )
    max_wait_s: Duration = Field(
        "2s",
        alias="max_wait",
        validate_default=True,
        description="How long a 429 may be waited out where nobody else is left to ask.",
    )


class Hedge(Record):
    """Making a slow call once more, elsewhere, without giving up the first. Whoever answers first has the caller."""

    after_s: Wait = Field(
        alias="after",
        description="How long to wait for the first byte of an answer that is not streamed. Both calls are billed.",
    )


class Pool(Record):
    """Members that share the requests of the routes that lead here."""

    balance: Literal["least_work", "smooth_rr", "least_request", "peak_ewma", "prefix_hash"] = Field(
        "least_work",
        description="How the next member is chosen. least_work: by what is still to be done, in bytes. smooth_rr: in "
        "turn, by weight. least_request: by open requests. peak_ewma: by the wait for first bytes. prefix_hash: the "
        "same beginning of a prompt goes to the same member, for its cache.",
    )
    members: tuple[Member, ...] = Field(min_length=1, description="Who shares the requests, one at least.")
    slow_start_s: Duration = Field(
        "30s",
        alias="slow_start",
        validate_default=True,
        description="How long a member that joins or returns takes to its full share.",
    )
    outlier: Outlier = Field(default_factory=Outlier, description="When a member that fails is left out.")
    retry: Retry = Field(default_factory=Retry, description="What is tried again.")
    hedge: Hedge | None = Field(None, description="Calling twice where an answer is slow. Absent: never.")
    fallback: Name | None = Field(None, description="The pool to ask when nobody here is left.")

    @model_validator(mode="after")
    def _serves_somewhere(self) -> Self:
        if not any(member.weight for member in self.members):
            raise ValueError("every member has weight 0: give one of them a weight")
        return self
