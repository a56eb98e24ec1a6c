"""What all exchanges share."""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.dataplane.account import Account
from proxy.dataplane.callers import Callers
from proxy.dataplane.deadlines import Watch
from proxy.dataplane.tracer import Tracer
from proxy.dataplane.upstream import ConnectionPools
from proxy.obs.log import Log
from proxy.state.makers import Makers


@dataclass(frozen=True, slots=True)
class Tools:
    clock: Callable[[], float]
    pools: ConnectionPools
    watch: Watch
    account: Account
    makers: Makers
    callers: Callers
    wall_clock: Callable[[], float]  # Unix time
    dice: Callable[[], float]  # from 0 up to 1
    log: Log
    tracer: Tracer | None = None

    @property
    def stall_timeout_s(self) -> float:
        return self.callers.limits.stall_timeout_s
