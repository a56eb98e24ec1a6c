"""A worker: a process with a data plane, and a link to the process above, which says what is in force.

It decides nothing for others. When the process above is gone it serves on for as long as a successor may take to come,
then lets what runs come to its end, and ends.
"""

import asyncio
import random
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import uvloop

from proxy.controlplane.build import InForce, build
from proxy.controlplane.certificates import Certificates
from proxy.controlplane.problems import ConfigInvalid
from proxy.controlplane.serving import Serving, live_of
from proxy.controlplane.watched_files import WatchedFiles
from proxy.dataplane.server import DataPlane
from proxy.dataplane.tracer import Tracer
from proxy.model.settings import Settings, UpstreamKey
from proxy.obs.access_lines import AccessLines
from proxy.obs.log import Log, access_to, configure, set_level
from proxy.obs.metrics import Metrics
from proxy.obs.output import Output
from proxy.obs.spans import Spans, spans_to
from proxy.policy.canary import CanarySpec, Enrolment, Standing
from proxy.state.live import Registry
from proxy.state.snapshot import Client, ClientKey, ClientKeys, Snapshots
from proxy.state.tasks import Tasks
from proxy.workers import messages as m
from proxy.workers.cells import Cells, Rows
from proxy.workers.counts import Counted
from proxy.workers.door import Door
from proxy.workers.link import Link
from proxy.workers.notes import OF_WORKERS, Notebook
from proxy.workers.telling_makers import TellingMakers

LOOK_S = 0.1
COUNTED_EVERY = 5  # looks
RENEW_S = 60.0  # of some changes of certificates nobody is told, as on network file systems


@dataclass(frozen=True, slots=True)
class Clocks:
    monotonic: Callable[[], float]
    wall: Callable[[], float]


def run(cells: Cells, clocks: Clocks, worker: int, link: socket.socket, door: socket.socket) -> None:
    """Serve until the process above says otherwise, or is gone."""
    random.seed()
    uvloop.run(Worker(cells, clocks, worker, door).run(link))


class Worker:
    def __init__(self, cells: Cells, clocks: Clocks, number: int, door: socket.socket) -> None:
        self._clocks, self._number = clocks, number
        self._rows = Rows(cells, number)
        self._registry, self._metrics = Registry(clocks.monotonic, limits_of=self._rows.limits), Metrics()
        self._counted = Counted(self._registry, self._metrics)
        self._notebook = Notebook(self._registry, OF_WORKERS)
        self._makers = TellingMakers(clocks.monotonic)
        self._enrolments: dict[str, Enrolment] = {}
        self._link = Link(self._hear, self._lost)
        self._heard: dict[type, Callable[[Any], object]] = {
            m.Configuration: self._configure,
            m.Clients: self._take_clients,
            m.Standings: self._follow,
            m.Notes: lambda told: self._notebook.heard(told.notes),
            m.Made: self._hear_of_makers,
            m.Ask: lambda told: self._tell_counts(told.number, told.canaries, told.now_s),
            m.Cut: lambda told: self._tasks.spawn(self._cut(told)),
            m.Drain: self._begin_drain,
        }
        self._tasks = Tasks()
        self._door = Door(door, self._tasks, lambda: self._certificates)
        self._stop, self._stop_now = asyncio.Event(), asyncio.Event()
        self._drain = m.Drain(0.0, 0.0)
        self._was_signalled = False
        self._looks = self._told = 0
        self.deadline_s = 0.0
        # Once it is configured:
        self._plane: DataPlane | None = None
        self._log: Log
        self._settings: Settings
        self._certificates: Certificates
        self._spans: Spans | None

    async def run(self, link: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._signalled)
        link.setblocking(False)
        await loop.create_connection(lambda: self._link, sock=link)
        await self._stop.wait()
        plane = self._plane
        if plane is None:
            self._link.close()
            return
        draining = [self._tasks.spawn(self._end(plane)), loop.create_task(self._stop_now.wait())]
        await asyncio.wait(draining, return_when=asyncio.FIRST_COMPLETED)
        draining[1].cancel()
        self._door.close()
        self._link.send(m.Ended(plane.busy))
        await plane.close()
        if self._spans is not None:
            await self._spans.close()
        self._tell_counts(0)
        self._link.close()
        await self._tasks.close()
        self._output.close()

    async def _end(self, plane: DataPlane) -> None:
        if self._was_signalled:  # alone, perhaps: with ever fewer connections it would be handed all that come
            self._door.take()
            self._door.close()
        await plane.drain(self._drain.pre_drain_s, self._drain.timeout_s, lambda: self._door.expects)

    def _signalled(self) -> None:
        """Somebody wants this worker to end: at once, if it is told a second time."""
        if self._was_signalled:
            self._stop_now.set()
        self._was_signalled = True
        self._end_soon()

    def _end_soon(self) -> None:
        if self._plane is not None and not self._stop.is_set():
            self._drain = m.Drain(self._settings.pre_drain_s, self._settings.drain_timeout_s)
        self._stop.set()

    def _lost(self) -> None:
        """The process above is gone. Its successor, if there is one, says when to end."""
        if not self._stop.is_set():
            wait_s = 0.0 if self._plane is None else self._settings.pre_drain_s
            asyncio.get_running_loop().call_later(wait_s, self._end_soon)

    # --- what it is told -----------------------------------------------------------------------------------------

    def _hear(self, message: object) -> None:
        self._heard[type(message)](message)

    def _follow(self, told: m.Standings) -> None:
        for name, standing in told.canaries.items():
            if name in self._enrolments:
                self._enrolments[name].follow(standing, self._clocks.monotonic())

    def _hear_of_makers(self, told: m.Made) -> None:
        for made, maker in told.ids:
            self._makers.heard(made, maker)

    def _take_clients(self, told: m.Clients) -> None:
        self._rows.numbers.update(told.rows)
        self._tell_counts(0)  # before any are forgotten
        if self._plane is not None:
            self._plane.swap_clients(self._clients(told.clients))

    def _begin_drain(self, told: m.Drain) -> None:
        """End at once, if it is told again."""
        self._drain = told
        (self._stop_now if self._stop.is_set() else self._stop).set()

    def _configure(self, told: m.Configuration) -> None:
        self._rows.numbers.update(told.rows)
        self._tell_counts(0)  # before any are forgotten
        problem = ""
        try:
            self._put_in_force(told)
        except ConfigInvalid as invalid:
            problem = "; ".join(map(str, invalid.problems))
        self._link.send(m.Applied(told.generation, problem))
        if self._plane is None:  # it cannot serve; another one may
            self._stop.set()

    def _put_in_force(self, told: m.Configuration) -> None:
        """Raises ConfigInvalid; then nothing has changed."""
        settings, now_s = told.settings, self._clocks.monotonic()

        def keys(upstream: str, key: UpstreamKey) -> list[Serving]:
            values = told.keys[upstream, key.name]
            return [Serving(v, live_of(self._registry, upstream, key, v), weight) for v, weight in values]

        enrolments = {
            name: self._enrolment(name, CanarySpec.of(settings.canaries[name]), standing, now_s)
            for name, standing in told.canaries.items()
        }
        in_force = InForce(keys, lambda _: self._clients(told.clients), lambda _: enrolments)
        snapshot = build(settings, self._registry, self._metrics, told.generation, told.addresses, in_force)
        self._settings, self._enrolments = settings, enrolments
        if self._plane is None:
            self._begin(Snapshots(snapshot))
        else:
            self._plane.swap(snapshot, settings, told.addresses)
            set_level(settings.log.level)
            self._tasks.spawn(self._renew(settings))
        members = {pool.name: [member.live for member in pool.members] for pool in snapshot.pools}
        self._registry.forget_except(snapshot.upstreams.keys(), members)

    def _enrolment(self, name: str, spec: CanarySpec, standing: Standing, now_s: float) -> Enrolment:
        known = self._enrolments.get(name)
        if known is None or known.spec.hash != spec.hash:
            return Enrolment(spec, random.Random(), standing, now_s)  # noqa: S311 - dice
        known.follow(standing, now_s)
        return known

    def _clients(self, told: m.ClientsInForce | None) -> ClientKeys | None:
        if told is None:
            return None
        now_s = self._clocks.monotonic()
        clients = {}
        for name, rules in told.rules.items():
            live = self._registry.client(name)
            live.limits.reconfigured(rules.requests_per_minute, rules.tokens_per_minute, rules.concurrent, now_s)
            limited = rules.requests_per_minute is not None or rules.tokens_per_minute is not None
            clients[name] = Client(name, rules.models, live, limited, rules.tokens_per_minute is not None)
        self._registry.forget_clients_except(clients)
        by_digest = {made: ClientKey(made, clients[name]) for made, name in told.digests.items()}
        return ClientKeys(by_digest, told.peppers)

    async def _renew(self, settings: Settings) -> None:
        try:
            self._certificates.use(await self._certificates.prepare(settings))
        except ConfigInvalid as invalid:
            self._log.error("certificate_not_read", problems=tuple(map(str, invalid.problems)))
        await self._certificates.renew()
        self._certificate_files.watch(self._certificates.files)

    async def _cut(self, message: m.Cut) -> None:
        plane = self._plane
        if plane is None:
            return
        lives = [
            live
            for upstream, key, fingerprint in message.keys
            if upstream in self._registry.upstreams
            and (live := self._registry.upstreams[upstream].keys.get((key, fingerprint))) is not None
        ]
        cut = await plane.cut_clients(message.digests) if message.digests else await plane.cut_holders(lives)
        self._link.send(m.WasCut(message.number, cut))

    # --- serving -------------------------------------------------------------------------------------------------

    def _begin(self, snapshots: Snapshots) -> None:
        settings, clocks = self._settings, self._clocks
        self._output = output = Output(sys.stderr.fileno())
        self._log = log = configure(settings.log.level, settings.log.format, output).bind(worker=self._number)
        output.on_lost = lambda lines: log.warning("log_lines_lost", lines=lines)
        access = access_to(settings.log, output, log, {"worker": self._number})
        self._certificates = Certificates(settings, clocks.wall, log)
        self._spans = spans = spans_to(settings.tracing, clocks.wall, self._metrics, log)
        self._plane = plane = DataPlane(
            snapshots,
            clocks.monotonic,
            log,
            access,
            random.getrandbits,
            secrets.token_hex(6),
            clocks.wall,
            self._makers,
            Tracer.to(spans, random.getrandbits, settings.tracing),
        )
        plane.start()
        if spans is not None:
            plane.watch.add(spans)
        plane.watch.add(output)
        if isinstance(access, AccessLines):
            plane.watch.add(access)
        plane.watch.add(self)
        self._makers.on_made = lambda made, maker: self._link.send(m.Made([(made, maker)]))
        self._certificate_files = WatchedFiles(self._certificates.files, self._certificates.renew, log, RENEW_S)
        self._tasks.spawn(self._certificate_files.run())
        self._door.open(plane)

    def expired(self, now_s: float) -> None:
        """Time to say what is new."""
        self.deadline_s = now_s + LOOK_S
        self._door.look()
        if news := self._notebook.news():
            self._link.send(m.Notes(news))
        self._looks += 1
        if self._looks % COUNTED_EVERY == 0:
            self._tell_counts(0)

    def _tell_counts(self, number: int, canaries: Collection[str] = (), now_s: float = 0.0) -> None:
        harvests = {name: self._enrolments[name].harvest(now_s) for name in canaries if name in self._enrolments}
        connections = 0 if self._plane is None else len(self._plane.callers.open)
        changes = self._counted.changes()
        if number or changes or connections != self._told:
            self._told = connections
            self._link.send(m.Counts(number, changes, connections, harvests))
