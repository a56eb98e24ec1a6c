"""Which names lead where: routes in the order in which LiteLLM decides, fallbacks, and what pools do on failure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from proxy.controlplane.problems import Path
from proxy.importing.pools import Groups
from proxy.importing.providers import PROVIDERS
from proxy.importing.source import Source
from proxy.model.quantities import duration_text

_BALANCE = {
    "simple-shuffle": "smooth_rr",
    "least-busy": "least_request",
    "latency-based-routing": "peak_ewma",
    "usage-based-routing": "least_work",
    "usage-based-routing-v2": "least_work",
}
_STRATEGY = ("router_settings", "routing_strategy")
_MOST_ATTEMPTS = 10
_PREFIX = "/v1"


def globs(source: Source, groups: Groups) -> dict[str, list[str]]:
    """By group, what callers may say from now on to get to it; groups that nothing leads to are not there."""
    found = {name: _globs(source, groups, name) for name in groups}
    return {name: each for name, each in found.items() if each}


def routes(said: Mapping[str, list[str]], aliases: Mapping[str, str], first: Mapping[str, str]) -> list[dict[str, Any]]:
    """Whole names first, then patterns, the longest first: so LiteLLM decides, and here the first match does."""
    pools = {glob: first[name] for name in said if "*" not in name for glob in said[name]}
    for alias, group in aliases.items():
        pools.setdefault(_literal(alias), first[group])
    for name in sorted((name for name in said if "*" in name), key=lambda name: -len(name)):
        for glob in said[name]:
            pools.setdefault(glob, first[name])
    everything = pools.pop("*", None)
    written = [{"prefix": _PREFIX, "model": glob, "pool": pool} for glob, pool in pools.items()]
    return written if everything is None else [*written, {"prefix": _PREFIX, "pool": everything}]


def _literal(name: str) -> str:
    """A glob that matches this name only."""
    return "".join(f"[{letter}]" if letter in "[?" else letter for letter in name)


def _globs(source: Source, groups: Groups, name: str) -> list[str]:
    """What callers may say from now on where they said anything of the pattern `name`."""
    deployment = groups[name][0]
    model = deployment.model or ""
    if model == name or "*" not in model:
        return [_literal(name)]
    path = (*deployment.path, "model_name")
    families = PROVIDERS[deployment.provider].families
    if model == "*" and families:
        shown = ", ".join(families[:3]) + (", …" if len(families) > 3 else "")
        source.changed(path, f"a model's name goes on as it is: callers leave out what {name} had before it ({shown})")
        return list(families)
    source.dropped(path, "a pattern that takes a part of the name away: write a route with model: NAME for each model")
    return []


def aliases(source: Source, groups: Groups) -> dict[str, str]:
    written = source.section("router_settings").get("model_group_alias")
    found = {}
    for alias, value in written.items() if isinstance(written, dict) else ():
        group = value.get("model") if isinstance(value, dict) else value
        if group in groups:
            found[alias] = str(group)
        else:
            source.dropped(("router_settings", "model_group_alias", alias), "the model it leads to is not served here")
    return found


def fallbacks(source: Source, groups: Groups, known: Mapping[str, str]) -> dict[str, list[str]]:
    """By group, which groups are asked after it. `known`: aliases."""
    found: dict[str, list[str]] = {}
    path: Path
    for section in ("router_settings", "litellm_settings"):
        written = source.section(section).get("fallbacks")
        for index, entry in enumerate(written if isinstance(written, list) else []):
            for group, targets in entry.items() if isinstance(entry, dict) else ():
                path = (section, "fallbacks", index, group)
                for each in groups if group == "*" else [known.get(group, group)]:
                    found.setdefault(each, list(_targets(source, path, groups, each, _listed(targets, known))))
        default = source.section(section).get("default_fallbacks")
        for group in groups if default else ():
            path = (section, "default_fallbacks")
            found.setdefault(group, list(_targets(source, path, groups, group, _listed(default, known))))
    return {group: targets for group, targets in found.items() if targets}


def _listed(targets: object, known: Mapping[str, str]) -> list[str]:
    listed = targets if isinstance(targets, list) else [targets]
    return [known.get(str(target), str(target)) for target in listed]


def _targets(source: Source, path: Path, groups: Groups, group: str, targets: Iterable[str]) -> Iterator[str]:
    for target in dict.fromkeys(targets):
        if group not in groups or target not in groups:
            source.dropped(path, "one of its models is not served here")
        elif "*" in target:
            source.dropped(path, "a pattern cannot be fallen back on: name one model")
        elif groups[target][0].dialect != groups[group][0].dialect:
            source.dropped(path, "one speaks OpenAI's API and the other Anthropic's: Serinus translates neither")
        elif target != group:
            yield target


def strategy(source: Source) -> str | None:
    return source.text(_STRATEGY, source.section("router_settings").get("routing_strategy"))


def is_shared_out(source: Source) -> bool:
    """LiteLLM's other strategies look at no weight."""
    return strategy(source) in (None, "simple-shuffle")


def common_fields(source: Source) -> dict[str, Any]:
    """What every pool has: how members are chosen, what is tried again, who is left out."""
    common: dict[str, Any] = {}
    wanted = strategy(source)
    if wanted in _BALANCE:
        common["balance"] = _BALANCE[wanted]
    elif wanted is not None:
        source.dropped(
            _STRATEGY, f"the pools' balance has nothing like it: {' or '.join(sorted(set(_BALANCE.values())))}"
        )
    retries = _setting(source, "num_retries", ("router_settings", "litellm_settings"))
    if retries is not None:
        if retries >= _MOST_ATTEMPTS:
            section = "router_settings" if "num_retries" in source.section("router_settings") else "litellm_settings"
            source.changed((section, "num_retries"), f"at most {_MOST_ATTEMPTS} tries in all")
        common["retry"] = {"attempts": min(round(retries) + 1, _MOST_ATTEMPTS)}
    outlier = _outlier(source)
    return common | ({"outlier": outlier} if outlier else {})


def _outlier(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {}
    fails = _setting(source, "allowed_fails", ("router_settings", "litellm_settings"))
    if fails is not None:
        found["consecutive_failures"] = round(fails) + 1
        path = next((name, "allowed_fails") for name in ("router_settings", "litellm_settings")
                    if "allowed_fails" in source.section(name))  # fmt: skip
        source.changed(path, "so many failures in a row count, not in a minute")
    cooldown_s = _setting(source, "cooldown_time", ("router_settings", "litellm_settings"))
    if cooldown_s:
        found["base_ejection"] = duration_text(cooldown_s)
    if source.section("router_settings").get("disable_cooldowns") is True:
        why = "a member that fails is always left out for a while: outlier says after how many failures"
        source.dropped(("router_settings", "disable_cooldowns"), why)
    return found


def _setting(source: Source, name: str, sections: Iterable[str]) -> float | None:
    """The first of them, 0 included."""
    for section in sections:
        written = source.section(section).get(name)
        if written == 0 and not isinstance(written, bool):
            return 0.0
        if written is not None:
            return source.number((section, name), written)
    return None
