"""The composition root: builds everything, introduces the two planes to each other, runs, drains, ends."""

import asyncio
import gc
import os
import random
import resource
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import uvloop

from proxy import __version__
from proxy.controlplane.admin import Admin
from proxy.controlplane.admin_canaries import AdminCanaries
from proxy.controlplane.admin_clients import AdminClients
from proxy.controlplane.admin_keys import AdminKeys
from proxy.controlplane.audit import Audit
from proxy.controlplane.build import InForce, build
from proxy.controlplane.canaries import ITSELF, QUIET, Canaries, CanaryStore
from proxy.controlplane.canary_status import canary_metrics, in_percent
from proxy.controlplane.certificates import Certificates
from proxy.controlplane.checks import Checks
from proxy.controlplane.client_store import ClientStore
from proxy.controlplane.clients import Clients
from proxy.controlplane.decisions import Decisions
from proxy.controlplane.follow import Follower
from proxy.controlplane.key_store import KeyStore
from proxy.controlplane.keyring import Keyring
from proxy.controlplane.load import Loaded, load
from proxy.controlplane.recorder import Recorder
from proxy.controlplane.reload import Reloader
from proxy.controlplane.state_dir import locked
from proxy.controlplane.status import Reporter
from proxy.controlplane.targets import Targets
from proxy.controlplane.watched_files import WatchedFiles
from proxy.controlplane.webhooks import Webhooks
from proxy.dataplane.server import DataPlane
from proxy.model.settings import Settings
from proxy.obs.access_lines import AccessLines
from proxy.obs.log import AccessLog, Log, access_log, configure, set_level
from proxy.obs.metrics import Metrics
from proxy.obs.output import Output
from proxy.obs.recent import Recent
from proxy.policy.canary import CanaryEvent
from proxy.state.listening import CannotListen
from proxy.state.live import Registry
from proxy.state.snapshot import Snapshots
from proxy.state.tasks import Tasks

Environ = Callable[[], Mapping[str, str]]
clock = time.monotonic  # noqa: TID251 - the one clock; everything below is handed it
wall_clock = time.time  # noqa: TID251 - for what others date: nothing here expires by it
DRAIN_LOOK_S = 0.05
LOOK_S = 60.0  # at certificates: of some changes nobody is told, as on network file systems
GC_ALLOCATIONS = 50_000


class Serinus:
    """One running proxy."""

    def __init__(
        self,
        path: Path,
        environ: Environ,
        loaded: Loaded,
        log: Log,
        clock: Callable[[], float] = clock,
        access: AccessLog | None = None,
        wall_clock: Callable[[], float] = wall_clock,
        follow: Collection[Path] = (),
    ) -> None:
        """`access`: where the access log goes, if not to `log`. `follow`: what to put in force when it changes."""
        settings = loaded.settings
        self.settings, self.log = settings, log
        self.registry, self.metrics = Registry(clock), Metrics()
        self.certificates = Certificates(settings, wall_clock, log)
        self.keyring = Keyring(settings, self.registry, clock, random.random, log)
        state_dir = settings.state_dir.absolute()
        store = KeyStore(state_dir, loaded.vault, log)
        store.restore(self.keyring, settings)
        self.keyring.take(settings, "start")
        client_store, canary_store = ClientStore(state_dir), CanaryStore(state_dir)
        self.clients = Clients(settings, self.registry, wall_clock, client_store.load())
        self.recorder = Recorder(Audit(state_dir / "audit.log", wall_clock), store, client_store, canary_store, log)
        self.canaries = Canaries(settings, clock, random.Random(), log, canary_store.load())  # noqa: S311 - dice
        self.decisions = Decisions(wall_clock)
        self.webhooks = Webhooks(settings, clock, wall_clock, log)
        in_force = InForce(self.keyring.serving, self.clients.in_force, self.canaries.in_force)
        snapshots = Snapshots(build(settings, self.registry, self.metrics, 1, in_force=in_force))
        self.metrics.generation = 1
        self.metrics.inflight = self.registry.inflight
        self.metrics.outcomes, self.metrics.limited = self.registry.outcomes, self.registry.limited
        self._access = access or access_log(log)
        self.set_level: Callable[[str], None] = lambda level: None  # of the log
        self.data_plane = DataPlane(
            snapshots, clock, log, self._access, random.getrandbits, secrets.token_hex(6), wall_clock
        )
        self.metrics.connections = lambda: len(self.data_plane.callers.open)
        self._recent = Recent(self.metrics, clock)
        reporter = Reporter(
            snapshots,
            self.registry,
            self._recent,
            clock,
            self.metrics.connections,
            self.keyring,
            self.certificates,
            self.canaries,
        )
        self.metrics.members, self.metrics.pools = reporter.members, reporter.pools
        self.metrics.keys, self.metrics.rotations = reporter.keys, self.keyring.ended
        self.metrics.certificates = self.certificates.expiries
        self.metrics.canaries = lambda: canary_metrics(self.canaries.rollouts.items(), self.registry.canaries)
        self.metrics.transitions = self.canaries.transitions
        self.targets = Targets(settings, clock, log)
        self.reloader = Reloader(
            path,
            environ,
            loaded,
            self.registry,
            self.metrics,
            in_force,
            self.data_plane.swap,
            self.data_plane.listening_on,
            self.targets,
            self.certificates,
            log,
        )
        self.keyring.on_change = self._keys_changed
        self.keyring.on_event = self.recorder.event
        self.clients.on_change = self.data_plane.swap_clients
        self.canaries.on_change = self._canaries_changed
        self.canaries.on_event = self._canary_told
        self.checks = Checks(settings, self.registry, self.keyring, clock, log)
        self.reloader.on_change = self.checks.use
        self.follower = Follower(self.reloader, self.recorder, follow, log)
        self.certificate_files = WatchedFiles(self.certificates.files, self.certificates.renew, log, LOOK_S)
        self.reloader.on_applied = self._applied
        self._tasks = Tasks()
        self.ready = False
        keys = AdminKeys(self.keyring, self.recorder, clock, self.data_plane.cut_holders)
        clients = AdminClients(
            self.clients,
            self.registry,
            self.recorder,
            clock,
            wall_clock,
            secrets.token_bytes,
            self.data_plane.cut_clients,
        )
        canaries = AdminCanaries(
            self.canaries,
            self.recorder,
            self.decisions,
            self.webhooks,
            self.registry,
            settings=lambda: self.reloader.settings,
        )
        self.admin = Admin(
            settings.admin,
            self.metrics,
            reporter,
            self.reloader,
            keys,
            clients,
            canaries,
            self.recorder,
            ready=lambda: self.ready,
        )
        self.addresses: list[tuple[str, int]] = []
        self.admin_address = ("", 0)

    async def start(self) -> None:
        """Find the targets and open the listeners. Raises ConfigInvalid or CannotListen."""
        await self.reloader.begin()
        self.data_plane.start()
        self.data_plane.watch.add(self._recent)
        self.data_plane.watch.add(self.clients)
        self.data_plane.watch.add(self.canaries)
        self.data_plane.watch.add(self.webhooks)
        if isinstance(self._access, AccessLines):
            self.data_plane.watch.add(self._access)
        self.admin_address = await _bound(self.admin.start(self.certificates.admin), str(self.settings.admin.listen))
        async with self.data_plane.listening_on(self.certificates.wanted(self.settings)):
            pass
        self.addresses = self.data_plane.addresses
        self._tasks.spawn(self.checks.run())
        self._tasks.spawn(self.follower.run())
        self._tasks.spawn(self.certificate_files.run())
        self._tasks.spawn(self.targets.run(self.reloader.rebuild))
        self.ready = True
        self.log.info("serving", version=__version__, listen=self.addresses, admin=self.admin_address)

    async def stop_checking(self) -> None:
        """No more active checks, and no more looking for targets."""
        await self._tasks.close()

    def _applied(self, loaded: Loaded) -> None:
        self.follower.applied()
        self.certificate_files.watch(self.certificates.files)
        self.clients.take(loaded.settings)
        self.webhooks.take(loaded.settings)
        self.canaries.take(loaded.settings)
        self.keyring.take(loaded.settings, "reload")
        self.set_level(loaded.settings.log.level)

    def _canaries_changed(self) -> None:
        self.recorder.begin_save_canaries(self.canaries.kept)

    def _canary_told(self, canary: str, event: CanaryEvent, who: str) -> None:
        about = {"canary": canary, "text": event.text, "numbers": in_percent(event.numbers)}
        decision = self.decisions.add(f"canary.{event.name}", who, about)
        self.webhooks.tell(canary, event.name, decision)
        if who == ITSELF and event.name not in QUIET:  # a command is written down by who was given it
            self.recorder.event(f"canary_{event.name}", who, {"canary": canary, "said": event.text})

    def _keys_changed(self) -> None:
        self.reloader.renew()
        self.recorder.save(self.keyring)

    async def drain(self) -> None:
        """Be taken out of service, let what runs come to its end, stop listening."""
        self.ready = False
        self.data_plane.begin_drain()
        self.log.info("draining", open_requests=self.data_plane.busy)
        await asyncio.sleep(self.reloader.settings.pre_drain_s)
        self.data_plane.stop_listening()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.reloader.settings.drain_timeout_s):
                while self.data_plane.busy:  # noqa: ASYNC110 - an event would be paid for on every request
                    await asyncio.sleep(DRAIN_LOOK_S)

    async def close(self) -> None:
        cut = self.data_plane.busy
        await self.stop_checking()
        await self.data_plane.close()
        await self.admin.close()
        await self.webhooks.close()
        if self.canaries.rollouts:
            await self.recorder.save_canaries(self.canaries.kept)
        await self.recorder.close()
        if isinstance(self._access, AccessLines):
            self._access.flush()
        if self.addresses:
            self.log.info("stopped", cut_requests=cut)


async def _bound(listening: Awaitable[tuple[str, int]], address: str) -> tuple[str, int]:
    try:
        return await listening
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise CannotListen(f"cannot listen on {address}: {reason}") from None


async def run(serinus: Serinus, stop: asyncio.Event, *, on_start: Callable[[], None] = lambda: None) -> None:
    """Serve until `stop` is set or a signal says so, then drain; a second signal ends at once. SIGHUP reloads.

    Raises CannotListen.
    """
    loop, stop_now, tasks = asyncio.get_running_loop(), asyncio.Event(), Tasks()

    def on_stop() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop.add_signal_handler(signal.SIGTERM, on_stop)
    loop.add_signal_handler(signal.SIGINT, on_stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: tasks.spawn(serinus.follower.reload("SIGHUP")))
    try:
        await serinus.start()
        on_start()
        await stop.wait()
        endings = [tasks.spawn(serinus.drain()), loop.create_task(stop_now.wait())]
        _, pending = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
    finally:
        await tasks.close()
        await serinus.close()


def serve(path: Path, environ: Environ, follow: Collection[Path] = ()) -> None:
    """Serve the configuration at `path` until SIGTERM or SIGINT. `follow`: the files to put in force when they change.

    Raises ConfigInvalid, StateDirUnusable or CannotListen before anything is served.
    """
    loaded = load(path, environ())
    settings: Settings = loaded.settings
    output = Output(sys.stderr.fileno())
    log = configure(settings.log.level, settings.log.format, output)
    output.on_lost = lambda lines: log.warning("log_lines_lost", lines=lines)
    for warning in loaded.warnings:
        log.warning("config_warning", problem=str(warning))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # it would hold keys
    # What was made so far stays; what requests make is freed by its counts. So the cycle collector may look rarely.
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 10, 100)
    with locked(settings.state_dir):
        try:
            uvloop.run(_serve(path, environ, loaded, log, output, follow))
        finally:
            output.close()


async def _serve(
    path: Path, environ: Environ, loaded: Loaded, log: Log, output: Output, follow: Collection[Path]
) -> None:
    by_line = loaded.settings.log.format == "json"
    serinus = Serinus(path, environ, loaded, log, access=AccessLines(output) if by_line else None, follow=follow)
    serinus.set_level = set_level
    serinus.data_plane.watch.add(output)
    await run(serinus, asyncio.Event())
