"""The configuration in force as an operator may see it: every field, defaults too, and no secret."""

import re
from typing import Any
from urllib.parse import urlsplit

from proxy.model.secret import fingerprint
from proxy.model.settings import Settings

# Headers and query parameters are plain text in the configuration, and some vendors take a credential in one.
_CREDENTIAL = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature", re.IGNORECASE)


def effective(settings: Settings) -> dict[str, Any]:
    """As a configuration would be written. Secrets are there as fingerprints."""
    shown: dict[str, Any] = _without_absent(settings.model_dump(mode="json", by_alias=True))
    for upstream in shown["upstreams"].values():
        for field in ("headers", "query"):
            upstream[field] = {name: _discreet(name, value) for name, value in upstream[field].items()}
    for route in shown["routes"]:
        route["headers"] = {name: _discreet(name, value) for name, value in route["headers"].items()}
    for canary in shown["canaries"].values():
        for webhook in canary["webhooks"]:
            webhook["url"] = _origin(webhook["url"])
    return shown


def _origin(url: str) -> str:
    """Of a webhook: many have their credential in the path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/… <secret {fingerprint(url)}>"


def _without_absent(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_absent(inner) for name, inner in value.items() if inner is not None}
        case list():
            return [_without_absent(inner) for inner in value]
    return value


def _discreet(name: str, value: str) -> str:
    return f"<secret {fingerprint(value)}>" if _CREDENTIAL.search(name) else value
