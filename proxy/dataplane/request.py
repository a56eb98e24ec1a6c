"""One request under way: what was asked, where it goes, what came of it. Each step of its walk fills in its part."""

from dataclasses import dataclass, field

from proxy.policy.fields import RequestFields
from proxy.state.snapshot import Client, Key, Member, Route, Snapshot


@dataclass(slots=True)
class Request:
    """Bytes are as received; times are seconds by the proxy's clock."""

    snapshot: Snapshot
    method: bytes
    target: bytes  # origin form: path and query
    http11: bool
    keep_alive: bool  # what the caller wishes
    request_id: bytes
    received_s: float  # when its head was complete
    fields: RequestFields
    peer: str

    # Who may send it where.
    client: Client | None = None
    candidates: list[Route] = field(default_factory=list)  # those that match but for the model, in their order
    route: Route | None = None
    member: Member | None = None
    key: Key | None = None

    # What came of it.
    status: int = 0  # of the answer that the caller got; 0 for none
    answer_fields: bytes = b""  # of that answer, where an upstream gave it
    relayed_bytes: int = 0  # of the answer's body, as framed
    ready_s: float = 0.0  # all of it that is buffered had arrived
    connecting_s: float = 0.0  # how long a new connection took; 0 where there was an idle one
    sent_s: float = 0.0
    first_byte_s: float = 0.0  # of the answer; 0 where none came
    relayed_s: float = 0.0  # the answer's first bytes were written to the caller

    @property
    def first_byte_wait_s(self) -> float | None:
        """From sending to the answer's first byte."""
        return self.first_byte_s - self.sent_s if self.first_byte_s else None

    @property
    def overhead_s(self) -> float | None:
        """What the proxy itself added: from the request's last byte to sending, from the answer's first to relaying."""
        if not self.relayed_s:
            return None
        return self.sent_s - self.ready_s - self.connecting_s + self.relayed_s - self.first_byte_s
