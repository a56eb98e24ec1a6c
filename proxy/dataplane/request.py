"""One request under way: what was asked, where it goes, what came of it. Each step of its walk fills in its part."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from proxy.policy.canary import Arm
from proxy.policy.fields import Pair, RequestFields
from proxy.policy.limits import Limits
from proxy.policy.usage import Usage
from proxy.state.snapshot import Client, Route, Snapshot, Way

if TYPE_CHECKING:
    from proxy.dataplane.arms import Sample


class Local(Enum):
    """What is answered here and not by an upstream."""

    ALIVE = auto()  # /livez
    PREFLIGHT = auto()  # a browser's question whether a page may send a request
    MODELS = auto()  # the list of models, of several routes or of what a client may use


@dataclass(slots=True, eq=False)
class Head:
    """What a request's head says, and what follows from it by the configuration. Bytes are as received.

    An application sends nearly the same head again and again: requests whose heads say the same share one record.
    """

    snapshot: Snapshot
    method: bytes
    target: bytes  # origin form: path and query
    http11: bool
    keep_alive: bool  # what the caller wishes
    fields: RequestFields
    websocket: bool = False  # a tunnel is asked for
    local: Local | None = None
    cors: bytes = b""  # fields that every answer to it has, each with CRLF before it

    # Who may send it where.
    client: Client | None = None
    credentials: list[Pair] = field(default_factory=list)  # the caller's, without those that name it to us
    candidates: list[Route] = field(default_factory=list)  # those that match but for the model, in their order
    counts_tokens: bool = False  # is its body a text, whose length tells of tokens?
    metered: bool = False  # are the tokens of its answers counted, wherever it goes?
    max_body_bytes: int = 0  # what its route allows, or the most that any route it may take does
    buffer_bytes: int = 0  # how much of a body is kept before the request goes on
    goes_by_model: bool = False  # must the body's model be known to send it on?
    named: str | None = None  # the model that the target names

    # What upstreams keep, of which one made it.
    ids: tuple[bytes, ...] = ()  # in the target
    may_refer: bool = False  # may the body bring ids back?
    hands_out: bool = False  # does the answer hand one out?
    may_store: bool = False  # does it if the body says `store`?

    sent: dict[tuple[Route, Way, bool], bytes] = field(default_factory=dict)  # what of it is the same each time

    @property
    def held_client(self) -> Client | None:
        """The client, if it is held to some models."""
        return None if self.client is None or self.client.models is None else self.client


@dataclass(slots=True, eq=False)
class Trace:
    """Of a request that is recorded. Ids in hex."""

    trace_id: bytes
    span_id: bytes  # of the request's own span
    parent_id: bytes | None  # the caller's; None: the trace begins here
    flags: int
    model: str | None = None  # that is asked for, as far as that can be known


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A try that is recorded."""

    span_id: bytes
    number: int
    began_s: float
    model: str | None  # that the upstream is asked for


@dataclass(slots=True, eq=False)
class Request:
    """Times are seconds by the proxy's clock."""

    head: Head
    content_length: int | None
    request_id: bytes
    traceparent: bytes  # as it is passed on
    received_s: float  # when its head was complete
    peer: str

    trace: Trace | None = None  # None: it is not recorded
    attempt: Attempt | None = None  # that is under way, or was the last
    route: Route | None = None
    way: Way | None = None  # that it went at last
    arm: Arm | None = None  # of a canary, that it was drawn to
    copied_unit: str | None = None  # as which it was drawn to be copied
    copied: bool = False  # is a copy to go to the canary?
    sample: "Sample | None" = None  # what the canary hears of it
    looked_into: bool = False  # is the answer, for ids or tokens?
    metered: bool = False  # are its tokens counted?
    tokens: int = 0  # that it may use, estimated
    limits: Limits | None = None  # of its client, in which it counts until its end
    limit_fields: bytes = b""  # what is left of them, as answers tell it, each with CRLF before it
    tries: int = 0  # how many times an upstream was asked
    tried: tuple[str, ...] = ()  # the tries that failed: which upstream, and why

    # What came of it.
    status: int = 0  # of the answer that the caller got; 0 for none
    answer_fields: bytes = b""  # of that answer, where an upstream gave it
    relayed_bytes: int = 0  # of the answer's body, as framed
    chunks: int = 0  # of a stream: its events, for how they come in pieces is the network's doing
    usage: Usage | None = None  # as the answer tells it, if it was asked
    ready_s: float = 0.0  # all of it that is buffered had arrived
    waited_s: float = 0.0  # until it was within what a provider allows
    connecting_s: float = 0.0  # how long a new connection took; 0 where there was an idle one
    sent_s: float = 0.0
    first_byte_wait_s: float | None = None  # from sending to the answer's first byte
    overhead_s: float | None = None  # what the proxy itself added: from last byte in to sending, from first to relaying

    @property
    def has_body(self) -> bool:
        return self.content_length is not None or self.head.fields.chunked
