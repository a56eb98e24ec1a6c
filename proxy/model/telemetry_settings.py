"""What the configuration says of what is told to those who operate it, besides the log."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from proxy.model.headers import SetHeaderName, carries
from proxy.model.quantities import Percent
from proxy.model.record import Record, SecretText
from proxy.model.secret import Secret


class MetricsSettings(Record):
    """What is counted beyond what costs next to nothing."""

    tokens: Literal["limited", "all"] = Field(
        "limited",
        description="Whose tokens are counted. limited: those of clients and upstreams with tokens_per_minute, for "
        "whom answers are read anyway. all: those of every answer; upstreams are then asked to send it uncompressed.",
    )


def _collector(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not where a collector takes traces: write http://collector:4318/v1/traces")
    if parts.query or parts.fragment:
        raise ValueError("a query or fragment in the address: write it without, and a credential into headers")
    if parts.path in ("", "/"):
        raise ValueError("this is the whole address that traces are posted to: it ends with /v1/traces as a rule")
    return url


def _sendable(value: Secret) -> Secret:
    if not carries(value.reveal()):
        raise ValueError("it cannot be sent as a header: a line break, control or non-ASCII character is in it")
    return value


class Tracing(Record):
    """Traces over OTLP/HTTP, for an OpenTelemetry collector. Needs `pip install 'serinus[otel]'`."""

    endpoint: Annotated[str, AfterValidator(_collector)] | None = Field(
        None,
        description="The address that traces are posted to, path included. Absent: as OTEL_EXPORTER_OTLP_ENDPOINT and "
        "its like say, else http://localhost:4318/v1/traces.",
    )
    headers: dict[SetHeaderName, Annotated[SecretText, AfterValidator(_sendable)]] = Field(
        default_factory=dict, description="Sent to the collector, such as its credential: env:NAME or file:/path."
    )
    sample_percent: Percent = Field(
        "100%",
        alias="sample",
        validate_default=True,
        description="The share that is recorded of the requests whose caller has no trace; callers who have one decide "
        "it themselves.",
    )
    service_name: str | None = Field(
        None, min_length=1, description="How traces call this proxy. Absent: as OTEL_SERVICE_NAME says, else serinus."
    )
