"""How the control plane asks an upstream, in the words of the API that it speaks."""

from proxy.model.secret import Secret
from proxy.model.settings import Upstream

ANTHROPIC_VERSION = "2023-06-01"


def speaks_anthropic(upstream: Upstream) -> bool:
    """As far as its settings tell."""
    return "anthropic-version" in upstream.headers or upstream.auth.header == "x-api-key"


def url(upstream: Upstream, path: str) -> str:
    """Of a call whose path is given without a version: an SDK of Anthropic's adds `/v1` to its base URL by itself."""
    if speaks_anthropic(upstream) and not upstream.base_url.path.endswith("/v1"):
        path = f"/v1{path}"
    return f"{upstream.base_url}{path}"


def headers(upstream: Upstream, key: Secret | None) -> dict[str, str]:
    """Those that every request of ours to it has."""
    fields = {"accept-encoding": "identity", **upstream.headers}
    if key is not None:
        fields[upstream.auth.header] = upstream.auth.prefix + key.reveal()
    if speaks_anthropic(upstream):
        fields.setdefault("anthropic-version", ANTHROPIC_VERSION)
    return fields
