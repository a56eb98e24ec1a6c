"""The machines behind a name: an upstream with `resolve.all` has a target for each address that its name has.

A headless service has no balancer of its own: its name means all replicas, and whoever connects by it is stuck to the
one that the resolver lists first, unaware of how each of them fares. So the name is looked up here, every so often, and
when the answer is another one, a snapshot with other members is built. The data plane knows members, and no resolver.

What the resolver does not tell changes nothing: its failure must not take machines out that serve.
"""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable, Mapping

from proxy.controlplane.build import Addresses
from proxy.model.address import is_address
from proxy.model.reasons import reason
from proxy.model.settings import Settings, Upstream
from proxy.obs.log import Log

LOOK_S = 0.5

Rebuild = Callable[[Settings, Addresses], Awaitable[None]]
"""Puts other addresses in force, if these settings still are."""


class Targets:
    """`look` asks for the names whose time it is; somebody calls it every LOOK_S."""

    def __init__(self, settings: Settings, clock: Callable[[], float], log: Log) -> None:
        self._settings, self._clock, self._log = settings, clock, log
        self.addresses: Addresses = {}  # in force
        self._due_s: dict[str, float] = {}  # by upstream
        self._not_found: set[str] = set()  # upstreams whose last look-up failed, which was said

    async def run(self, rebuild: Rebuild) -> None:
        """Look until cancelled."""
        while True:
            await self.look(rebuild)
            await asyncio.sleep(LOOK_S)

    async def look(self, rebuild: Rebuild) -> None:
        now_s, settings = self._clock(), self._settings
        due = {name: each for name, each in _spread(settings).items() if self._due_s.get(name, math.inf) <= now_s}
        for name, upstream in due.items():
            self._due_s[name] = _next_s(upstream, now_s)
        found = await self._ask(due)
        changed = {name: addresses for name, addresses in found.items() if addresses != self.addresses.get(name)}
        if changed:
            await rebuild(settings, changed)

    async def look_up(self, settings: Settings) -> Addresses:
        """Those to serve these settings with. A name without an answer keeps what it has, if it is the same name."""
        spread = _spread(settings)
        before = _spread(self._settings)
        kept = {
            name: addresses
            for name, addresses in self.addresses.items()
            if name in spread and spread[name].base_url.host == before[name].base_url.host
        }
        return kept | await self._ask(spread)

    def use(self, settings: Settings, addresses: Addresses) -> None:
        """In force from now on, just looked up."""
        self._settings, self.addresses = settings, addresses
        now_s, spread = self._clock(), _spread(settings)
        self._due_s = {name: _next_s(upstream, now_s) for name, upstream in spread.items()}
        self._not_found &= spread.keys()

    async def _ask(self, upstreams: Mapping[str, Upstream]) -> dict[str, tuple[str, ...]]:
        """The addresses of those whose name has any, all asked for at once."""
        found = await asyncio.gather(*(self._addresses(name, upstream) for name, upstream in upstreams.items()))
        return {name: addresses for name, addresses in zip(upstreams, found, strict=True) if addresses}

    async def _addresses(self, name: str, upstream: Upstream) -> tuple[str, ...]:
        host, loop = upstream.base_url.host, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(upstream.timeouts.connect_s):
                # AI_ADDRCONFIG: an address of a family that this machine has none of is nobody's target.
                answer = await loop.getaddrinfo(
                    host, upstream.base_url.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                )
        except TimeoutError:
            self._lost(name, host, "no answer in time")
        except (OSError, UnicodeError) as error:  # a name that cannot even be asked for is a UnicodeError
            self._lost(name, host, reason(error))
        else:
            if answer:
                self._not_found.discard(name)
            else:
                self._lost(name, host, "it has no addresses")
            return tuple(sorted({str(address[0]) for *_, address in answer}))
        return ()

    def _lost(self, name: str, host: str, why: str) -> None:
        """Once, until it works again."""
        if name not in self._not_found:
            self._not_found.add(name)
            kept = self.addresses.get(name, ())
            self._log.warning("targets_not_found", upstream=name, host=host, reason=why, kept=kept)


def _spread(settings: Settings) -> dict[str, Upstream]:
    """The upstreams that are to have a target for each address of their name."""
    return {
        name: upstream
        for name, upstream in settings.upstreams.items()
        if upstream.resolve.all and not is_address(upstream.base_url.host)
    }


def _next_s(upstream: Upstream, now_s: float) -> float:
    interval_s = upstream.resolve.interval_s
    return math.inf if interval_s is None else now_s + interval_s
