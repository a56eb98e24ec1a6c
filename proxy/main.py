"""The composition root: builds everything, introduces the two planes to each other, starts, drains, ends."""

import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path

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
from proxy.controlplane.load import Loaded
from proxy.controlplane.playground import Own, Playground
from proxy.controlplane.recorder import Recorder
from proxy.controlplane.reload import Reloader
from proxy.controlplane.status import Reporter
from proxy.controlplane.targets import Targets
from proxy.controlplane.watched_files import WatchedFiles
from proxy.controlplane.webhooks import Webhooks
from proxy.dataplane.server import DataPlane
from proxy.dataplane.tracer import Tracer
from proxy.model.address import Address
from proxy.obs.access_lines import AccessLines
from proxy.obs.log import AccessLog, Log, access_log
from proxy.obs.metrics import Metrics
from proxy.obs.recent import Recent
from proxy.obs.service import Service
from proxy.obs.spans import spans_to
from proxy.policy.canary import CanaryEvent
from proxy.state.listening import CannotListen
from proxy.state.live import Registry
from proxy.state.rising import rising
from proxy.state.snapshot import Snapshots
from proxy.state.tasks import Tasks
from proxy.workers.cells import ABOVE, Cells, Rows
from proxy.workers.nursery import Nursery
from proxy.workers.plane import Workers

Environ = Callable[[], Mapping[str, str]]
clock = time.monotonic  # noqa: TID251 - the one clock; everything below is handed it
wall_clock = time.time  # noqa: TID251 - for what others date: nothing here expires by it
CLOSING_S = 5.0  # at most, for what remains when all is drained or cut
LOOK_S = 60.0  # at certificates: of some changes nobody is told, as on network file systems


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
        nursery: Nursery | None = None,
        cells: Cells | None = None,
        follow: Collection[Path] = (),
    ) -> None:
        """`access`: where the access log goes, if not to `log`. `nursery` and `cells`: where workers are to serve.

        `follow`: the files to put in force when they change.
        """
        settings = loaded.settings
        self.settings, self.log = settings, log
        self.metrics = Metrics()
        rows = None if cells is None else Rows(cells, ABOVE)
        self.registry = Registry(clock) if rows is None else Registry(clock, limits_of=rows.limits)
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
        self.workers: Workers | None = None
        if nursery is not None and cells is not None and rows is not None:
            self.workers = Workers(nursery, cells, rows, snapshots, self.registry, self.metrics, in_force, clock, log)
            self.workers.swap(snapshots.current, settings, {})
        self.spans = None if self.workers else spans_to(settings.tracing, wall_clock, self.metrics, log)
        self.data_plane: DataPlane | Workers = self.workers or DataPlane(
            snapshots,
            clock,
            log,
            self._access,
            random.getrandbits,
            secrets.token_hex(6),
            wall_clock,
            tracer=Tracer.to(self.spans, random.getrandbits, settings.tracing),
        )
        self.metrics.connections = lambda: self.data_plane.connections
        self.metrics.workers = lambda: 1 if self.workers is None else len(self.workers.staff.ready)
        self._recent = Recent(self.metrics, clock, lambda: rising(self.registry))
        reporter = Reporter(
            snapshots,
            self.registry,
            self._recent,
            clock,
            self.metrics.connections,
            self.metrics.workers,
            self.keyring,
            self.certificates,
            self.canaries,
            self.clients,
        )
        self.metrics.members, self.metrics.pools = reporter.members, reporter.pools
        self.metrics.keys, self.metrics.rotations = reporter.keys, self.keyring.ended
        self.metrics.cooldowns = self.registry.cooldowns
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
            self.data_plane.listening_on if isinstance(self.data_plane, DataPlane) else None,
            self.targets,
            self.certificates,
            log,
        )
        self.keyring.on_change = self._keys_changed
        self.keyring.on_event = self.recorder.event
        self.clients.on_change = self.data_plane.swap_clients
        self.canaries.on_change = self._canaries_changed
        self.canaries.on_event = self._canary_told
        if self.workers is not None:
            self.canaries.on_due = self._gather
            self.reloader.settled = self.workers.settled
        self.checks = Checks(settings, self.registry, self.keyring, clock, log)
        self.reloader.on_change = self.checks.use
        self.follower = Follower(self.reloader, self.recorder, follow, log)
        self.certificate_files = WatchedFiles(self.certificates.files, self.certificates.renew, log, LOOK_S)
        self.reloader.on_applied = self._applied
        self.service = Service(environ(), clock, log)
        self.service.text = lambda: f"Serving generation {self.reloader.generation}"
        self.reloader.announced = self.service.reloading
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
            Playground(self._listeners, settings=lambda: self.reloader.settings),
            self.recorder,
            ready=lambda: self.ready,
            refresh=_nothing if self.workers is None else self.workers.refresh,
        )
        self.inherited: dict[str, list[socket.socket]] = {}  # that already listen, by address
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
        if self.spans is not None:
            self.data_plane.watch.add(self.spans)
        admin = self.admin.start(self.certificates.handshakes("admin"))
        self.admin_address = await _bound(admin, self.settings.admin.listen, "admin.listen")
        if isinstance(self.data_plane, DataPlane):
            async with self.data_plane.listening_on(self.certificates.wanted(self.settings)):
                pass
            self.addresses = self.data_plane.addresses
        else:
            for index, listener in enumerate(self.settings.listen):
                address, inherited = listener.address, self.inherited.pop(str(listener.address), [])
                listening = self.data_plane.listen(index, address.host, address.port, inherited)
                self.addresses.append(await _bound(listening, address, "listen"))
            for each in chain(*self.inherited.values()):  # where nobody is to listen any more
                each.close()
        self._tasks.spawn(self.checks.run())
        self._tasks.spawn(self.follower.run())
        self._tasks.spawn(self.certificate_files.run())
        self._tasks.spawn(self.targets.run(self.reloader.rebuild))
        if self.workers is not None:
            await self.workers.ready()
        self.ready = True
        self.log.info("serving", version=__version__, listen=self.addresses, admin=self.admin_address)
        self.data_plane.watch.add(self.service)
        self.service.ready()

    def _listeners(self) -> Iterator[Own]:
        """Where callers are served. With workers a reload opens and closes none."""
        settings, addresses = self.settings, self.addresses
        if isinstance(self.data_plane, DataPlane):
            settings, addresses = self.reloader.settings, self.data_plane.addresses
        for listener, (host, port) in zip(settings.listen, addresses, strict=False):
            fingerprint = self.certificates.fingerprint(str(listener.address))
            yield Own(host, port, fingerprint, listener.tls is not None and listener.tls.client_ca is not None)

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
        if self.workers is not None:
            self.workers.follow(self.canaries.rollouts)
        self.recorder.begin_save_canaries(self.canaries.kept)

    def _gather(self, due: Collection[str], now_s: float) -> None:
        """These are due: what closed at the workers until now is wanted first."""
        self._tasks.spawn(self._look(due, now_s))

    async def _look(self, due: Collection[str], now_s: float) -> None:
        assert self.workers is not None  # noqa: S101 - it is they who are asked
        self.canaries.look(due, now_s, await self.workers.harvests(due, now_s))

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
        if self.workers is not None:
            await self.workers.refresh()
        busy, settings = self.data_plane.busy, self.reloader.settings
        takes_s = settings.pre_drain_s + settings.drain_timeout_s + CLOSING_S
        self.service.stopping(f"Draining, {busy} requests open", takes_s)
        self.log.info("draining", open_requests=busy)
        await self.data_plane.drain(settings.pre_drain_s, settings.drain_timeout_s)

    async def rest(self) -> None:
        """Write down what must be known of all this by who takes its place."""
        await self.stop_checking()
        await self.admin.close()
        await self.webhooks.close()
        if self.canaries.rollouts:
            await self.recorder.save_canaries(self.canaries.kept)
        await self.recorder.close()

    async def close(self) -> None:
        cut = self.data_plane.busy
        await self.stop_checking()
        await self.data_plane.close()
        if self.spans is not None:
            await self.spans.close()
        await self.rest()
        if isinstance(self._access, AccessLines):
            self._access.flush()
        if self.addresses:
            self.log.info("stopped", cut_requests=cut)


async def _nothing() -> None: ...


async def _bound(listening: Awaitable[tuple[str, int]], address: Address, setting: str) -> tuple[str, int]:
    try:
        return await listening
    except OSError as error:
        raise CannotListen.on(address, error, setting) from None
