"""The data plane, spread over worker processes, as the process above has it.

It has the same methods as `dataplane.server.DataPlane`, of which each worker has one. What is in force is told to all
workers, and to each that is new; what they count joins this process's registry and metrics, so that whoever reads those
(status, metrics, the keyring) need not know that there are workers.
"""

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from proxy.controlplane.build import Addresses, InForce
from proxy.dataplane.deadlines import Watch
from proxy.model.settings import Listener, Settings
from proxy.obs.log import Log
from proxy.obs.metrics import Metrics
from proxy.policy.canary import Enrolment, Standing
from proxy.policy.canary.counts import Harvest
from proxy.state.live import KeyLive, Registry
from proxy.state.makers import Makers
from proxy.state.snapshot import ClientKeys, Snapshot, Snapshots
from proxy.workers import messages as m
from proxy.workers.cells import Cells, Rows
from proxy.workers.counts import Sums
from proxy.workers.doorman import Doorman, bound
from proxy.workers.notes import FROM_ABOVE, Notebook
from proxy.workers.nursery import Nursery
from proxy.workers.staff import Staff, Worker

LOOK_S = 0.1
SETTLED_S = 5.0  # in which a configuration is in force everywhere
LAST_WORDS_S = 1.0  # beyond what a drain may take


class Workers:
    def __init__(
        self,
        nursery: Nursery,
        cells: Cells,
        rows: Rows,
        snapshots: Snapshots,
        registry: Registry,
        metrics: Metrics,
        in_force: InForce,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._cells, self._rows, self._registry, self._in_force = cells, rows, registry, in_force
        self._snapshots, self._log = snapshots, log
        self.watch = Watch(clock)
        self._doorman = Doorman()
        self.staff = Staff(cells.workers, nursery, clock, log)
        self.staff.on_begun, self.staff.on_heard, self.staff.on_gone = self._begun, self._hear, self._gone
        self._sums, self._notebook = Sums(registry, metrics), Notebook(registry, FROM_ABOVE)
        self._makers = Makers(clock)
        self._configuration: m.Configuration | None = None
        self._standings: dict[str, Standing] = {}
        self._heard: dict[type, Callable[[Worker, Any], object]] = {
            m.Applied: self._applied,
            m.Counts: self._counted,
            m.WasCut: lambda worker, told: worker.answer(told.number, told.cut),
            m.Notes: self._noted,
            m.Made: self._made,
            m.Ended: self._ended,
        }
        self._late: dict[str, list[Harvest]] = {}  # that came when nobody waited for them any more
        self._cut = 0  # requests, by workers that have ended
        self.deadline_s = 0.0

    # --- as the data plane ---------------------------------------------------------------------------------------

    def start(self) -> None:
        self._doorman.start()
        self.watch.add(self)
        self.watch.start()
        self.staff.begin()

    async def listen(
        self, number: int, host: str, port: int, inherited: Sequence[socket.socket] = ()
    ) -> tuple[str, int]:
        """Have callers served on an address; port 0 lets the system choose. Returns what it became. Raises OSError.

        `number`: of the listener in the configuration. `inherited`: sockets that listen there already.
        """
        sockets = inherited or await asyncio.to_thread(bound, host, port)
        address = sockets[0].getsockname()
        for each in sockets:
            self._doorman.listen(number, each)
        return str(address[0]), int(address[1])

    def swap(self, snapshot: Snapshot, settings: Settings, addresses: Addresses) -> None:
        """Have all workers build this snapshot too."""
        self._snapshots.current = snapshot
        keys = {
            (name, key.name): [(serving.secret, serving.weight) for serving in self._in_force.keys(name, key)]
            for name, upstream in settings.upstreams.items()
            for key in upstream.keys
        }
        self._standings = {name: each.standing for name, each in self._in_force.rollouts(settings).items()}
        self._configuration = m.Configuration(
            snapshot.generation,
            _shared(settings, self._opened(settings.listen), self._cells.workers),
            dict(addresses),
            keys,
            _clients(snapshot.clients),
            self._standings,
            self._rows.numbers,
        )
        self.staff.tell(self._configuration)

    def _opened(self, asked: tuple[Listener, ...]) -> tuple[Listener, ...]:
        """The listeners that there are, each at its place: of what is asked for, their certificates are new."""
        if self._configuration is None:
            return asked
        with_tls = {listener.address: listener for listener in asked if listener.tls is not None}
        before = self._configuration.settings.listen
        return tuple(each if each.tls is None else with_tls.get(each.address, each) for each in before)

    def swap_clients(self, clients: ClientKeys | None) -> None:
        """The same configuration, but who may call."""
        self._snapshots.current = replace(self._snapshots.current, clients=clients)
        if self._configuration is not None:
            told = _clients(clients)
            self._configuration = replace(self._configuration, clients=told, rows=self._rows.numbers)
            self.staff.tell(m.Clients(told, self._rows.numbers))

    def follow(self, enrolments: Mapping[str, Enrolment]) -> None:
        """What was decided of canaries, where it is new."""
        now = {name: each.standing for name, each in enrolments.items() if name in self._standings}
        news = {name: standing for name, standing in now.items() if standing != self._standings[name]}
        if news:
            self._standings.update(news)
            self.staff.tell(m.Standings(news))

    async def settled(self) -> None:
        """Until all workers have in force what they were told last, or are late."""
        generation = 0 if self._configuration is None else self._configuration.generation
        in_time = await self.staff.until(
            lambda: all(worker.generation >= generation for worker in self.staff.ready), SETTLED_S
        )
        if not in_time:
            self._log.warning("workers_late", generation=generation)

    async def ready(self) -> None:
        """Until all workers serve."""
        await self.staff.until(lambda: len(self.staff.ready) == self._cells.workers)

    async def refresh(self) -> None:
        """Hear from all workers what they counted."""
        await self.staff.ask(m.Ask)

    async def harvests(self, canaries: Collection[str], now_s: float) -> dict[str, list[Harvest]]:
        """What closed at each worker until then, by canary."""
        found: dict[str, list[Harvest]] = {name: self._late.pop(name, []) for name in canaries}
        for told in await self.staff.ask(lambda number: m.Ask(number, tuple(canaries), now_s)):
            for name, harvest in told.harvests.items():
                found[name].append(harvest)
        return found

    async def cut_holders(self, keys: Collection[KeyLive]) -> int:
        """End, visibly, what is under way with one of these keys. Returns how many there were."""
        places = frozenset(
            (name, key, fingerprint)
            for name, upstream in self._registry.upstreams.items()
            for (key, fingerprint), live in upstream.keys.items()
            if live in keys
        )
        return sum(await self.staff.ask(lambda number: m.Cut(number, keys=places)))

    async def cut_clients(self, digests: Collection[bytes]) -> int:
        """Likewise, what came with one of these clients' keys."""
        return sum(await self.staff.ask(lambda number: m.Cut(number, digests=frozenset(digests))))

    @property
    def connections(self) -> int:
        """Open ones of callers."""
        return sum(worker.connections for worker in self.staff.all)

    @property
    def busy(self) -> int:
        """How many requests are under way, as far as was told, or were until they were cut."""
        return sum(count for _, count in self._registry.inflight()) + self._cut

    async def drain(self, pre_drain_s: float, timeout_s: float) -> None:
        """Let what runs come to its end. Workers end by it."""
        self.staff.is_leaving = True
        self.staff.tell(m.Drain(pre_drain_s, timeout_s))
        await asyncio.sleep(pre_drain_s)
        self._doorman.take_no_more()
        await self._all_handed_over()
        self._shut()
        await self.staff.until(lambda: not self.staff.all, timeout_s + LAST_WORDS_S)

    async def _all_handed_over(self) -> None:
        """Who has come is with a worker, and workers know that nobody else comes: the last might find them gone."""
        loop = asyncio.get_running_loop()
        all_are = asyncio.Event()
        self._doorman.finish(lambda: loop.call_soon_threadsafe(all_are.set))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):  # there may be no worker any more
                await all_are.wait()

    def _shut(self) -> None:
        for _, listening in self.hand_over():
            listening.close()

    def hand_over(self) -> list[tuple[int, socket.socket]]:
        """Leave workers to themselves, and return the sockets that callers come by: for who takes this one's place."""
        self.staff.is_leaving = True
        return self._doorman.end()

    async def close(self) -> None:
        """End everything that is left."""
        self._shut()
        await self.staff.close()
        self.watch.stop()

    # --- what it hears, and says ---------------------------------------------------------------------------------

    def _begun(self, worker: Worker) -> None:
        if self._configuration is not None:
            worker.link.send(m.Made([(made, maker) for made, (maker, _) in self._makers.made.items()]))
            worker.link.send(self._configuration)
            worker.link.send(m.Notes(self._notebook.all()))

    def _gone(self, worker: Worker) -> None:
        self._cells.forget_worker(worker.number, len(self._rows.numbers))
        self._sums.gone(id(worker))

    def expired(self, now_s: float) -> None:
        """Time to tell what is new."""
        self.deadline_s = now_s + LOOK_S
        self.staff.bury()
        news = self._notebook.news()
        if news:
            self.staff.tell(m.Notes(news))

    def _hear(self, worker: Worker, message: object) -> None:
        self._heard[type(message)](worker, message)

    def _applied(self, worker: Worker, told: m.Applied) -> None:
        if told.problem:
            self._log.error("worker_refused", worker=worker.number, problem=told.problem)
        worker.generation = max(worker.generation, told.generation)
        if not worker.is_ready and not told.problem:
            worker.is_ready = True
            self._doorman.welcome(worker.door)
            self._log.info("worker_ready", worker=worker.number, pid=worker.pid)
        self.staff.changed()

    def _counted(self, worker: Worker, told: m.Counts) -> None:
        worker.connections = told.connections
        self._sums.add(id(worker), told.changes)
        if not worker.answer(told.number, told):
            for name, harvest in told.harvests.items():
                self._late.setdefault(name, []).append(harvest)

    def _noted(self, worker: Worker, told: m.Notes) -> None:
        """All are told, and the worker too: where two say otherwise at once, all end with what was heard here last."""
        self._notebook.heard(told.notes)
        notes = {place: value for place, value in told.notes.items() if place[0] in FROM_ABOVE}
        if notes:
            self.staff.tell(m.Notes(notes))

    def _ended(self, worker: Worker, told: m.Ended) -> None:
        self._cut += told.cut

    def _made(self, worker: Worker, told: m.Made) -> None:
        for made, maker in told.ids:
            self._makers.remember(made, maker)
        self.staff.tell(told, but=worker)


def _shared(settings: Settings, opened: tuple[Listener, ...], workers: int) -> Settings:
    """As each of them has it: what is bounded in all is divided, and who may call is told apart."""
    upstreams = {
        name: upstream.model_copy(
            update={
                "max_connections": -(-upstream.max_connections // workers),
                "keepalive": upstream.keepalive.model_copy(
                    update={
                        "max_idle": -(-upstream.keepalive.max_idle // workers),
                        "min_idle": -(-upstream.keepalive.min_idle // workers),
                    }
                ),
            }
        )
        for name, upstream in settings.upstreams.items()
    }
    canaries = {
        name: canary.model_copy(update={"max_concurrent": -(-canary.max_concurrent // workers)})
        for name, canary in settings.canaries.items()
    }
    downstream = settings.downstream.model_copy(
        update={"max_connections": -(-settings.downstream.max_connections // workers)}
    )
    told = {"upstreams": upstreams, "canaries": canaries, "downstream": downstream, "listen": opened, "clients": ()}
    return settings.model_copy(update=told)


def _clients(clients: ClientKeys | None) -> m.ClientsInForce | None:
    if clients is None:
        return None
    rules = {}
    for key in clients.by_digest.values():
        client = key.client
        if client.name not in rules:
            limits = client.live.limits
            rules[client.name] = m.ClientRules(
                client.models,
                None if limits.requests is None else limits.requests.per_minute,
                None if limits.tokens is None else limits.tokens.per_minute,
                limits.concurrent,
            )
    digests = {made: key.client.name for made, key in clients.by_digest.items()}
    return m.ClientsInForce(rules, digests, clients.peppers)
