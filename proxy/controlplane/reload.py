"""A new configuration while running: put in force whole, or not at all."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.controlplane.build import build
from proxy.controlplane.keyring import Keyring
from proxy.controlplane.load import Loaded, load
from proxy.controlplane.problems import ConfigInvalid, Problem
from proxy.model.settings import Settings
from proxy.obs.log import Log
from proxy.obs.metrics import Metrics
from proxy.state.live import Registry
from proxy.state.snapshot import Snapshot

# Read once, when the process starts. A reload that changes one of them says so.
_AT_START_ONLY = ("listen", "admin", "state_dir", "drain_timeout_s", "pre_drain_s", "downstream", "log")


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


class Reloader:
    def __init__(
        self,
        path: Path,
        environ: Callable[[], Mapping[str, str]],
        started_with: Settings,
        registry: Registry,
        metrics: Metrics,
        keyring: Keyring,
        swap: Callable[[Snapshot], None],
        log: Log,
    ) -> None:
        self._path, self._environ, self._started_with = path, environ, started_with
        self._settings, self._keyring = started_with, keyring
        self._registry, self._metrics, self._swap, self._log = registry, metrics, swap, log
        self._one_at_a_time = asyncio.Lock()
        self.generation = metrics.generation
        self.last: Applied | Rejected | None = None
        self.on_applied: Callable[[Loaded], None] = lambda loaded: None

    async def reload(self) -> Applied | Rejected:
        """Read the file again and put it in force, or keep what there is and say why."""
        async with self._one_at_a_time:
            try:
                loaded = await asyncio.to_thread(load, self._path, self._environ())
                self._check_exposure(loaded.settings)
                snapshot = self._build(loaded.settings)
            except ConfigInvalid as invalid:
                self.last = self._reject(invalid)
            else:
                self.last = self._apply(loaded, snapshot)
            return self.last

    def rebuild(self) -> None:
        """Put the settings in force once more in force, with what else has changed: the keys that serve."""
        self._put_in_force(self._build(self._settings))

    def _build(self, settings: Settings) -> Snapshot:
        return build(settings, self._registry, self._metrics, self.generation + 1, self._keyring.serving)

    def _put_in_force(self, snapshot: Snapshot) -> None:
        self._swap(snapshot)
        self.generation = self._metrics.generation = snapshot.generation
        self._registry.forget_except(frozenset(snapshot.upstreams), frozenset(pool.name for pool in snapshot.pools))

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

    def _apply(self, loaded: Loaded, snapshot: Snapshot) -> Applied:
        self._settings = loaded.settings
        self._put_in_force(snapshot)
        self._metrics.reloads["applied"] += 1
        self._keyring.take(loaded.settings, "reload")
        self.on_applied(loaded)
        warnings = tuple(map(str, loaded.warnings))
        changed = [
            name for name in _AT_START_ONLY if getattr(loaded.settings, name) != getattr(self._started_with, name)
        ]
        need_restart = tuple(Settings.model_fields[name].alias or name for name in changed)
        say = self._log.warning if need_restart else self._log.info
        say("config_applied", generation=snapshot.generation, warnings=warnings, need_restart=need_restart)
        return Applied(snapshot.generation, warnings, need_restart)
