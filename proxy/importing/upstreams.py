"""From deployments, which say everything anew, to upstreams that several of them share.

Deployments at one base URL with the same settings are one upstream with as many keys as they have. A limit (rpm, tpm)
is a deployment's own in LiteLLM and a key's here: where a limited deployment shares its key with another one it gets an
upstream to itself, so that each keeps its own limit. That costs nothing: connections are shared by address.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from proxy.importing.deployments import Deployment, Endpoint
from proxy.importing.names import free_name
from proxy.importing.providers import PROVIDERS
from proxy.model.address import BaseUrl
from proxy.model.quantities import duration_text

Upstreams = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a deployment is found: the upstream, and the key's name if it has one."""

    upstream: str
    key: str | None


@dataclass(slots=True)
class Found:
    upstreams: Upstreams = field(default_factory=dict)
    _places: dict[int, Place] = field(default_factory=dict)

    def put(self, deployment: Deployment, place: Place) -> None:
        self._places[id(deployment)] = place

    def place(self, deployment: Deployment) -> Place:
        return self._places[id(deployment)]

    def key_count(self, upstream: str) -> int:
        return len(self.upstreams[upstream].get("keys", ()))


def upstreams(deployments: list[Deployment]) -> Found:
    found, names = Found(), dict[object, str]()
    users = Counter((each.endpoint, each.key) for each in deployments)
    for deployment in deployments:
        alone = _limits(deployment) and users[deployment.endpoint, deployment.key] > 1
        identity = (deployment.endpoint, id(deployment) if alone else None)
        if identity not in names:
            names[identity] = free_name(_wanted(deployment, bool(alone)), found.upstreams)
            found.upstreams[names[identity]] = _upstream(deployment.endpoint)
        name = names[identity]
        found.put(deployment, Place(name, _with_key(found.upstreams[name], deployment)))
    return found


def _limits(deployment: Deployment) -> dict[str, int]:
    names = {"rpm": "requests_per_minute", "tpm": "tokens_per_minute"}
    return {ours: max(1, round(deployment.shares[name])) for name, ours in names.items() if name in deployment.shares}


def _wanted(deployment: Deployment, alone: bool) -> str:
    """The provider's name, with the host's where the address is not the provider's usual one."""
    host = BaseUrl.parse(deployment.endpoint.base_url).host
    name = deployment.provider.replace("_", "-")
    if host not in PROVIDERS[deployment.provider].base_url:
        name += f"-{host.removesuffix('.openai.azure.com')}"
    return f"{name}-{deployment.group}" if alone else name


def _upstream(endpoint: Endpoint) -> dict[str, Any]:
    written: dict[str, Any] = {"base_url": endpoint.base_url}
    if endpoint.auth != "bearer":
        written["auth"] = endpoint.auth
    if endpoint.headers:
        written["headers"] = dict(endpoint.headers)
    if endpoint.query:
        written["query"] = dict(endpoint.query)
    if endpoint.timeout_s is not None:
        written["timeouts"] = {"first_byte": duration_text(max(endpoint.timeout_s, 0.001))}
    return written


def _with_key(upstream: dict[str, Any], deployment: Deployment) -> str | None:
    """The name of the deployment's key there, which is put into the upstream if it is not in it yet."""
    limits = _limits(deployment)
    if deployment.key is None:
        if limits:
            upstream["limits"] = limits
        return None
    keys = upstream.setdefault("keys", [])
    value = f"env:{deployment.key}"
    for key in keys:
        if key["value"] == value:
            return str(key["name"])
    name = free_name(deployment.key.lower().replace("_", "-"), {key["name"] for key in keys})
    keys.append({"name": name, "value": value} | ({"limits": limits} if limits else {}))
    return name
