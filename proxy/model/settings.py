"""The configuration as a tree of frozen records: what YAML may say, its defaults, and what each field means.

Attributes carry their unit in the name (`connect_s`); the YAML names are the aliases, and defaults stand here as YAML
would write them, so that the JSON Schema shows what an operator can copy. What one record can judge alone is judged
here; what needs two of them, or a file, is judged by `controlplane.crosscheck`.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from proxy.model.address import Address, BaseUrl
from proxy.model.canary_settings import Canary
from proxy.model.client_settings import Client
from proxy.model.headers import HeaderMatch
from proxy.model.limit_settings import ClientLimits, Rates
from proxy.model.pool_settings import Member, Outlier, Pool, Retry
from proxy.model.quantities import Count, Duration, Name, Percent, Size, Switch, Wait
from proxy.model.record import LocalFile, Record, SecretText
from proxy.model.telemetry_settings import MetricsSettings, Tracing
from proxy.model.upstream_settings import (
    Auth,
    Health,
    Keepalive,
    Resolve,
    Timeouts,
    Upstream,
    UpstreamKey,
    UpstreamTls,
    WebSocket,
)

__all__ = [
    "Settings",
    "Address",
    "Admin",
    "AdminToken",
    "Auth",
    "BaseUrl",
    "Canary",
    "Client",
    "ClientLimits",
    "Cors",
    "Downstream",
    "Health",
    "Keepalive",
    "Listener",
    "ListenerTls",
    "Log",
    "Member",
    "Outlier",
    "Pool",
    "Rates",
    "Retry",
    "Resolve",
    "Route",
    "Timeouts",
    "Upstream",
    "UpstreamKey",
    "UpstreamTls",
    "WebSocket",
]


class ListenerTls(Record):
    """The certificate a listener shows, and whether callers must show one. Files that change are read again."""

    cert: LocalFile = Field(description="A PEM file: the certificate, then its chain. Relative to this file.")
    key: LocalFile = Field(
        description="A PEM file, not open to all users: the certificate's private key. Relative to this file."
    )
    client_ca: LocalFile | None = Field(
        None,
        description="A PEM file: the authorities of which one must have signed the certificate that a caller then has "
        "to show. Relative to this file. Absent: callers need none.",
    )


class Listener(Record):
    """An address where callers are served."""

    address: Address = Field(description="Host and port, such as 0.0.0.0:8443.")
    tls: ListenerTls | None = Field(None, description="The certificate for HTTPS. Absent: plain HTTP.")


def _listeners(value: object) -> object:
    if isinstance(value, dict):  # no list: pydantic says so
        return value
    entries = value if isinstance(value, list | tuple) else [value]
    return [entry if isinstance(entry, dict | Listener) else {"address": entry} for entry in entries]


_ListenerTexts = Annotated[tuple[Address | Listener, ...], Field(min_length=1)]
Listeners = Annotated[
    tuple[Listener, ...],
    Field(min_length=1),
    BeforeValidator(_listeners, json_schema_input_type=Address | _ListenerTexts),
]


class AdminToken(Record):
    """A bearer token of the admin API."""

    name: Name = Field(description="Who holds it, as the audit log calls them.")
    value: SecretText = Field(description="The token: env:NAME, file:/path, or (with a warning) its plain text.")


class Admin(Record):
    """The admin API, on a listener of its own."""

    listen: Address = Field(
        "127.0.0.1:9090", validate_default=True, description="Host and port. Beyond loopback, tokens are required."
    )
    tokens: tuple[AdminToken, ...] = Field(
        (),
        description="Who may use it. None: whoever reaches the listener, which must then be loopback. /livez, "
        "/readyz and /metrics need none.",
    )
    tls: ListenerTls | None = Field(None, description="The certificate for HTTPS. Absent: plain HTTP.")


class Downstream(Record):
    """What callers are held to."""

    head_timeout_s: Wait = Field(
        "10s", alias="head_timeout", validate_default=True, description="For a request's head, from its first byte."
    )
    body_timeout_s: Wait = Field(
        "30s", alias="body_timeout", validate_default=True, description="Without a byte of a request's body."
    )
    idle_timeout_s: Wait = Field(
        "75s", alias="idle_timeout", validate_default=True, description="Between two requests on a connection."
    )
    stall_timeout_s: Wait = Field(
        "60s", alias="stall_timeout", validate_default=True, description="While the caller reads nothing of its answer."
    )
    max_connections: Count = Field(10000, ge=1, description="How many connections are open at once at most.")


class Log(Record):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level that is logged.")
    format: Literal["json", "console"] = Field("json", description="json for machines, console for people.")
    access: Switch = Field(True, description="A line for every request.")


_SEGMENTS = r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@]+)+"


def _prefix(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("a prefix begins with '/': write /v1, or / for everything")
    if value == "/":
        return value
    value = value.removesuffix("/")
    if not re.fullmatch(_SEGMENTS, value):
        raise ValueError("not a plain path: write it without '%', '?', '#', '//' and blanks, such as /v1")
    if any(segment in (".", "..") for segment in value.split("/")):
        raise ValueError("a '.' or '..' in the prefix: write the path that it leads to")
    return value


Prefix = Annotated[str, AfterValidator(_prefix), Field(json_schema_extra={"pattern": "^/[^%?#]*$"})]


class Route(Record):
    """Which requests go to which pool. The first route that matches decides."""

    prefix: Prefix = Field(
        description="How the path begins, in whole segments. It is cut off before base_url is put on."
    )
    model: str | None = Field(None, min_length=1, description="A glob the request's model must match. Absent: any.")
    headers: HeaderMatch = Field(
        default_factory=dict, description="Headers that the request must have, each with exactly this value."
    )
    pool: Name = Field(description="The pool's name.")
    canary: Name | None = Field(
        None, description="The canary that has a part of the requests; the pool is its baseline. Absent: none."
    )
    max_body_bytes: Size = Field(
        "512MiB", alias="max_body", validate_default=True, description="The largest request body; above it, 413."
    )
    buffer_bytes: Size = Field(
        "1MiB",
        alias="buffer",
        validate_default=True,
        description="How much of a request body is kept before it is sent on; a larger one's rest is streamed.",
    )


_ORIGIN = r"https?://[a-z0-9._-]+(:[0-9]+)?|[a-z][a-z0-9+.-]*://[^/]+|null|\*"


def _origin(value: str) -> str:
    if not re.fullmatch(_ORIGIN, value):
        raise ValueError("not an origin: write https://app.example, as browsers send it: no path, no capitals; or *")
    return value


class Cors(Record):
    """Web pages of other origins that may call."""

    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        min_length=1, description="The pages' origins, such as https://app.example; '*' for every page there is."
    )


class Overlap(Record):
    """A new value of an upstream's key beside the old one. If it is refused more often it goes back by itself."""

    share_percent: Percent = Field(
        "5%",
        alias="share",
        validate_default=True,
        le=90,
        description="Its part of the key's requests meanwhile. 0%: it takes over as soon as it is found valid.",
    )
    requests: Count = Field(200, ge=1, description="After so many answers it takes over.")
    at_most_s: Wait = Field(
        "10m", alias="at_most", validate_default=True, description="And after so long, however few they were."
    )


class Settings(Record):
    """The configuration of Serinus."""

    model_config = ConfigDict(
        json_schema_extra={
            "required": ["upstreams", "pools", "routes"],
            "patternProperties": {"^x-": {"description": "Left alone: a place for YAML anchors."}},
        }
    )

    listen: Listeners = Field(
        "127.0.0.1:8080",
        validate_default=True,
        description="Where callers are served: host:port, or a list of host:port and {address, tls}.",
    )
    admin: Admin = Field(default_factory=Admin, description="The admin API: status, reload, metrics.")
    state_dir: Path = Field(
        "./.serinus",
        validate_default=True,
        description="A directory for what must survive a restart. Relative to where Serinus is started.",
    )
    drain_timeout_s: Duration = Field(
        "30s",
        alias="drain_timeout",
        validate_default=True,
        description="How long running requests may go on after the signal to stop.",
    )
    workers: Annotated[int, Field(strict=True, ge=1, le=64)] | Literal["auto"] = Field(
        1,
        description="How many processes serve. With more than one, another process above them has the sockets and the "
        "decisions. auto: one for each core that this process may use.",
    )
    pre_drain_s: Duration = Field(
        "5s",
        alias="pre_drain",
        validate_default=True,
        description="How long new requests are still taken after that signal, unready meanwhile, so that load "
        "balancers see it.",
    )
    fast_lane: Switch = Field(
        True,
        description="Serve plain requests without aiohttp in front, at little more than half the cost. "
        "false: all go through it.",
    )
    cors: Cors | None = Field(
        None, description="Lets web pages of other origins call. Preflights are answered here. Absent: none may."
    )
    allow_anonymous: Switch = Field(
        False, description="Serve callers without a key on listeners beyond loopback, where no clients are listed."
    )
    downstream: Downstream = Field(
        default_factory=Downstream, description="How long callers may take, and how many they are."
    )
    log: Log = Field(default_factory=Log, description="What is logged, and how.")
    metrics: MetricsSettings = Field(default_factory=MetricsSettings, description="What is counted.")
    tracing: Tracing | None = Field(None, description="Traces for an OpenTelemetry collector. Absent: none.")
    client_pepper: SecretText | None = Field(
        None,
        description="What hmac-sha256: hashes of clients' keys are made with, the same for all replicas: env:NAME or "
        "file:/path. Absent: keys are kept as their plain SHA-256.",
    )
    clients: tuple[Client, ...] = Field((), description="Who may call. None: everyone, on loopback listeners only.")
    master_keys: tuple[SecretText, ...] = Field(
        (),
        description="What opens `sealed:` values, and keeps rotated keys across restarts; the first seals. "
        "SERINUS_MASTER_KEY in the environment is one more.",
    )
    probe_timeout_s: Wait = Field(
        "5s",
        alias="probe_timeout",
        validate_default=True,
        description="How long an upstream may take to say whether it accepts a new key.",
    )
    overlap: Overlap = Field(
        default_factory=Overlap,
        description="How a new value of a key is tried beside the old one before it takes over.",
    )
    upstreams: dict[Name, Upstream] = Field(default_factory=dict, description="The provider endpoints, by name.")
    pools: dict[Name, Pool] = Field(default_factory=dict, description="Upstreams that share requests, by name.")
    canaries: dict[Name, Canary] = Field(
        default_factory=dict, description="Pools that are to take others' places, if they prove to be no worse."
    )
    routes: tuple[Route, ...] = Field((), description="Which requests go to which pool; the first match decides.")
