"""Asking a running proxy: the options that all such commands have, and the call."""

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click
import msgspec

from proxy.cli.admin_tls import opener
from proxy.controlplane.canary_status import CanaryStatus
from proxy.controlplane.client_status import ClientStatus
from proxy.controlplane.key_status import KeyStatus
from proxy.controlplane.recorder import Audited
from proxy.controlplane.secrets import SecretReader
from proxy.controlplane.status import Status
from proxy.model.reasons import reason
from proxy.model.secret import Secret

T = TypeVar("T")
TIMEOUT_S = 10.0
DEFAULT = "http://127.0.0.1:9090"
TOKEN_VARIABLE = "SERINUS_ADMIN_TOKEN"  # noqa: S105 - its name
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_address = click.option(
    "--admin", default=DEFAULT, envvar="SERINUS_ADMIN", show_default=True, show_envvar=True, help="The admin API."
)
_token = click.option(
    "--token", help=f"env:NAME, file:/path or the token. [default: env:{TOKEN_VARIABLE}, if it is set]"
)
_cacert = click.option(
    "--cacert",
    type=_FILE,
    envvar="SERINUS_ADMIN_CACERT",
    show_envvar=True,
    help="Whom to believe over https: its authority's certificates, or its own, then whatever its name. "
    "[default: the system's]",
)
_cert = click.option(
    "--cert",
    type=_FILE,
    envvar="SERINUS_ADMIN_CERT",
    show_envvar=True,
    help="A certificate to show, where one is needed.",
)
_key_file = click.option(
    "--key",
    "key_file",
    type=_FILE,
    envvar="SERINUS_ADMIN_KEY",
    show_envvar=True,
    help="Its private key, if it is not in the same file.",
)


class _Keys(msgspec.Struct):
    keys: list[KeyStatus]


class _Clients(msgspec.Struct):
    clients: list[ClientStatus]


class _Canaries(msgspec.Struct):
    canaries: dict[str, CanaryStatus]


class AdminUnavailable(click.ClickException):
    """No answer, or none that helps. The message says from where and why."""


@dataclass(frozen=True, slots=True)
class AdminApi:
    url: str
    token: Secret | None
    opener: urllib.request.OpenerDirector

    def status(self, window_s: float) -> Status:
        """Raises AdminUnavailable."""
        return self._decoded(self._get("/status", window=f"{window_s:g}s"), Status, "/status")

    def config(self) -> dict[str, Any]:
        """The configuration in force, secrets as fingerprints. Raises AdminUnavailable."""
        return self._decoded(self._get("/config"), dict[str, Any], "/config")

    def audited(self, last: int) -> Audited:
        """Raises AdminUnavailable."""
        return self._decoded(self._get("/audit", last=str(last)), Audited, "/audit")

    def keys(self) -> list[KeyStatus]:
        """Raises AdminUnavailable."""
        return self._decoded(self._get("/keys"), _Keys, "/keys").keys

    def rotate(self, upstream: str, key: str, value: str, *, until_restart: bool) -> dict[str, str]:
        """`result`, `fingerprint` and `said`. Raises AdminUnavailable."""
        body = {"value": value, "until_restart": until_restart}
        path = f"/keys/{quote(upstream, safe='')}/{quote(key, safe='')}/rotate"
        return self._decoded(self._post(path, body, also=422), dict[str, str], path)

    def revoke(self, upstream: str, key: str, fingerprint: str, *, now: bool) -> dict[str, Any]:
        """`cut`, how many requests were ended, and `not_kept`, why it will be forgotten. Raises AdminUnavailable."""
        path = f"/keys/{quote(upstream, safe='')}/{quote(key, safe='')}/revoke"
        return self._decoded(self._post(path, {"fingerprint": fingerprint, "now": now}), dict[str, Any], path)

    def clients(self) -> list[ClientStatus]:
        """Raises AdminUnavailable."""
        return self._decoded(self._get("/clients"), _Clients, "/clients").clients

    def issue_client_key(self, name: str, wanted: Mapping[str, object]) -> dict[str, Any]:
        """`key`, `fingerprint`, `key_hash`, `expires`; and why it was not kept. Raises AdminUnavailable."""
        return self.change_client(name, "keys", wanted)

    def change_client(self, name: str, what: str, wanted: Mapping[str, object]) -> dict[str, Any]:
        """What came of it, `not_kept` and `not_audited`: why not. Raises AdminUnavailable."""
        path = f"/clients/{quote(name, safe='')}/{what}"
        return self._decoded(self._post(path, wanted), dict[str, Any], path)

    def canaries(self) -> dict[str, CanaryStatus]:
        """Raises AdminUnavailable."""
        return self._decoded(self._get("/canaries"), _Canaries, "/canaries").canaries

    def canary(self, name: str) -> dict[str, Any]:
        """The numbers behind its state. Raises AdminUnavailable."""
        path = f"/canaries/{quote(name, safe='')}"
        return self._decoded(self._get(path), dict[str, Any], path)

    def steer(self, name: str, command: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """`said`, what came of it, `state`, `weight` and `not_kept`. Raises AdminUnavailable."""
        path = f"/canaries/{quote(name, safe='')}/{command}"
        answer = self._post(path, wanted, method="PUT" if command == "weight" else "POST")
        return self._decoded(answer, dict[str, Any], path)

    def _decoded(self, body: bytes, kind: type[T], path: str) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise AdminUnavailable(f"{self.url}{path} is not of this version of Serinus: {error}") from None

    def _get(self, path: str, **query: str) -> bytes:
        return self._asked(urllib.request.Request(f"{self.url}{path}?{urlencode(query)}"))  # noqa: S310 - was checked

    def _post(self, path: str, body: object, also: int = 200, method: str = "POST") -> bytes:
        """`also`: another status that brings a result."""
        request = urllib.request.Request(f"{self.url}{path}", msgspec.json.encode(body), method=method)  # noqa: S310
        request.add_header("content-type", "application/json")
        return self._asked(request, also)

    def _asked(self, request: urllib.request.Request, also: int = 200) -> bytes:
        if self.token is not None:
            request.add_header("authorization", f"Bearer {self.token.reveal()}")
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            body = error.read()
            if error.code == also:
                return body
            raise AdminUnavailable(f"{self.url} answers {error.code}: {_said(body)}") from None
        except (OSError, ValueError) as error:
            raise AdminUnavailable(f"{self.url} does not answer: {reason(error).rstrip('.')}. {_hint(error)}") from None


def _hint(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "--cacert names whom to believe: its authority, or its own certificate, which may have any name."
    if isinstance(cause, ConnectionResetError | ssl.SSLError):
        return "Is it the admin API? With admin.tls it is https://…, and with client_ca there it wants a --cert."
    return "Is it the address of the admin API?"


def _said(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, str])["error"])
    except (msgspec.DecodeError, KeyError):
        return f"it does not seem to be the admin API of a Serinus, which is {DEFAULT} where nothing else is set"


def with_admin(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, and hands the command an `AdminApi` as `api`."""

    @wraps(command)
    def called(
        *, admin: str, token: str | None, cacert: Path | None, cert: Path | None, key_file: Path | None, **options: Any
    ) -> Any:
        url = _checked(admin)
        return command(api=AdminApi(url, _secret(token), opener(url, cacert, cert, key_file)), **options)

    return _address(_token(_cacert(_cert(_key_file(called)))))


def _checked(url: str) -> str:
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # of its port, or its brackets
        usable = False
    if not usable or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise click.UsageError(f"--admin {url!r} is no address of an admin API: write it as in {DEFAULT}")
    return url.rstrip("/")


def _secret(token: str | None) -> Secret | None:
    if token is None:
        if not os.environ.get(TOKEN_VARIABLE):
            return None
        token = f"env:{TOKEN_VARIABLE}"
    try:
        return SecretReader(os.environ, Path()).resolve(token)
    except ValueError as error:
        raise click.UsageError(f"--token: {error}") from None
