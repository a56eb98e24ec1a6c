"""Who may call: the clients that the configuration lists, and the keys that were issued, expired or revoked meanwhile.

A client has a name that stays, and keys, of which several may be valid side by side, so that clients rotate as well:
issue a second key, bring it to the application, let the first one end. A client that is not listed exists by its issued
keys alone. What is known here of a key is its hash, and by that it is shut out, whether it was listed or issued: a
reload does not bring it back.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from proxy.controlplane.client_store import REVOKED_S, Issued, IssuedClient, IssuedKey
from proxy.controlplane.globs import compiled
from proxy.model.client_keys import digest, key_hash, new_key, parse_key_hash
from proxy.model.client_settings import Client as Listed
from proxy.model.limit_settings import ClientLimits
from proxy.model.settings import Settings
from proxy.state.live import Registry
from proxy.state.snapshot import Client, ClientKey, ClientKeys

LOOK_EVERY_S = 60.0  # whether a key has ended; sooner where the next end is known, but wall clocks are set


class ClientNotFound(LookupError):
    """The message says what is known."""


class ClientRefused(ValueError):
    """What cannot be done. The message says why."""


class ClientKeyStatus(NamedTuple):
    """One key of one client."""

    client: str
    key_hash: str
    issued: IssuedKey | None  # None: it is listed
    ends_s: float | None  # from when it is refused, in seconds since 1970; None: never

    @property
    def fingerprint(self) -> str:
        """The first digits of its hash."""
        return self.key_hash.partition(":")[2][:8]

    def is_over(self, now_s: float) -> bool:
        return self.ends_s is not None and self.ends_s <= now_s


class Clients:
    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        wall_clock: Callable[[], float],
        issued: Issued | None = None,
    ) -> None:
        self._settings, self._registry, self._wall_clock = settings, registry, wall_clock
        self._issued = {client.name: client for client in issued.clients} if issued else {}
        self._ends = dict(issued.ends) if issued else {}
        self._made: tuple[Settings, ClientKeys] | None = None
        self._next_end_s = math.inf  # of those that were made
        self.on_change: Callable[[], None] = lambda: None
        self.deadline_s = 0.0  # when to look whether a key has ended

    # --- what is in force ----------------------------------------------------------------------------------------

    def in_force(self, settings: Settings) -> ClientKeys | None:
        """Whose key is which; None: anyone may call.

        That is so where nobody is listed and nobody was ever issued a key: revoking the last one opens no door.
        """
        if not (settings.clients or self._issued):
            return None
        if self._made is None or self._made[0] is not settings:
            self._made = settings, self._make(settings)
        return self._made[1]

    def _make(self, settings: Settings) -> ClientKeys:
        now_s, records = self._wall_clock(), dict[str, Client]()
        by_digest: dict[bytes, ClientKey] = {}
        listed = {client.name: client for client in settings.clients}
        self._next_end_s = math.inf
        for key in self._keys(settings):
            if key.is_over(now_s):
                continue
            self._next_end_s = min(self._next_end_s, math.inf if key.ends_s is None else key.ends_s)
            if key.client not in records:
                records[key.client] = self._record(key.client, listed.get(key.client))
            made, _ = parse_key_hash(key.key_hash)
            by_digest[made] = ClientKey(made, records[key.client])
        pepper = _pepper(settings)
        return ClientKeys(by_digest, (None,) if pepper is None else (pepper, None))

    def _record(self, name: str, listed: Listed | None) -> Client:
        models, limits = self._rules(name, listed)
        live = self._registry.client(name)
        live.limits.reconfigured(
            limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent, self._registry.clock()
        )
        return Client(
            name=name,
            models=None if models is None else compiled(models),
            live=live,
            bounded=limits != ClientLimits(),
            limited=live.limits.requests is not None or live.limits.tokens is not None,
            metered=live.limits.tokens is not None,
        )

    def _rules(self, name: str, listed: Listed | None) -> tuple[tuple[str, ...] | None, ClientLimits]:
        if listed is not None:
            return listed.models, listed.limits
        issued = self._issued[name]
        return None if issued.models is None else tuple(issued.models), issued.limits

    def take(self, settings: Settings) -> None:
        """These settings are in force now."""
        self._settings = settings
        self.deadline_s = 0.0

    def expired(self, now_s: float) -> None:
        """It is time to look whether a key has ended."""
        wall_s = self._wall_clock()
        if self._next_end_s <= wall_s:
            self._changed()
        ahead_s = self._next_end_s - wall_s
        self.deadline_s = now_s + min(LOOK_EVERY_S, ahead_s) if ahead_s < math.inf else math.inf

    def _changed(self) -> None:
        self._made, self.deadline_s = None, 0.0
        self.on_change()

    # --- keys ----------------------------------------------------------------------------------------------------

    def keys(self) -> list[ClientKeyStatus]:
        return list(self._keys(self._settings))

    def _keys(self, settings: Settings) -> Iterator[ClientKeyStatus]:
        pepper = _pepper(settings)
        for client in settings.clients:
            clear = (key_hash(digest(key.reveal().encode(), pepper), pepper is not None) for key in client.keys)
            for each in (*clear, *client.key_hashes):
                yield ClientKeyStatus(client.name, each, None, self._end_of(each, client.expires_s))
        for issued in self._issued.values():
            for key in issued.keys:
                yield ClientKeyStatus(issued.name, key.key_hash, key, self._end_of(key.key_hash, None))

    def _end_of(self, key_hash: str, listed_s: float | None) -> float | None:
        ends = [end for end in (listed_s, self._ends.get(key_hash)) if end is not None]
        return min(ends, default=None)

    # --- what is done to them ------------------------------------------------------------------------------------

    def issue(
        self,
        name: str,
        random_bytes: bytes,
        by: str,
        *,
        ends_s: float | None = None,
        models: list[str] | None = None,
        limits: ClientLimits | None = None,
    ) -> tuple[str, ClientKeyStatus]:
        """A new key of this client, who may be new as well. Returns it, which nobody can tell again.

        `models` and `limits` are for a client that is new. Raises ClientRefused.
        """
        if self.in_force(self._settings) is None:
            raise ClientRefused("no clients are listed, so anyone may call without a key: list the first one")
        known = name in self._issued or any(client.name == name for client in self._settings.clients)
        if known and not (models is None and limits is None):
            raise ClientRefused(f"the client {name!r} has models and limits already: leave them out")
        if ends_s is not None and ends_s <= self._wall_clock():
            raise ClientRefused("the key would have expired already: choose a later moment")
        pepper = _pepper(self._settings)
        text = new_key(random_bytes)
        kept = key_hash(digest(text.encode(), pepper), pepper is not None)
        key = IssuedKey(kept, self._wall_clock(), by)
        before = self._issued.get(name) or _issued_client(name, models, limits)
        self._issued[name] = msgspec.structs.replace(before, keys=[*before.keys, key])
        if ends_s is not None:
            self._ends[kept] = ends_s
        self._changed()
        return text, ClientKeyStatus(name, kept, key, ends_s)

    def end(self, name: str, fingerprint: str, at_s: float) -> list[ClientKeyStatus]:
        """Refuse this key of a client from that moment on, REVOKED_S: now and for ever; all of its keys if the
        fingerprint is empty. Returns those that were changed.

        Raises ClientNotFound, and ClientRefused where one was revoked before.
        """
        keys = [key for key in self._keys(self._settings) if key.client == name]
        if not keys:
            raise ClientNotFound(f"no client is called {name!r}")
        found = [key for key in keys if not fingerprint or key.fingerprint == fingerprint]
        if not found:
            there = ", ".join(key.fingerprint for key in keys)
            raise ClientNotFound(f"no key of {name!r} has the fingerprint {fingerprint!r}: there are {there}")
        if at_s > REVOKED_S:
            found = [key for key in found if fingerprint or key.ends_s != REVOKED_S]
            if any(key.ends_s == REVOKED_S for key in found):
                raise ClientRefused(f"the key {fingerprint!r} of {name!r} was revoked: issue another one")
        for key in found:
            self._ends[key.key_hash] = at_s
        self._changed()
        return [key._replace(ends_s=at_s) for key in found]

    def issued(self) -> Issued:
        """What is to be remembered now."""
        return Issued(list(self._issued.values()), dict(self._ends))


def _pepper(settings: Settings) -> bytes | None:
    return None if settings.client_pepper is None else settings.client_pepper.reveal().encode()


def _issued_client(name: str, models: list[str] | None, limits: ClientLimits | None) -> IssuedClient:
    limits = limits or ClientLimits()
    return IssuedClient(
        name=name,
        models=models,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent=limits.concurrent,
    )
