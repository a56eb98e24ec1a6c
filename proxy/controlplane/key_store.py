"""What is remembered of keys across restarts: values that commands brought, sealed, and what was revoked."""

from pathlib import Path

import msgspec

from proxy.controlplane.keyring import Keyring
from proxy.controlplane.state_file import StateFile
from proxy.controlplane.vault import Unreadable, Vault
from proxy.model.secret import Secret
from proxy.model.settings import Settings
from proxy.obs.log import Log


class Kept(msgspec.Struct, frozen=True):
    """A value that a command brought. It gives way when the configuration has another one than it had then."""

    upstream: str
    key: str
    configured: str  # a fingerprint
    sealed: str


class Keys(msgspec.Struct, frozen=True):
    revoked: list[str]  # fingerprints
    kept: list[Kept]


class KeyStore:
    """`keys.json` in `state_dir`. To load and to save waits for the disk."""

    def __init__(self, state_dir: Path, vault: Vault | None, log: Log) -> None:
        """`vault`: what values are sealed with; None: none can be kept."""
        self.vault = vault
        self._file, self._log = StateFile(state_dir / "keys.json", Keys), log

    def restore(self, keyring: Keyring, settings: Settings) -> None:
        """Before the configuration is taken: what it says may have been revoked, or replaced by a command.

        Raises StateUnreadable: without it a revoked key might serve.
        """
        keys = self._file.load()
        if keys is None:
            return
        keyring.revoked |= set(keys.revoked)
        for kept in keys.kept:
            upstream = settings.upstreams.get(kept.upstream)
            key = next((key for key in upstream.keys if key.name == kept.key), None) if upstream else None
            if key is None or key.value.fingerprint != kept.configured:
                continue
            value = self._opened(kept)
            if value is not None:
                keyring.restore(kept.upstream, key, value)

    def _opened(self, kept: Kept) -> Secret | None:
        """None, and a word in the log, where it cannot be opened: then the configured value serves."""
        reason = "there is no master key"
        if self.vault is not None:
            try:
                return Secret(self.vault.unseal(kept.sealed, _purpose(kept.upstream, kept.key)))
            except Unreadable as error:
                reason = str(error)
        self._log.error("kept_key_unreadable", key=f"{kept.upstream}/{kept.key}", reason=reason)
        return None

    def now(self, keyring: Keyring) -> Keys:
        """What is to be remembered now."""
        kept = [
            Kept(
                ring.upstream,
                ring.name,
                ring.configured,
                self.vault.seal(ring.current.secret.reveal(), _purpose(ring.upstream, ring.name)),
            )
            for ring in keyring.rings.values()
            if ring.current.kept and self.vault is not None
        ]
        return Keys(sorted(keyring.revoked), kept)

    def save(self, keys: Keys) -> None:
        """Raises StateUnwritable or StateUnreadable; what was remembered before is whole."""
        self._file.save(keys)


def _purpose(upstream: str, key: str) -> str:
    return f"key:{upstream}/{key}"
