"""What a PromQL expression names: metrics, and the labels by which it selects and groups."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser

from proxy.obs.metrics import Metrics

TARGET = frozenset(("job", "instance", "namespace"))  # what a scrape adds
# Prometheus' own, and of ours: what the process says of itself.
_LABELS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}


class Selector(NamedTuple):
    metric: str
    labels: frozenset[str]


def labels() -> dict[str, set[str]]:
    """By the name that Prometheus stores: which labels a metric has."""
    found = {name: set(of) for name, of in _LABELS.items()}
    for family in Metrics()._registry.collect():
        own = set(getattr(family, "_labelnames", ()))
        match family.type:
            case "counter":
                found[f"{family.name}_total"] = own
            case "histogram":
                found |= {f"{family.name}_bucket": own | {"le"}, f"{family.name}_count": own, f"{family.name}_sum": own}
            case _:
                found[family.name] = own
    return found


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if getattr(node, name, None) is not None:
            yield from nodes(getattr(node, name))
    for argument in getattr(node, "args", ()):
        yield from nodes(argument)


def selectors(expression: str) -> list[Selector]:
    return [
        Selector(node.name, frozenset(matcher.name for matcher in node.matchers.matchers))
        for node in nodes(promql_parser.parse(expression))
        if isinstance(node, promql_parser.VectorSelector)
    ]


def grouped(expression: str) -> set[str]:
    """The labels after `by` and `on`."""
    found: set[str] = set()
    for node in nodes(promql_parser.parse(expression)):
        modifier = getattr(node, "modifier", None)
        named = getattr(modifier, "matching", None) or modifier
        found |= set(getattr(named, "labels", None) or ())
    return found


def mistakes(expression: str) -> list[str]:
    """What it names that nobody exports."""
    known, found, there = labels(), [], set(TARGET)
    for metric, selected in selectors(expression):
        if metric not in known:
            found.append(f"no metric {metric}")
            continue
        there |= known[metric]
        found += [f"{metric} has no label {label}" for label in selected - known[metric] - TARGET]
    return found + [f"nothing has a label {label}" for label in grouped(expression) - there]
