"""What an operator says about one provider endpoint: where it is, how to authenticate there, how long to wait."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxy.model.address import BaseUrl
from proxy.model.headers import HeaderValue, SetHeaderName, SetHeaders, carries
from proxy.model.limit_settings import Rates
from proxy.model.quantities import Count, Duration, Limit, Name, Switch, Wait
from proxy.model.record import LocalFile, Record, SecretText

_SCHEMES: dict[str, dict[str, Any]] = {
    "bearer": {"header": "authorization", "prefix": "Bearer "},
    "x-api-key": {"header": "x-api-key", "prefix": ""},
    "api-key": {"header": "api-key", "prefix": ""},
}


def _named_scheme(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in _SCHEMES:  # not shown: a key that was put here by mistake would be
        raise ValueError("unknown scheme: write bearer, x-api-key, api-key or {header: name, prefix: text}")
    return _SCHEMES[value]


class Auth(Record):
    """How a key is sent to the upstream."""

    header: SetHeaderName = Field(description="The request header that carries the key.")
    prefix: HeaderValue = Field("", description="What stands before the key in that header, its blank included.")


AuthScheme = Annotated[
    Auth, BeforeValidator(_named_scheme, json_schema_input_type=Literal["bearer", "x-api-key", "api-key"] | Auth)
]


def _health_path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]*", value):
        raise ValueError("not a path: write it as in /models or /health")
    return value


HealthPath = Annotated[str, AfterValidator(_health_path)]


class UpstreamKey(Record):
    """One of the API keys that Serinus holds for an upstream."""

    name: Name = Field(description="How logs, metrics and commands call this key.")
    value: SecretText = Field(description="The key: env:NAME, file:/path, or (with a warning) its plain text.")
    weight: Count = Field(1, ge=1, le=1000, description="Its share of the requests, against the other keys' weights.")
    account: Name | None = Field(
        None, description="Whose quota it draws on: the keys of one account rest together after a 429. Absent: its own."
    )
    expect_prefix: str | None = Field(
        None, description="What the key begins with, such as sk-. Another beginning is warned of: a mixed-up secret."
    )

    limits: Rates = Field(
        default_factory=Rates,
        description="How much the provider lets this key use. What would exceed it takes another key, or waits for up "
        "to the pool's retry.max_wait.",
    )

    @model_validator(mode="after")
    def _fits_a_header(self) -> Self:
        if not carries(self.value.reveal()):
            raise ValueError("a line break, control or non-ASCII character in the key: no header can carry it")
        return self


class Timeouts(Record):
    """How long to wait for an upstream."""

    connect_s: Wait = Field(
        "5s", alias="connect", validate_default=True, description="For a connection, its TLS handshake included."
    )
    first_byte_s: Limit = Field(
        "10m",
        alias="first_byte",
        validate_default=True,
        description="From the request's end to the answer's first byte, which in an answer that is not streamed comes "
        "when all of it is ready. `none`: no limit.",
    )
    idle_s: Limit = Field(
        "5m",
        alias="idle",
        validate_default=True,
        description="Between two bytes of an answer. `none`: no limit.",
    )
    total_s: Limit = Field(
        "none",
        alias="total",
        validate_default=True,
        description="For the whole exchange, however lively. `none`: no limit.",
    )


class Keepalive(Record):
    """Connections to an upstream that are kept for the next request."""

    max_idle: Count = Field(64, ge=0, description="How many unused connections are kept at most; 0 keeps none.")
    idle_timeout_s: Duration = Field(
        "60s",
        alias="idle_timeout",
        validate_default=True,
        description="How long an unused connection is kept. Choose less than the upstream's own limit.",
    )
    min_idle: Count = Field(
        0, ge=0, description="How many unused connections are opened ahead, TLS included, and kept at least."
    )

    @model_validator(mode="after")
    def _keeps_what_it_opens(self) -> Self:
        if self.min_idle > self.max_idle:
            raise ValueError(f"min_idle is {self.min_idle}, more than the {self.max_idle} of max_idle: lower it")
        return self


class Health(Record):
    """Asking an upstream how it is, every so often."""

    path: HealthPath = Field("/models", description="What is asked for with GET, below base_url, with the first key.")
    interval_s: Wait = Field("10s", alias="interval", validate_default=True, description="Between two checks.")
    timeout_s: Wait = Field("5s", alias="timeout", validate_default=True, description="For the answer's head.")
    unhealthy_after: Count = Field(
        3, ge=1, description="So many failed checks in a row (no answer, or 5xx), and it is left out."
    )
    healthy_after: Count = Field(2, ge=1, description="So many passed checks in a row, and it is back.")


class Resolve(Record):
    """Looking up the addresses of base_url's name."""

    interval_s: Limit = Field(
        "30s",
        alias="interval",
        validate_default=True,
        description="How often. Connections to addresses that it no longer has are not used again. `none`: never.",
    )
    all: Switch = Field(
        False,
        description="Each address of the name is a target of its own, as for a headless service: with its own load, "
        "ejection, health checks, connections and limits. They share the keys. A machine that has an IPv4 and an IPv6 "
        "address there is two.",
    )


class WebSocket(Record):
    """Tunnels to an upstream: calls that begin with `Upgrade: websocket`, such as those of the Realtime API."""

    idle_s: Limit = Field(
        "10m",
        alias="idle",
        validate_default=True,
        description="Without a byte either way, after which a tunnel is closed. `none`: no limit.",
    )
    tcp_keepalive_s: Limit = Field(
        "15s",
        alias="tcp_keepalive",
        validate_default=True,
        description="How often TCP itself asks whether a silent peer is still there. `none`: never.",
    )


class UpstreamTls(Record):
    """How the upstream's certificate is checked, where `base_url` begins with https."""

    ca: LocalFile | None = Field(
        None, description="A PEM file of the authorities to trust, instead of the system's. Relative to this file."
    )
    server_name: str | None = Field(
        None, min_length=1, description="The name the certificate must have, where it is not base_url's host."
    )
    verify: Switch = Field(True, description="false accepts any certificate, an attacker's too: for tests only.")


class Upstream(Record):
    """A provider endpoint: one base URL with its keys and timeouts."""

    base_url: BaseUrl = Field(description="What an SDK would be given. A trailing slash makes no difference.")
    auth: AuthScheme = Field(
        "bearer", validate_default=True, description="How a key is sent: a well-known scheme, or a header of your own."
    )
    headers: SetHeaders = Field(default_factory=dict, description="Headers added to every request.")
    query: dict[str, str] = Field(
        default_factory=dict, description="Query parameters added to every request, such as api-version."
    )
    keys: tuple[UpstreamKey, ...] = Field(
        (), description="The API keys to use, by weight. None: the caller's own credential is passed on."
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="How long to wait for this upstream.")
    keepalive: Keepalive = Field(default_factory=Keepalive, description="Connections kept for the next request.")
    websocket: WebSocket = Field(default_factory=WebSocket, description="Tunnels for WebSocket calls.")
    tls: UpstreamTls = Field(default_factory=UpstreamTls, description="How its certificate is checked.")
    resolve: Resolve = Field(default_factory=Resolve, description="Looking up its name anew.")
    health: Health | None = Field(
        None, description="Active checks. Absent: only what becomes of requests tells how it is."
    )
    limits: Rates = Field(
        default_factory=Rates, description="How much the provider lets all keys together use, likewise."
    )
    max_connections: Count = Field(1024, ge=1, description="How many requests are open at once at most.")
    max_pending: Count = Field(
        1024, ge=1, description="How many of them wait for a new connection at most, as to a host that does not answer."
    )

    @model_validator(mode="after")
    def _one_source_of_credentials(self) -> Self:
        if self.keys and self.auth.header in self.headers:
            raise ValueError(f"{self.auth.header} is set by headers and by keys: leave one of them")
        return self
