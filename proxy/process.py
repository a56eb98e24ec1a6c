"""`serinus serve` as a process: signals, the state directory's lock, and who takes this one's place."""

import asyncio
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from pathlib import Path

import uvloop

from proxy.controlplane.load import Loaded, load
from proxy.controlplane.state_dir import locked
from proxy.main import Environ, Serinus, clock, wall_clock
from proxy.model.settings import Settings
from proxy.obs.log import Log, access_to, configure, set_level
from proxy.obs.output import Output
from proxy.state.listening import CannotListen
from proxy.state.tasks import Tasks
from proxy.workers import worker
from proxy.workers.cells import Cells
from proxy.workers.nursery import Nursery

GC_ALLOCATIONS = 50_000
CONTAINER_SHARE = Path("/sys/fs/cgroup/cpu.max")
HANDED_OVER = (
    "SERINUS_HANDED_OVER"  # to who takes this process's place: sockets by address, and workers that are to end
)


async def run(
    serinus: Serinus,
    stop: asyncio.Event,
    *,
    on_start: Callable[[], None] = lambda: None,
    on_restart: Callable[[], None] = lambda: None,
) -> None:
    """Serve until `stop` is set or a signal says so, then drain; a second signal ends at once. SIGHUP reloads.

    `on_restart`: what SIGUSR2 asks for. Raises CannotListen.
    """
    loop, stop_now, tasks = asyncio.get_running_loop(), asyncio.Event(), Tasks()

    def on_stop() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop.add_signal_handler(signal.SIGTERM, on_stop)
    loop.add_signal_handler(signal.SIGINT, on_stop)

    loop.add_signal_handler(signal.SIGHUP, lambda: tasks.spawn(serinus.follower.reload("SIGHUP")))
    loop.add_signal_handler(signal.SIGUSR2, on_restart)
    if serinus.workers is not None:
        serinus.workers.staff.on_lost = on_restart
    try:
        if await _done_before(stop, serinus.start()):
            on_start()
            await stop.wait()
            await _done_before(stop_now, serinus.drain())
    finally:
        await tasks.close()
        await serinus.close()


async def _done_before(event: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do it, unless `event` comes before it is done. Raises what it raises."""
    loop = asyncio.get_running_loop()
    doing, waiting = loop.create_task(work), loop.create_task(event.wait())
    await asyncio.wait((doing, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if doing.done():
        doing.result()
        return True
    doing.cancel()
    await asyncio.wait((doing,))
    return False


def _end_by_signals() -> None:
    """While nothing is served yet, there is nothing to drain, and to be ended is no failure."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def serve(path: Path, environ: Environ, follow: Collection[Path] = ()) -> None:
    """Serve the configuration at `path` until SIGTERM or SIGINT. `follow`: the files to put in force when they change.

    Raises ConfigInvalid, StateDirUnusable or CannotListen before anything is served.
    """
    _end_by_signals()
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
    count, cells, nursery = workers_of(settings), None, None
    if count > 1:
        cells = Cells(count)
        nursery = Nursery.begin(partial(worker.run, cells, worker.Clocks(clock, wall_clock)))
    with locked(settings.state_dir):
        try:
            uvloop.run(_serve(path, environ, loaded, log, output, nursery, cells, follow))
        finally:
            output.close()


def workers_of(settings: Settings) -> int:
    """How many processes are to serve. Raises CannotListen where there can be but one."""
    count = _cores() if settings.workers == "auto" else settings.workers
    if count > 1 and sys.platform != "linux":
        raise CannotListen(f"workers: {count} processes can serve together on Linux only: leave it out")
    return count


def _cores() -> int:
    """That this process may use: a container's are often fewer than the machine's."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    try:
        quota, period = CONTAINER_SHARE.read_text().split()
    except (OSError, ValueError):  # in none, or in one of an older kind
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


async def _serve(
    path: Path,
    environ: Environ,
    loaded: Loaded,
    log: Log,
    output: Output,
    nursery: Nursery | None,
    cells: Cells | None,
    follow: Collection[Path],
) -> None:
    access = access_to(loaded.settings.log, output, log, {})
    serinus = Serinus(path, environ, loaded, log, access=access, nursery=nursery, cells=cells, follow=follow)
    serinus.set_level = set_level
    serinus.data_plane.watch.add(output)
    _take_over(serinus)
    tasks = Tasks()

    def on_restart() -> None:
        tasks.spawn(_restart(serinus, path, environ))

    await run(
        serinus,
        asyncio.Event(),
        on_start=lambda: None if serinus.workers is None else serinus.workers.staff.end_those_before(),
        on_restart=on_restart,
    )
    output.close()
    os._exit(0)  # all is said and kept: what the loop would still wait for, as a name that is looked up, is for nobody


async def _restart(serinus: Serinus, path: Path, environ: Environ) -> None:
    """Have a new process take this one's place, as the same one: nobody above notices. Returns only if that cannot be.

    It begins with the code and the configuration that are there now. Sockets go to it, and collect callers meanwhile;
    workers serve until it has its own.
    """
    if serinus.workers is None:
        why = "there is but this process, and nobody would serve meanwhile: set workers to 2 or more"
        serinus.log.error("restart_refused", reason=why)
        return
    staff = serinus.workers.staff
    why = await asyncio.to_thread(_cannot_start, path, environ)
    if why or staff.is_leaving:
        serinus.log.error("restart_refused", reason=why or "it is under way, or all is ending")
        return
    serinus.log.info("restarting", workers=staff.pids)
    before = [*staff.pids, staff.nursery_pid]
    sockets: dict[str, list[int]] = {}
    for number, each in serinus.workers.hand_over():
        each.set_inheritable(True)
        sockets.setdefault(str(serinus.settings.listen[number].address), []).append(each.detach())
    await serinus.rest()
    os.environ[HANDED_OVER] = json.dumps({"sockets": sockets, "before": before})
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "proxy", *sys.argv[1:]])  # noqa: S606 - the same command again


def _cannot_start(path: Path, environ: Environ) -> str:
    """Why it would not come up again: asked of the code that is there now. Nothing if it would."""
    asked = [sys.executable, "-m", "proxy", "check", str(path)]
    done = subprocess.run(asked, env=environ(), capture_output=True, text=True, check=False)  # noqa: S603 - our own
    return "" if done.returncode == 0 else (done.stderr + done.stdout).strip()


def _take_over(serinus: Serinus) -> None:
    """What a predecessor handed over."""
    handed_over = json.loads(os.environ.pop(HANDED_OVER, "") or "{}")
    for address, descriptors in handed_over.get("sockets", {}).items():
        serinus.inherited[address] = sockets = [socket.socket(fileno=each) for each in descriptors]
        for each in sockets:
            each.set_inheritable(False)
            if serinus.workers is None:  # it binds its own
                each.close()
    if serinus.workers is not None:
        serinus.workers.staff.before = handed_over.get("before", [])
