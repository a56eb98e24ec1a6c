"""What the process above and its workers say to each other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from proxy.model.secret import Secret
from proxy.model.settings import Settings
from proxy.policy.canary import Standing
from proxy.policy.canary.counts import Harvest
from proxy.state.makers import Maker
from proxy.workers.counts import Change, Place

KeyPlace = tuple[str, str, str]  # upstream, key, fingerprint of its value


class ClientRules(NamedTuple):
    models: re.Pattern[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent: int | None


@dataclass(frozen=True, slots=True)
class ClientsInForce:
    """Whose key is it? `digests` name the client."""

    rules: Mapping[str, ClientRules]
    digests: Mapping[bytes, str]
    peppers: tuple[bytes | None, ...]


# --- said to workers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that a snapshot is built from."""

    generation: int
    settings: Settings
    addresses: Mapping[str, tuple[str, ...]]
    keys: Mapping[tuple[str, str], list[tuple[Secret, int]]]  # of an upstream's key: the values in force, and weights
    clients: ClientsInForce | None
    canaries: Mapping[str, Standing]
    rows: Mapping[str, int]  # of what is in shared memory


@dataclass(frozen=True, slots=True)
class Clients:
    """Who may call, from now on."""

    clients: ClientsInForce | None
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Standings:
    canaries: Mapping[str, Standing]


@dataclass(frozen=True, slots=True)
class Ask:
    """Tell what was counted; and, of these canaries, what has closed by then."""

    number: int
    canaries: tuple[str, ...] = ()
    now_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cut:
    """End what is under way with one of these keys, or of clients who showed one of these."""

    number: int
    keys: frozenset[KeyPlace] = frozenset()
    digests: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Drain:
    pre_drain_s: float
    timeout_s: float


# --- said by workers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    generation: int
    problem: str = ""  # why it is not in force


@dataclass(frozen=True, slots=True)
class Counts:
    """`number`: of the question, 0 where nobody asked."""

    number: int
    changes: list[Change]
    connections: int
    harvests: Mapping[str, Harvest]


@dataclass(frozen=True, slots=True)
class WasCut:
    number: int
    cut: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Its last words."""

    cut: int  # requests that were still under way


# --- said by both ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notes:
    """What became of keys, accounts, targets and members."""

    notes: Mapping[Place, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """Who made what: calls on it may come to any worker."""

    ids: list[tuple[bytes, Maker]]
