"""The certificates that listeners show, and the authorities that vouch for callers: read, and renewed while they serve.

A context that serves is never changed. Authorities can be added to it but not taken out; a certificate without its key
leaves it half changed; callers resume sessions without showing their certificates again. So new files make a context
of their own, all or nothing, which handshakes begin with from then on. Open connections keep theirs.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path as FilePath
from typing import Self

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import InvalidVersion, load_pem_x509_certificate

from proxy.controlplane.problems import ConfigInvalid, Path, Problem
from proxy.controlplane.secrets import read_private
from proxy.model.settings import ListenerTls, Settings
from proxy.obs.log import Log
from proxy.state.listening import Wanted

DAY_S = 24 * 3600.0
NEAR_S = 14 * DAY_S  # to its expiry: from then on each reading of a certificate warns


class CertificateStatus(msgspec.Struct, frozen=True):
    expires: str  # RFC 3339
    remark: str  # what an operator should do something about, or nothing


class Handshakes(ssl.SSLContext):
    """What a server is given for a context: each handshake is by `newest`."""

    newest: ssl.SSLContext

    @classmethod
    def by(cls, context: ssl.SSLContext) -> Self:
        handshakes = cls(ssl.PROTOCOL_TLS_SERVER)
        handshakes.newest = context
        return handshakes

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Event loops begin each handshake with it."""
        return self.newest.wrap_bio(incoming, outgoing, server_side, server_hostname, session)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the files of a listener held."""

    context: ssl.SSLContext
    expires_s: float  # after 1970 began
    digest: bytes
    fingerprint: bytes  # the SHA-256 of what a caller is shown

    @property
    def expires(self) -> str:
        return datetime.fromtimestamp(self.expires_s, UTC).isoformat().replace("+00:00", "Z")

    def remark(self, now_s: float) -> str:
        """Whether it ends soon, if so."""
        left_s = self.expires_s - now_s
        if left_s <= 0:
            return f"expired at {self.expires}: callers refuse it; renew it"
        return f"expires at {self.expires}, in {left_s / DAY_S:.0f} days: renew it" if left_s <= NEAR_S else ""


def read_all(settings: Settings) -> dict[Path, Certificate]:
    """By the place of its `tls`. Raises ConfigInvalid with the problems of all."""
    return _read({place: tls for place, (_, _, tls) in _with_tls(settings).items()})


_Key = tuple[str, ...]  # of a listener, wherever in the list it stands


def expiring(settings: Settings, now_s: float) -> tuple[Problem, ...]:
    """Warnings of certificates that end soon. Raises ConfigInvalid."""
    found = read_all(settings).items()
    return tuple(
        Problem((*place, "cert"), None, remark) for place, certificate in found if (remark := certificate.remark(now_s))
    )


def _with_tls(settings: Settings) -> dict[Path, tuple[_Key, str, ListenerTls]]:
    """The listeners that have certificates: by the place of their `tls`, their addresses with it."""
    listeners: dict[Path, tuple[_Key, str, ListenerTls]] = {}
    for index, listener in enumerate(settings.listen):
        if listener.tls is not None:
            address = str(listener.address)
            listeners["listen", index, "tls"] = (address,), address, listener.tls
    if settings.admin.tls is not None:
        address = str(settings.admin.listen)
        listeners["admin", "tls"] = ("admin", address), address, settings.admin.tls
    return listeners


def _read(places: dict[Path, ListenerTls]) -> dict[Path, Certificate]:
    found: dict[Path, Certificate] = {}
    problems: list[Problem] = []
    for place, tls in places.items():
        try:
            found[place] = read(place, tls)
        except ConfigInvalid as invalid:
            problems += invalid.problems
    if problems:
        raise ConfigInvalid(tuple(problems))
    return found


def read(place: Path, tls: ListenerTls) -> Certificate:
    """Raises ConfigInvalid. Files that change meanwhile are read again by whoever watches them."""
    content = _content(place, tls)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.cert, tls.key, _refuse_passphrase)
        shown = load_pem_x509_certificate(content["cert"])
        expires = shown.not_valid_after_utc
    except (OSError, ValueError, InvalidVersion) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        message = (
            f"the certificate and key cannot be used together ({why}): name PEM files that were made for each other"
        )
        raise ConfigInvalid((Problem(place, None, message),)) from None
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except OSError:
            message = f"{tls.client_ca} holds no PEM certificates of authorities"
            raise ConfigInvalid((Problem((*place, "client_ca"), None, message),)) from None
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority below another may stand there alone
    digests = [name.encode() + sha256(each).digest() for name, each in content.items()]
    return Certificate(context, expires.timestamp(), b"".join(digests), shown.fingerprint(SHA256()))


def _content(place: Path, tls: ListenerTls) -> dict[str, bytes]:
    """Of each file, by its field."""
    content: dict[str, bytes] = {}
    for name, file in (("cert", tls.cert), ("key", tls.key), ("client_ca", tls.client_ca)):
        try:
            if file is not None:
                content[name] = read_private(file) if name == "key" else file.read_bytes()
        except (OSError, ValueError) as error:
            unreadable = f"{file} cannot be read: {(getattr(error, 'strerror', None) or 'no reason given').lower()}"
            message = unreadable if isinstance(error, OSError) else str(error)
            raise ConfigInvalid((Problem((*place, name), None, message),)) from None
    return content


def _refuse_passphrase() -> str:
    """Left to itself, OpenSSL asks the terminal for the passphrase of a key, and waits."""
    raise OSError("the key has a passphrase")


@dataclass(slots=True)
class _Shown:
    """The certificate of one listener."""

    key: _Key
    place: Path
    listener: str
    tls: ListenerTls
    certificate: Certificate
    handshakes: Handshakes
    refused: str = ""  # why what is in the files now is not what it shows
    warned: str = ""  # that it `expires`, or is `expired`


@dataclass(frozen=True, slots=True)
class Prepared:
    """What other settings want shown. `others`: what those that show something already are to show in its place."""

    shown: dict[Path, _Shown]
    others: dict[Path, tuple[ListenerTls, Certificate]]

    def wanted(self, settings: Settings) -> tuple[Wanted, ...]:
        """The addresses where these settings have callers served."""
        return tuple(self._wanted(index, settings) for index, _ in enumerate(settings.listen))

    def _wanted(self, index: int, settings: Settings) -> Wanted:
        shown, address = self.shown.get(("listen", index, "tls")), settings.listen[index].address
        if shown is None:
            return Wanted(address, None)
        limits = settings.downstream
        return Wanted(address, shown.handshakes, limits.head_timeout_s, limits.stall_timeout_s)


def _new(place: Path, key: _Key, listener: str, tls: ListenerTls, certificate: Certificate) -> _Shown:
    return _Shown(key, place, listener, tls, certificate, Handshakes.by(certificate.context))


class Certificates:
    """Those of all listeners."""

    def __init__(self, settings: Settings, wall_clock: Callable[[], float], log: Log) -> None:
        """Raises ConfigInvalid."""
        self._clock, self._log = wall_clock, log
        self._one_at_a_time = asyncio.Lock()  # who read first must not be the last to say what is there
        found, listeners = read_all(settings), _with_tls(settings)
        self._shown = {place: _new(place, *listeners[place], found[place]) for place in found}
        for shown in self._shown.values():
            self._warn(shown)

    def handshakes(self, *place: str | int) -> Handshakes | None:
        """For the listener at this place; None if that speaks plain HTTP."""
        shown = self._shown.get((*place, "tls"))
        return None if shown is None else shown.handshakes

    def fingerprint(self, address: str) -> bytes | None:
        """Of the certificate that callers are shown at this address; None if that speaks plain HTTP."""
        found = [each.certificate for each in self._shown.values() if each.key == (address,)]
        return found[0].fingerprint if found else None

    def wanted(self, settings: Settings) -> tuple[Wanted, ...]:
        """The addresses where the settings in force have callers served."""
        return Prepared(self._shown, {}).wanted(settings)

    @property
    def files(self) -> frozenset[FilePath]:
        """What to watch."""
        named = [(shown.tls.cert, shown.tls.key, shown.tls.client_ca) for shown in self._shown.values()]
        return frozenset(file.absolute() for files in named for file in files if file is not None)

    def expiries(self) -> Iterator[tuple[str, float]]:
        """By listener, in seconds after 1970 began."""
        for shown in self._shown.values():
            yield shown.listener, shown.certificate.expires_s

    def status(self) -> dict[str, CertificateStatus]:
        """By listener."""
        return {
            shown.listener: CertificateStatus(shown.certificate.expires, self._remark(shown))
            for shown in self._shown.values()
        }

    def _remark(self, shown: _Shown) -> str:
        return f"not renewed: {shown.refused}" if shown.refused else shown.certificate.remark(self._clock())

    async def prepare(self, settings: Settings) -> Prepared:
        """Read what these settings want shown and is not shown yet. Raises ConfigInvalid where it cannot be used."""
        known = {shown.key: shown for shown in self._shown.values()}
        listeners = _with_tls(settings)
        if (at := ("admin", "tls")) in listeners and listeners[at][0] not in known:
            del listeners[at]  # it is not opened before a restart
        others = {
            place: tls
            for place, (key, _, tls) in listeners.items()
            if (shown := known.get(key)) is None or shown.tls != tls
        }
        found = await asyncio.to_thread(_read, others)
        prepared = {
            place: known.get(listener[0]) or _new(place, *listener, found[place])
            for place, listener in listeners.items()
        }
        if (admin := self._shown.get(("admin", "tls"))) is not None:
            prepared.setdefault(("admin", "tls"), admin)
        return Prepared(prepared, {place: (others[place], certificate) for place, certificate in found.items()})

    def use(self, prepared: Prepared) -> None:
        """Show these from now on."""
        self._shown = prepared.shown
        for place, shown in self._shown.items():
            shown.place = place
        for place, (tls, certificate) in prepared.others.items():
            self._shown[place].tls = tls
            self._take(self._shown[place], certificate)

    async def renew(self) -> None:
        """Take what the files hold now. Where that is of no use, what they held before goes on serving."""
        async with self._one_at_a_time:
            for shown in tuple(self._shown.values()):
                await self._renew(shown, shown.tls)

    async def _renew(self, shown: _Shown, tls: ListenerTls) -> None:
        try:
            found = await asyncio.to_thread(read, shown.place, tls)
        except ConfigInvalid as invalid:
            if shown.tls is tls:
                self._refuse(shown, str(invalid))
        else:
            if shown.tls is tls:  # and no reload has named others meanwhile
                self._take(shown, found)

    def _take(self, shown: _Shown, found: Certificate) -> None:
        shown.refused = ""
        if found.digest != shown.certificate.digest:
            shown.certificate, shown.handshakes.newest, shown.warned = found, found.context, ""
            self._log.info("certificate_renewed", listener=shown.listener, expires=found.expires)
        self._warn(shown)

    def _refuse(self, shown: _Shown, why: str) -> None:
        if why != shown.refused:  # files change in several steps, and are looked at again and again
            shown.refused = why
            self._log.warning("certificate_not_renewed", listener=shown.listener, problem=why)

    def _warn(self, shown: _Shown) -> None:
        remark = shown.certificate.remark(self._clock())
        before, shown.warned = shown.warned, remark.partition(" ")[0]
        if remark and shown.warned != before:
            self._log.warning("certificate_expires", listener=shown.listener, problem=f"{shown.tls.cert} {remark}")
