"""A new configuration while running, or other targets for it: put in force whole, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from proxy.controlplane.build import Addresses, InForce, build
from proxy.controlplane.certificates import Certificates
from proxy.controlplane.load import Loaded, load, read_anew
from proxy.controlplane.problems import ConfigInvalid, Problem
from proxy.controlplane.targets import Targets
from proxy.model.settings import Settings
from proxy.obs.log import Log
from proxy.obs.metrics import Metrics
from proxy.state.live import Registry
from proxy.state.snapshot import Snapshot

# Read once, when the process starts. A reload that changes one of them says so.
_AT_START_ONLY = ("listen", "admin", "state_dir", "workers", "drain_timeout_s", "pre_drain_s", "downstream", "log")


def _at_start(settings: Settings, name: str) -> object:
    """What of it is read only then: not which files certificates are in."""
    if name == "listen":
        return [(listener.address, listener.tls is None) for listener in settings.listen]
    if name == "admin":
        return settings.admin.listen, settings.admin.tls is None, settings.admin.tokens
    return getattr(settings, name)


@dataclass(frozen=True, slots=True)
class Applied:
    generation: int
    warnings: tuple[str, ...]
    need_restart: tuple[str, ...]  # settings that changed in the file but not in this process


@dataclass(frozen=True, slots=True)
class Rejected:
    """The configuration before it still serves."""

    generation: int
    problems: tuple[str, ...]


async def _at_once() -> None: ...


class Reloader:
    def __init__(
        self,
        path: Path,
        environ: Callable[[], Mapping[str, str]],
        started_with: Loaded,
        registry: Registry,
        metrics: Metrics,
        in_force: InForce,
        swap: Callable[[Snapshot, Settings, Addresses], None],
        targets: Targets,
        certificates: Certificates,
        log: Log,
    ) -> None:
        self._path, self._environ, self._started_with = path, environ, started_with.settings
        self._loaded = started_with  # in force
        self.settings = started_with.settings  # likewise
        self._registry, self._metrics, self._in_force, self._swap = registry, metrics, in_force, swap
        self._targets, self._certificates, self._log = targets, certificates, log
        self._one_at_a_time = asyncio.Lock()
        self.generation = metrics.generation
        self.last: Applied | Rejected | None = None
        self.settled: Callable[[], Awaitable[None]] = _at_once  # waits until those who serve have it in force
        self.announced: Callable[[], AbstractContextManager[None]] = nullcontext  # around each
        self.on_applied: Callable[[Loaded], None] = lambda loaded: None
        self.on_change: Callable[[Settings, Addresses], None] = lambda settings, addresses: None

    async def begin(self) -> None:
        """Find the targets of the first configuration. Raises ConfigInvalid."""
        async with self._one_at_a_time:
            addresses = await self._targets.look_up(self.settings)
            if addresses:
                self._put_in_force(self.settings, addresses, self.generation)
            self._targets.use(self.settings, addresses)

    async def reload(self) -> Applied | Rejected:
        """Read the file again and put it in force, or keep what there is and say why."""
        with self.announced():
            return await self._take(lambda: load(self._path, self._environ()))

    async def read_secrets_anew(self) -> Applied | Rejected:
        """Take the secrets of the configuration in force as they are now. What its file says meanwhile is not read."""
        return await self._take(lambda: read_anew(self._loaded, self._path, self._environ()))

    async def _take(self, read: Callable[[], Loaded]) -> Applied | Rejected:
        async with self._one_at_a_time:
            try:
                loaded = await asyncio.to_thread(read)
                self._check_exposure(loaded.settings)
                certificates = await self._certificates.read_others(loaded.settings)
                addresses = await self._targets.look_up(loaded.settings)
                self._put_in_force(loaded.settings, addresses, self.generation + 1)
            except ConfigInvalid as invalid:
                self.last = self._reject(invalid)
            else:
                self._loaded = loaded
                self._targets.use(loaded.settings, addresses)
                self._certificates.use(certificates)
                self.last = self._applied(loaded)
                self.on_applied(loaded)
                await self._certificates.renew()
                await self.settled()
            return self.last

    async def rebuild(self, settings: Settings, changed: Addresses) -> None:
        """Put other addresses of some upstreams in force, unless these settings are not in force any more."""
        async with self._one_at_a_time:
            if settings is not self.settings:
                return
            before = self._targets.addresses
            try:
                self._put_in_force(settings, {**before, **changed}, self.generation + 1)
            except ConfigInvalid as invalid:
                problems = tuple(map(str, invalid.problems))
                self._log.error("targets_rejected", generation_in_force=self.generation, problems=problems)
                return
            self._targets.addresses = {**before, **changed}
            for name, addresses in changed.items():
                now, known = set(addresses), set(before.get(name, ()))
                added, removed = sorted(now - known), sorted(known - now)
                self._log.info("targets_changed", upstream=name, added=added, removed=removed)

    def renew(self) -> None:
        """Put in force once more what is in force, with other values of its keys."""
        try:
            self._put_in_force(self.settings, self._targets.addresses, self.generation + 1)
        except ConfigInvalid as invalid:
            problems = tuple(map(str, invalid.problems))
            self._log.error("keys_rejected", generation_in_force=self.generation, problems=problems)

    def _put_in_force(self, settings: Settings, addresses: Addresses, generation: int) -> None:
        """Raises ConfigInvalid; then nothing has changed."""
        snapshot = build(settings, self._registry, self._metrics, generation, addresses, self._in_force)
        self._swap(snapshot, settings, addresses)
        self.settings = settings
        self.on_change(settings, addresses)
        self.generation = self._metrics.generation = generation
        members = {pool.name: [member.live for member in pool.members] for pool in snapshot.pools}
        self._registry.forget_except(snapshot.upstreams.keys(), members)

    def _check_exposure(self, settings: Settings) -> None:
        """Anyone may call where no clients are listed, and that was judged by the file's listeners: ours stay open."""
        if settings.clients or settings.allow_anonymous:
            return
        exposed = [listener.address for listener in self._started_with.listen if not listener.address.is_loopback]
        message = "none are listed, and {}, which others can reach, is open until a restart: list clients, or restart"
        if exposed:
            raise ConfigInvalid(tuple(Problem(("clients",), None, message.format(address)) for address in exposed))

    def _reject(self, invalid: ConfigInvalid) -> Rejected:
        problems = tuple(map(str, invalid.problems))
        self._metrics.reloads["rejected"] += 1
        self._log.error("config_rejected", generation_in_force=self.generation, problems=problems)
        return Rejected(self.generation, problems)

    def _applied(self, loaded: Loaded) -> Applied:
        self._metrics.reloads["applied"] += 1
        warnings = tuple(map(str, loaded.warnings))
        changed = [
            name for name in _AT_START_ONLY if _at_start(loaded.settings, name) != _at_start(self._started_with, name)
        ]
        need_restart = tuple(Settings.model_fields[name].alias or name for name in changed)
        say = self._log.warning if need_restart else self._log.info
        say("config_applied", generation=self.generation, warnings=warnings, need_restart=need_restart)
        return Applied(self.generation, warnings, need_restart)
