"""The values of an upstream's keys that requests may carry now, and by what weights."""

from collections.abc import Iterator
from typing import NamedTuple

from proxy.model.secret import Secret
from proxy.model.settings import UpstreamKey
from proxy.state.live import KeyLive, Registry

WHOLE_PERCENT = 100  # weights in force are hundredths of the configured ones, for the shares of overlaps


class Serving(NamedTuple):
    """A value that is in force."""

    secret: Secret
    live: KeyLive
    weight: int  # in hundredths


def live_of(registry: Registry, upstream: str, key: UpstreamKey, secret: Secret) -> KeyLive:
    account = registry.account(key.account or f"{upstream}/{key.name}")
    return registry.upstream(upstream).key(key.name, account, secret.fingerprint)


def as_configured(registry: Registry, upstream: str, key: UpstreamKey) -> Iterator[Serving]:
    """Where no key was ever rotated: the value that the configuration has."""
    yield Serving(key.value, live_of(registry, upstream, key, key.value), key.weight * WHOLE_PERCENT)
