"""Deployments of one name become a pool, with the shares that LiteLLM would give them, and what is asked after it.

LiteLLM's fallbacks are lists and may run in circles (a to b, b to a), for each request walks its own list. A pool here
has one fallback, which has its own. So where a list is longer than one, or what it leads to falls back itself, the
list's pools are written once more, as a chain of their own.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import groupby
from math import gcd, lcm
from typing import Any

from proxy.importing.deployments import Deployment
from proxy.importing.names import free_name
from proxy.importing.source import Source
from proxy.importing.upstreams import Found

Groups = Mapping[str, list[Deployment]]
"""Deployments by the name that callers use."""
_HEAVIEST = 1000


class Pools:
    def __init__(
        self, source: Source, groups: Groups, found: Found, common: Mapping[str, Any], *, is_shared_out: bool
    ) -> None:
        """`common`: fields that each pool has. `is_shared_out`: by weight; otherwise all weigh the same."""
        self._source, self._groups, self._found, self._common = source, groups, found, common
        self._is_shared_out = is_shared_out
        self.written: dict[str, Any] = {}
        self.first: dict[str, str] = {}  # a group's pool
        self._last: dict[str, str] = {}

    def write(self, fallbacks: Mapping[str, list[str]], named: Iterable[str]) -> None:
        """`named`: the groups that requests reach under other names, so that their models have to be put in."""
        asked = {*named, *(target for targets in fallbacks.values() for target in targets)}
        for group in self._groups:
            self.first[group], self._last[group] = self._chain(group, group, put_model=group in asked)
        for group, targets in fallbacks.items():
            if len(targets) == 1 and targets[0] not in fallbacks:
                self.written[self._last[group]]["fallback"] = self.first[targets[0]]
                continue
            last = self._last[group]
            for target in targets:
                first, end = self._chain(target, f"{group}-then-{target}", put_model=True)
                self.written[last]["fallback"] = first
                last = end

    def _chain(self, group: str, wanted: str, *, put_model: bool) -> tuple[str, str]:
        """The group's pools, one for each `order`. Returns the first and the last of them."""
        names: list[str] = []
        for level in _levels(self._groups[group]):
            name = free_name(wanted if not names else f"{wanted}-order-{len(names) + 1}", self.written)
            self.written[name] = self._pool(level, put_model=put_model)
            if names:
                self.written[names[-1]]["fallback"] = name
            names.append(name)
        return names[0], names[-1]

    def _pool(self, level: list[Deployment], *, put_model: bool) -> dict[str, Any]:
        weights = _weights(level) if self._is_shared_out else [1] * len(level)
        if 0 in weights:
            without = level[weights.index(0)]
            self._source.changed(without.path, "it has no share beside the others that have one: weight 0, as before")
        members = [self._member(each, weight, put_model=put_model) for each, weight in zip(level, weights, strict=True)]
        common = {name: value for name, value in self._common.items() if name != "balance" or len(members) > 1}
        return {"members": members, **common}

    def _member(self, deployment: Deployment, weight: int, *, put_model: bool) -> dict[str, Any]:
        place, model = self._found.place(deployment), deployment.model
        member: dict[str, Any] = {"upstream": place.upstream}
        if weight != 1:
            member["weight"] = weight
        if model is not None and "*" not in model and (put_model or model != deployment.group):
            member["model"] = model
        if place.key is not None and self._found.key_count(place.upstream) > 1:
            member["key"] = place.key
        return member


def _levels(deployments: list[Deployment]) -> list[list[Deployment]]:
    """By `order`, the lowest first; those without one last."""
    highest = max((each.order for each in deployments if each.order is not None), default=0.0)

    def order(each: Deployment) -> float:
        return highest + 1 if each.order is None else each.order

    return [list(level) for _, level in groupby(sorted(deployments, key=order), order)]


def _weights(deployments: list[Deployment]) -> list[int]:
    """As LiteLLM's simple-shuffle: by the first of weight, rpm and tpm that the first deployment has."""
    by = next((name for name in ("weight", "rpm", "tpm") if name in deployments[0].shares), None)
    shares = [deployment.shares.get(by, 0.0) for deployment in deployments] if by else []
    if not any(shares):
        return [1] * len(deployments)
    exact = [Fraction(share).limit_denominator(_HEAVIEST) for share in shares]
    whole = _whole([int(share * lcm(*(each.denominator for each in exact))) for share in exact])
    if 0 < max(whole) <= _HEAVIEST and whole.count(0) == shares.count(0):
        return whole
    return _whole([max(1, round(share * _HEAVIEST / max(shares))) if share else 0 for share in shares])


def _whole(shares: list[int]) -> list[int]:
    """The least whole numbers in the same ratio."""
    divisor = gcd(*shares) or 1
    return [share // divisor for share in shares]
