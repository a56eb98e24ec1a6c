"""What is remembered of clients across restarts: the keys that were issued, as hashes, and when which one ends."""

from pathlib import Path

import msgspec

from proxy.controlplane.state_file import StateFile
from proxy.model.limit_settings import ClientLimits

REVOKED_S = 0.0  # from this moment a revoked key is refused: before all others


class IssuedKey(msgspec.Struct, frozen=True):
    key_hash: str
    issued_s: float  # seconds since 1970
    by: str  # the name of the admin token that asked for it


class IssuedClient(msgspec.Struct, frozen=True):
    """`models` and limits are those of a client that is not listed; a listed one has others."""

    name: str
    keys: list[IssuedKey] = []
    models: list[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    was_listed: bool = False  # when its first key was issued: its keys serve for as long as it is listed

    @property
    def limits(self) -> ClientLimits:
        return ClientLimits(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            concurrent=self.concurrent,
        )


class Issued(msgspec.Struct, frozen=True):
    clients: list[IssuedClient]
    ends: dict[str, float]  # from when a key is refused, by its hash: seconds since 1970


class ClientStore:
    """`clients.json` in `state_dir`. To load and to save waits for the disk."""

    def __init__(self, state_dir: Path) -> None:
        self._file = StateFile(state_dir / "clients.json", Issued)

    def load(self) -> Issued:
        """Raises StateUnreadable: without it a revoked key might serve."""
        return self._file.load() or Issued([], {})

    def save(self, issued: Issued) -> None:
        """Raises StateUnwritable or StateUnreadable; what was remembered before is whole."""
        self._file.save(issued)
