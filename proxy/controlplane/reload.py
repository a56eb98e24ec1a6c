"""A new configuration while running, or other targets for it: put in force whole, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from proxy.controlplane.build import Addresses, InForce, build
from proxy.controlplane.certificates import Certificates, Prepared
from proxy.controlplane.differences import need_restart
from proxy.controlplane.load import Loaded, load_content, read_anew, read_content
from proxy.controlplane.problems import ConfigInvalid, Problem
from proxy.controlplane.secrets import digests
from proxy.controlplane.targets import Targets
from proxy.model.settings import Settings
from proxy.obs.log import Log
from proxy.obs.metrics import Metrics
from proxy.state.listening import CannotListen, Wanted
from proxy.state.live import Registry
from proxy.state.snapshot import Snapshot


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


Outcome = Applied | Rejected


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
        listening_on: Callable[[Sequence[Wanted]], AbstractAsyncContextManager[None]] | None,
        targets: Targets,
        certificates: Certificates,
        log: Log,
    ) -> None:
        """`listening_on`: None where listeners stay as they are until a restart."""
        self._path, self._environ, self._started_with = path, environ, started_with.settings
        self._loaded = started_with  # in force
        self.settings = started_with.settings  # likewise
        self._registry, self._metrics, self._in_force, self._swap = registry, metrics, in_force, swap
        self._listening_on = listening_on
        self._targets, self._certificates, self._log = targets, certificates, log
        self._seen = _digest(started_with.source_digest, environ())  # of the last that was read, in force or not
        self._seen_secrets = started_with.secret_files  # likewise
        self._one_at_a_time = asyncio.Lock()
        self.generation = metrics.generation
        self.last: Outcome | None = None
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

    @property
    def secret_files(self) -> Collection[Path]:
        """That the configuration in force names."""
        return self._loaded.secret_files

    async def reload(self) -> Outcome:
        """Read the file again and put it in force, or keep what there is and say why."""
        async with self._one_at_a_time:
            with self.announced():
                return await self._take(self._load)

    async def reload_if_changed(self, content: bytes | None) -> Outcome | None:
        """Likewise, but of these bytes of the file. None: they, and the environment, are as they were the last time.

        `content`: None if the file cannot be read.
        """
        async with self._one_at_a_time:
            if await asyncio.to_thread(self._looks, content) == self._seen:
                return None
            with self.announced():
                return await self._take(lambda: self._load(content))

    async def read_secrets_if_changed(self) -> Outcome | None:
        """Take the secrets of the configuration in force as they are now. What its file says meanwhile is not read."""
        async with self._one_at_a_time:
            now = await asyncio.to_thread(digests, self._loaded.secret_files)
            if now == self._seen_secrets:
                return None
            self._seen_secrets = now
            return await self._take(lambda: read_anew(self._loaded, self._path, self._environ()))

    def _load(self, content: bytes | None = None) -> Loaded:
        self._seen = b""
        content = read_content(self._path) if content is None else content
        environ = self._environ()
        self._seen = _digest(sha256(content).hexdigest(), environ)
        return load_content(self._path, content, environ)

    def _looks(self, content: bytes | None) -> bytes:
        """What tells it from others."""
        try:
            return b"" if content is None else _digest(sha256(content).hexdigest(), self._environ())
        except ConfigInvalid:
            return b""

    async def _take(self, read: Callable[[], Loaded]) -> Outcome:
        try:
            loaded = await asyncio.to_thread(read)
            certificates = await self._certificates.prepare(loaded.settings)
            addresses = await self._targets.look_up(loaded.settings)
            async with self._listening(loaded.settings, certificates):
                self._put_in_force(loaded.settings, addresses, self.generation + 1)
        except ConfigInvalid as invalid:
            self.last = self._reject(invalid.problems)
        except CannotListen as error:
            self.last = self._reject((Problem(("listen",), None, str(error), str(self._path)),))
        else:
            self._loaded, self._seen_secrets = loaded, loaded.secret_files
            self._targets.use(loaded.settings, addresses)
            self._certificates.use(certificates)
            self.on_applied(loaded)
            self.last = self._applied(loaded)
            await self._certificates.renew()
            await self.settled()
        return self.last

    def _listening(self, settings: Settings, certificates: Prepared) -> AbstractAsyncContextManager[None]:
        """Raises ConfigInvalid, or CannotListen when it is entered."""
        if self._listening_on is not None:
            return self._listening_on(certificates.wanted(settings))
        self._check_exposure(settings)
        return nullcontext()

    def _check_exposure(self, settings: Settings) -> None:
        """Anyone may call where no clients are listed, and that was judged by the file's listeners: ours stay open."""
        if settings.clients or settings.allow_anonymous:
            return
        exposed = [listener.address for listener in self._started_with.listen if not listener.address.is_loopback]
        message = "none are listed, and {}, which others can reach, is open until a restart: list clients, or restart"
        if exposed:
            raise ConfigInvalid(tuple(Problem(("clients",), None, message.format(address)) for address in exposed))

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

    def _reject(self, found: Iterable[Problem]) -> Rejected:
        problems = tuple(map(str, found))
        self._metrics.reloads["rejected"] += 1
        self._log.error("config_rejected", generation_in_force=self.generation, problems=problems)
        return Rejected(self.generation, problems)

    def _applied(self, loaded: Loaded) -> Applied:
        self._metrics.reloads["applied"] += 1
        warnings = tuple(map(str, loaded.warnings))
        waiting = need_restart(self._started_with, loaded.settings, listen=self._listening_on is None)
        say = self._log.warning if waiting else self._log.info
        say("config_applied", generation=self.generation, warnings=warnings, need_restart=waiting)
        return Applied(self.generation, warnings, waiting)


def _digest(source_digest: str, environ: Mapping[str, str]) -> bytes:
    """Of what a configuration is read from, but for the files that it names."""
    return sha256(f"{source_digest} {sorted(environ.items())}".encode()).digest()
