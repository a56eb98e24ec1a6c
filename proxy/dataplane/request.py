"""One request under way, as the steps of its walk fill it in."""

from dataclasses import dataclass, field

from proxy.policy.fields import Pair, RequestFields
from proxy.state.snapshot import Client, Key, Member, Route, Snapshot, Upstream


@dataclass(slots=True)
class Request:
    """What was asked, by whom, and where it goes. Bytes are as received."""

    snapshot: Snapshot
    method: bytes
    target: bytes  # origin form: path and query
    http11: bool
    keep_alive: bool  # what the caller wishes
    request_id: bytes
    received_s: float  # when its head was complete, by the proxy's clock
    fields: RequestFields
    peer: str
    client: Client | None = None
    client_credential: Pair | None = None  # the field that named the client: never forwarded
    candidates: list[Route] = field(default_factory=list)  # those that match but for the model, in their order
    route: Route | None = None
    member: Member | None = None
    key: Key | None = None
    ready_s: float = 0.0  # when all of it that is buffered had arrived

    @property
    def upstream(self) -> Upstream | None:
        return None if self.member is None else self.member.upstream
