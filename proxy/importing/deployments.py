"""The entries of LiteLLM's `model_list`: each is a model of one provider under a name that callers use.

An entry says everything anew (base URL, key, timeouts); what they have in common is found later. Here each is read by
itself, and one that cannot be reached without a translation is named and left out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from proxy.controlplane.problems import Path
from proxy.importing.keys import Keys
from proxy.importing.leftovers import of_deployment
from proxy.importing.providers import PROVIDERS, STAY_BEHIND, UNREACHABLE, Provider, provider_of
from proxy.importing.source import FROM_ENVIRONMENT, VARIABLE, Source
from proxy.model.address import BaseUrl, is_address
from proxy.model.headers import carries, parse_header_name, settable
from proxy.model.upstream_settings import Timeouts

# LiteLLM's own marks between the provider and the model: which of a provider's APIs is to be called.
_MARKS = ("responses/", "o_series/", "gpt5_series/")
# Values that are credentials whatever their header is called.
_SECRET_VALUE = re.compile(r"(?:bearer|basic|token)\s|(?:sk|pk|rk|gsk|xai|hf|pat)[-_]|AIza|ey[JK]", re.IGNORECASE)
_SECRET_WORDS = ("auth", "key", "token", "secret", "cookie", "password", "credential")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What makes an upstream one of its own."""

    base_url: str
    auth: str
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """`model`: what its provider calls the model, `*` in it where the caller's name decides; None: it does not ask."""

    path: Path
    group: str
    provider: str
    model: str | None
    endpoint: Endpoint
    key: str | None  # a variable of the environment
    shares: dict[str, float]  # `weight`, `rpm` and `tpm`, those that it has
    order: float | None = None

    @property
    def dialect(self) -> str:
        return PROVIDERS[self.provider].dialect


def deployments(source: Source, keys: Keys) -> list[Deployment]:
    entries = source.data.get("model_list")
    if not isinstance(entries, list):
        return []
    found = []
    for index, entry in enumerate(entries):
        path: Path = ("model_list", index)
        params = entry.get("litellm_params") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(params, dict):
            source.dropped(path, "no deployment: it needs model_name and litellm_params with model")
            continue
        params = _with_credentials(source, (*path, "litellm_params"), params)
        found += list(_read(source, keys, path, {**entry, "litellm_params": params}))
    return found


def _with_credentials(source: Source, path: Path, params: dict[str, Any]) -> dict[str, Any]:
    """With what `litellm_credential_name` stands for."""
    name = params.get("litellm_credential_name")
    if name is None:
        return params
    listed = source.data.get("credential_list")
    for credential in listed if isinstance(listed, list) else []:
        match credential:
            case {"credential_name": found, "credential_values": dict(values)} if found == name:
                return {**values, **params}
    source.dropped((*path, "litellm_credential_name"), "credential_list has no such name: write api_key and api_base")
    return params


def _read(source: Source, keys: Keys, path: Path, entry: dict[str, Any]) -> Iterator[Deployment]:
    """The deployments of one entry: none if it cannot be reached, several if it has several organizations."""
    params, inside = entry["litellm_params"], (*path, "litellm_params")
    group = source.text((*path, "model_name"), entry.get("model_name"))
    asked = source.text((*inside, "model"), params.get("model"))
    if group is None or asked is None:
        source.dropped(path, "no deployment: it needs model_name and litellm_params with model")
        return
    provider, model = _provider(source, inside, params, asked)
    url = _base_url(source, inside, PROVIDERS[provider], _api_base(params)) if provider else None
    if url is None:
        return
    timeout_s = _timeout_s(source, inside, params)
    endpoint = Endpoint(url, PROVIDERS[provider].auth, _headers(source, inside, params), timeout_s=timeout_s)
    shares, order = _shares(source, inside, params, entry), source.number((*inside, "order"), params.get("order"))
    key = _key(source, keys, inside, params, provider, url)
    deployment = Deployment(path, group, provider, model, endpoint, key, shares, order)
    of_deployment(source, path, entry)
    if provider == "azure":
        deployment = _azure(source, inside, params, deployment)
    yield from _of_each_organization(source, inside, params, deployment)


def _api_base(params: dict[str, Any]) -> object:
    return params.get("api_base", params.get("base_url"))


def _provider(source: Source, inside: Path, params: dict[str, Any], asked: str) -> tuple[str, str]:
    """Its provider, and what that calls the model. The provider is empty where it cannot be reached, which is said."""
    given, path = params.get("custom_llm_provider"), (*inside, "model")
    if given:
        asked = f"{given}/{asked.removeprefix(f'{given}/')}"
    name, model = provider_of(asked, str(_api_base(params) or ""))
    if name not in PROVIDERS or not model:
        source.dropped(path, _why_not(name) if model else "no model is named: write it behind the slash")
        return "", model
    if asked == "*":
        source.changed(path, "no provider is told by a model's name: what no other route takes is OpenAI's")
    for mark in _MARKS:
        model = model.removeprefix(mark)
    prefix = "" if "/" in model or "*" in model else PROVIDERS[name].model_prefix
    return name, prefix + model


def _key(source: Source, keys: Keys, inside: Path, params: dict[str, Any], provider: str, url: str) -> str | None:
    """The variable of its key. Where none is written, a provider's usual key is for its usual place only."""
    written, known = params.get("api_key"), PROVIDERS[provider]
    if not written and (provider == "azure" or not _api_base(params)):
        return known.key_variable or None
    return keys.variable((*inside, "api_key"), written, _usual_variable(known, url))


def _why_not(provider: str) -> str:
    if not provider:
        return "nothing tells which provider it is of: write it as in openai/MODEL"
    return f"{provider}: {UNREACHABLE[provider]}. {STAY_BEHIND}"


def _base_url(source: Source, inside: Path, provider: Provider, api_base: object) -> str | None:
    path = (*inside, "api_base")
    written = source.text(path, api_base)
    if api_base and written is None:
        return None
    url = written or source.environ.get(provider.base_variable, "") or provider.base_url
    if not url:
        source.dropped(path, "no deployment without a base URL: write api_base")
        return None
    url = url.rstrip("/").removesuffix("/chat/completions")
    if provider.below_base and not url.endswith(provider.below_base):
        url += provider.below_base
    try:
        return str(BaseUrl.parse(url))
    except ValueError as error:
        source.dropped(path, str(error))
        return None


def _usual_variable(provider: Provider, url: str) -> str:
    """What the variable of a key is called that stands in plain text."""
    host = BaseUrl.parse(url).host
    if provider.key_variable and (host in provider.base_url or not provider.base_url):
        return provider.key_variable
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"{host}_API_KEY").upper()
    return "UPSTREAM_API_KEY" if is_address(host) or not VARIABLE.fullmatch(name) else name


def _headers(source: Source, inside: Path, params: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    written = params.get("extra_headers") or params.get("headers") or {}
    found: dict[str, str] = {}
    for header, value in written.items() if isinstance(written, dict) else ():
        path = (*inside, "extra_headers", header)
        text = source.text(path, value)
        try:
            name = settable(parse_header_name(header))
        except ValueError as error:
            source.dropped(path, str(error))
            continue
        if str(value).startswith(FROM_ENVIRONMENT) or _is_secret(name, str(value).strip()):
            source.dropped(path, "it may hold a secret: write it by hand, as auth: {header: …} with a key under keys")
        elif text is not None and carries(text):
            found[name] = text
        elif text is not None:
            source.dropped(path, "no header can carry this value: write printable ASCII")
    return tuple(sorted(found.items()))


def _is_secret(name: str, value: str) -> bool:
    """Whether it may be one: rather one too many that has to be written by hand than one that is copied."""
    return any(word in name for word in _SECRET_WORDS) or _SECRET_VALUE.match(value) is not None


def _timeout_s(source: Source, inside: Path, params: dict[str, Any]) -> float | None:
    """Its own, or the one for all; None where that is what holds anyway."""
    own = source.number((*inside, "timeout"), params.get("timeout"))
    for section, name in (("router_settings", "timeout"), ("litellm_settings", "request_timeout")):
        if own is None:
            own = source.number((section, name), source.section(section).get(name))
    return None if own == Timeouts().first_byte_s else own


def _shares(source: Source, inside: Path, params: dict[str, Any], entry: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("weight", "rpm", "tpm"):
        path = (*inside, name) if name in params else (*inside[:-1], name)
        written = params.get(name, entry.get(name))
        if name == "weight" and written == 0:
            found[name] = 0.0
        elif (number := source.number(path, written)) is not None:
            found[name] = number
    return found


def _azure(source: Source, inside: Path, params: dict[str, Any], deployment: Deployment) -> Deployment:
    """Under /openai/v1 the model is named in the body, as everywhere; else the deployment is a piece of the path."""
    version = source.text((*inside, "api_version"), params.get("api_version"))
    endpoint, model = deployment.endpoint, deployment.model or ""
    url = endpoint.base_url
    if "/openai/deployments/" in url:
        query = (("api-version", version),) if version else ()
        return replace(deployment, model=None, endpoint=replace(endpoint, query=query))
    if url.endswith("/openai/v1") or version in (None, "v1", "preview", "latest") or "*" in model:
        if version not in ("v1", "preview", "latest"):
            source.changed(inside, "Azure is called under /openai/v1, which takes no api-version")
        url = f"{url.removesuffix('/v1').removesuffix('/openai')}/openai/v1"
        return replace(deployment, endpoint=replace(endpoint, base_url=url))
    url = f"{url.removesuffix('/openai')}/openai/deployments/{model}"
    query = (("api-version", str(version)),)
    return replace(deployment, model=None, endpoint=replace(endpoint, base_url=url, query=query))


def _of_each_organization(
    source: Source, inside: Path, params: dict[str, Any], deployment: Deployment
) -> Iterator[Deployment]:
    written = params.get("organization")
    for each in written if isinstance(written, list) else [written]:
        organization = source.text((*inside, "organization"), each)
        headers = dict(deployment.endpoint.headers)
        if organization is not None and carries(organization):
            headers["openai-organization"] = organization
        yield replace(deployment, endpoint=replace(deployment.endpoint, headers=tuple(sorted(headers.items()))))
