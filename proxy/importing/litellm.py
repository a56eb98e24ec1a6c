"""A LiteLLM proxy's config.yaml becomes a configuration of ours.

What LiteLLM calls a model group is a pool here; a deployment is a member of it; its base URL, key and timeouts are an
upstream's. The master key becomes a client. Order, shares, retries, cooldowns, fallbacks and aliases have counterparts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from proxy.controlplane.document import read
from proxy.controlplane.problems import ConfigInvalid, Problem
from proxy.importing.deployments import Deployment, deployments
from proxy.importing.keys import Keys
from proxy.importing.leftovers import of_all
from proxy.importing.pools import Groups, Pools
from proxy.importing.remarks import Remark
from proxy.importing.routing import aliases, common_fields, fallbacks, globs, is_shared_out, routes
from proxy.importing.source import Source
from proxy.importing.upstreams import upstreams
from proxy.importing.written import written

_SECTIONS = "model_list"
_MASTER_KEY = "LITELLM_MASTER_KEY"


@dataclass(frozen=True, slots=True)
class Imported:
    """`variables`: those of the environment that it reads its secrets from."""

    text: str
    remarks: tuple[Remark, ...]
    variables: tuple[str, ...]


def convert(text: str, file: str, environ: Mapping[str, str]) -> Imported:
    """Raises ConfigInvalid where the text is no such configuration, or nothing in it can be served."""
    document = read(text, file, begin_with=f"{_SECTIONS}:")
    problems = [problem for problem in document.problems if problem.path not in document.holes]
    if problems:
        raise ConfigInvalid(tuple(problems))
    if not isinstance(document.data.get("model_list"), list):
        raise ConfigInvalid((Problem((), None, "model_list is missing: is it a configuration of LiteLLM?", file),))
    source = Source(document, environ)
    keys = Keys(source)
    groups = _groups(source, deployments(source, keys))
    settings: dict[str, Any] = _clients(source, keys) | _served(source, groups)
    of_all(source)
    remarks = source.remarks.sorted()
    if not settings["routes"]:
        said = tuple(Problem(each.path, each.line, each.text, file) for each in remarks)
        raise ConfigInvalid((Problem((), None, "nothing in it can be served by Serinus", file), *said))
    text = written(settings, remarks, PurePath(file).name)
    return Imported(text, remarks, tuple(dict.fromkeys(_variables(settings))))


def _variables(settings: object) -> Iterator[str]:
    if isinstance(settings, dict):
        settings = list(settings.values())
    if isinstance(settings, list):
        for each in settings:
            yield from _variables(each)
    elif isinstance(settings, str) and settings.startswith("env:"):
        yield settings.removeprefix("env:")


def _groups(source: Source, found: list[Deployment]) -> Groups:
    """By the name that callers use. One pool speaks one API: whoever speaks another than the first is left out."""
    groups: dict[str, list[Deployment]] = {}
    for deployment in found:
        group = groups.setdefault(deployment.group, [])
        if group and group[0].dialect != deployment.dialect:
            why = "deployments of one name speak one API here, OpenAI's or Anthropic's: give this one a name of its own"
            source.dropped((*deployment.path, "litellm_params", "model"), why)
        else:
            group.append(deployment)
    for group in groups.values():
        if group[0].dialect == "anthropic":
            how = (
                "served in Anthropic's own words (/v1/messages), as by Anthropic's SDK with a base URL without /v1. "
                "Calls in OpenAI's words are not translated any more"
            )
            source.changed((*group[0].path, "litellm_params", "model"), how)
    return groups


def _served(source: Source, named: Groups) -> dict[str, Any]:
    said = globs(source, named)
    groups = {name: named[name] for name in said}
    found = upstreams([deployment for group in groups.values() for deployment in group])
    known = aliases(source, groups)
    pools = Pools(source, groups, found, common_fields(source), is_shared_out=is_shared_out(source))
    pools.write(fallbacks(source, groups, known), known.values())
    return {
        "upstreams": found.upstreams,
        "pools": pools.written,
        "routes": routes(said, known, pools.first),
    }


def _clients(source: Source, keys: Keys) -> dict[str, Any]:
    path = ("general_settings", "master_key")
    variable = keys.variable(path, source.section("general_settings").get("master_key"), _MASTER_KEY)
    if variable is None:
        source.changed(
            path, "no clients are listed: everyone may call, which is allowed on this machine's loopback only"
        )
        return {}
    source.changed(path, "it is one client's key here, and opens no admin API: that has tokens of its own")
    return {"clients": [{"name": "litellm-master", "key": f"env:{variable}"}]}
