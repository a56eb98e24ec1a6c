"""Who may call: the clients that the configuration lists, and the keys that were issued, expired or revoked meanwhile.

A client has a name that stays, and keys, of which several may be valid side by side, so that clients rotate as well:
issue a second key, bring it to the application, let the first one end. A client that was never listed exists by its
issued keys alone, with models and limits of its own. Where it is listed, what the configuration says of it counts; and
keys that were issued to a listed client serve for as long as it is listed: who takes it out has shut it out.

What is known here of a key is its hash, and by that it is shut out, whether it was listed or issued, and under
whatever name: a reload does not bring it back. Of a key that is listed in the clear both hashes are shut out, so
neither does another pepper. Moments are the wall clock's; what was revoked does not depend on it.
"""

import math
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import msgspec

from proxy.controlplane.client_store import REVOKED_S, Issued, IssuedClient, IssuedKey
from proxy.controlplane.globs import compiled
from proxy.model.client_keys import digest, key_hash, new_key
from proxy.model.client_settings import Client as Listed
from proxy.model.limit_settings import ClientLimits
from proxy.model.quantities import moment_text
from proxy.model.settings import Settings
from proxy.state.live import Registry
from proxy.state.snapshot import Client, ClientKey, ClientKeys

LOOK_EVERY_S = 60.0  # whether a key has ended; sooner where the next end is known, but wall clocks are set


class ClientNotFound(LookupError):
    """The message says what is known."""


class ClientRefused(ValueError):
    """What cannot be done. The message says why, and what can."""


class ClientKeyStatus(NamedTuple):
    """One key of one client."""

    client: str
    key_hash: str
    is_listed: bool
    issued: IssuedKey | None  # None: it was not issued here
    ends_s: float | None  # from when it is refused, in seconds since 1970; None: never
    is_out: bool = False  # it was issued to a listed client who is listed no more
    plain_hash: str | None = None  # the other one of a key that is listed in the clear, where there is a pepper

    @property
    def fingerprint(self) -> str:
        return self.key_hash.partition(":")[2][:8]

    def state(self, now_s: float) -> str:
        """active, expired, revoked; or unlisted, where its client is listed no more."""
        if self.ends_s == REVOKED_S:
            return "revoked"
        if self.is_out:
            return "unlisted"
        return "active" if self.ends_s is None or self.ends_s > now_s else "expired"


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
        self._of: Settings | None = None  # whose clients the next three are
        self._listed: list[ClientKeyStatus] = []
        self._records: dict[str, Client] = {}
        self._made: ClientKeys | None = None
        self._made_s = -math.inf  # when
        self._next_end_s = math.inf  # of the keys that were valid then
        self.on_change: Callable[[ClientKeys | None], None] = lambda in_force: None
        self.deadline_s = 0.0  # when to look whether a key has ended

    # --- what is in force ----------------------------------------------------------------------------------------

    def in_force(self, settings: Settings) -> ClientKeys | None:
        """Whose key is which; None: anyone may call.

        That is so where nobody is listed and nobody was ever issued a key: revoking the last one opens no door.
        """
        if not (settings.clients or self._issued):
            return None
        self._look_at(settings)
        if self._made is None:
            self._made = self._make(settings)
        return self._made

    def _look_at(self, settings: Settings) -> None:
        """Work out once what of the listed clients stays the same until the next settings: there may be thousands."""
        if self._of is not settings:
            self._of, self._made, self._records = settings, None, {}
            self._listed = list({key.key_hash: key for key in _listed(settings)}.values())

    def _make(self, settings: Settings) -> ClientKeys:
        self._made_s, self._next_end_s = self._wall_clock(), math.inf
        listed = {client.name: client for client in settings.clients}
        by_digest: dict[bytes, ClientKey] = {}
        for key in self._keys(settings):
            if key.state(self._made_s) != "active":
                continue
            if key.ends_s is not None:
                self._next_end_s = min(self._next_end_s, key.ends_s)
            if key.client not in self._records:
                self._records[key.client] = self._record(key.client, listed.get(key.client))
            made = digest_in(key.key_hash)
            by_digest[made] = ClientKey(made, self._records[key.client])
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
        self._registry.forget_clients_except(self.names())

    def expired(self, now_s: float) -> None:
        """It is time to look whether a key has ended, or the wall clock was set back to before one had."""
        wall_s = self._wall_clock()
        if self._next_end_s <= wall_s or wall_s < self._made_s:
            self._changed()
        self.deadline_s = now_s + min(LOOK_EVERY_S, max(0.0, self._next_end_s - wall_s))

    def _changed(self) -> None:
        self._made, self.deadline_s = None, 0.0
        self.on_change(self.in_force(self._settings))

    # --- who there is --------------------------------------------------------------------------------------------

    def names(self, settings: Settings | None = None) -> Collection[str]:
        """All clients, whether they have a valid key or not. `settings`: if not those in force."""
        listed = (client.name for client in (settings or self._settings).clients)
        return dict.fromkeys((*listed, *self._issued))

    def rules(self) -> Iterator[tuple[str, bool, tuple[str, ...] | None, ClientLimits]]:
        """Each client by name: is it listed, which models may it use (None: all), and how much?"""
        listed = {client.name: client for client in self._settings.clients}
        for name in sorted(self.names()):
            yield (name, name in listed, *self._rules(name, listed.get(name)))

    def all_keys(self) -> Iterator[ClientKeyStatus]:
        return self._keys(self._settings)

    def _listing(self, name: str) -> Listed | None:
        return next((client for client in self._settings.clients if client.name == name), None)

    def _keys(self, settings: Settings) -> Iterator[ClientKeyStatus]:
        """Each key once: where one that was issued is listed as well, the list says whose it is."""
        self._look_at(settings)
        issued = {key.key_hash: (client, key) for client in self._issued.values() for key in client.keys}
        for listed in self._listed:
            _, known = issued.pop(listed.key_hash, (None, None))
            ends_s = self._end_of(listed)
            same = known is None and ends_s == listed.ends_s
            yield listed if same else listed._replace(issued=known, ends_s=ends_s)
        expires = {client.name: client.expires_s for client in settings.clients}
        for client, key in issued.values():
            is_out = client.was_listed and client.name not in expires
            status = ClientKeyStatus(client.name, key.key_hash, False, key, expires.get(client.name), is_out)
            yield status._replace(ends_s=self._end_of(status))

    def _end_of(self, key: ClientKeyStatus) -> float | None:
        """When it ends, or its client does."""
        told_s = self._ends.get(key.key_hash)
        if key.plain_hash is not None and told_s != REVOKED_S:
            told_s = self._ends.get(key.plain_hash, told_s)  # which each change sets, whatever the pepper was
        return min((end for end in (key.ends_s, told_s) if end is not None), default=None)

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
        self._check_end(name, ends_s)
        before = self._before(name, models, limits)
        pepper, now_s = _pepper(self._settings), self._wall_clock()
        text = new_key(random_bytes)
        kept = key_hash(digest(text.encode(), pepper), pepper is not None)
        key = IssuedKey(kept, now_s, by)
        self._issued[name] = msgspec.structs.replace(before, keys=[*before.keys, key])
        if ends_s is not None:
            self._ends[kept] = ends_s
        self._changed()
        return text, self._one(name, kept)

    def _before(self, name: str, models: list[str] | None, limits: ClientLimits | None) -> IssuedClient:
        """What is known of a client who is to be issued a key. Raises ClientRefused."""
        issued, listed = self._issued.get(name), self._listing(name)
        out = issued is not None and issued.was_listed and listed is None
        if out and any(self._ends.get(key.key_hash) != REVOKED_S for key in issued.keys):  # type: ignore[union-attr]
            raise ClientRefused(f"the client {name!r} is listed no more: list it, or revoke its keys to begin anew")
        if (issued or listed) and not out:
            if not (models is None and limits is None):
                raise ClientRefused(f"the client {name!r} has models and limits already: leave them out")
            return issued or IssuedClient(name, was_listed=True)
        limits = limits or ClientLimits()
        return IssuedClient(
            name,
            keys=[] if issued is None else issued.keys,
            models=models,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            concurrent=limits.concurrent,
        )

    def _check_end(self, name: str, ends_s: float | None) -> None:
        """Raises ClientRefused for what has passed, and for what is later than the configuration allows."""
        listed, now_s = self._listing(name), self._wall_clock()
        last_s = math.inf if listed is None or listed.expires_s is None else listed.expires_s
        if last_s <= now_s or (ends_s is not None and ends_s > last_s):
            raise ClientRefused(f"the client {name!r} is listed with expires: {moment_text(last_s)}: change it there")
        if ends_s is not None and ends_s <= now_s:
            raise ClientRefused("that moment has passed: choose a later one; to end a key now, revoke it")

    def expire(self, name: str, fingerprint: str, at_s: float) -> ClientKeyStatus:
        """Refuse this key of a client from that moment on. Raises ClientNotFound and ClientRefused."""
        found = self._found(name, fingerprint)
        self._check_end(name, at_s)
        if any(key.ends_s == REVOKED_S for key in found):
            raise ClientRefused(f"the key {fingerprint!r} of {name!r} was revoked: issue another one")
        self._end(found, at_s)
        return self._one(name, found[0].key_hash)

    def revoke(self, name: str, fingerprint: str = "") -> list[ClientKeyStatus]:
        """Refuse this key of a client, now and for ever; all of its keys if no fingerprint is given.

        Raises ClientNotFound.
        """
        found = self._found(name, fingerprint)
        self._end(found, REVOKED_S)
        return [key._replace(ends_s=REVOKED_S) for key in found]

    def _end(self, keys: list[ClientKeyStatus], at_s: float) -> None:
        for key in keys:
            self._ends[key.key_hash] = self._ends[key.plain_hash or key.key_hash] = at_s
        self._changed()

    def _found(self, name: str, fingerprint: str) -> list[ClientKeyStatus]:
        keys = [key for key in self._keys(self._settings) if key.client == name]
        if not keys:
            raise ClientNotFound(f"no client is called {name!r}")
        found = [key for key in keys if fingerprint in ("", key.fingerprint)]
        if not found:
            there = ", ".join(key.fingerprint for key in keys)
            raise ClientNotFound(f"no key of {name!r} has the fingerprint {fingerprint!r}: there are {there}")
        return found

    def _one(self, name: str, key_hash: str) -> ClientKeyStatus:
        return next(key for key in self._found(name, "") if key.key_hash == key_hash)

    def issued(self) -> Issued:
        """What is to be remembered now."""
        return Issued(list(self._issued.values()), dict(self._ends))


def digest_in(key_hash: str) -> bytes:
    """The digest in a valid key hash."""
    return bytes.fromhex(key_hash.partition(":")[2])


def _pepper(settings: Settings) -> bytes | None:
    return None if settings.client_pepper is None else settings.client_pepper.reveal().encode()


def _listed(settings: Settings) -> Iterator[ClientKeyStatus]:
    pepper = _pepper(settings)
    for client in settings.clients:
        for secret in client.keys:
            text = secret.reveal().encode()
            plain = key_hash(digest(text, None), peppered=False)
            known = plain if pepper is None else key_hash(digest(text, pepper), peppered=True)
            yield ClientKeyStatus(client.name, known, True, None, client.expires_s, plain_hash=plain)
        for each in client.key_hashes:
            yield ClientKeyStatus(client.name, each, True, None, client.expires_s)
