"""A configuration that changes in its file is put in force, and so are secrets that change in theirs.

A half-written file is never read: beside the quiet that watching waits for, the system is asked whether anybody has the
file open for writing, by way of a lease (fcntl(2)), which it grants when nobody has. While we hold one, whoever wants
to write waits; it is given back as soon as the file is read. Some file systems grant none: then the quiet must do.
"""

import asyncio
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path

from proxy.controlplane.load import FILE_BYTES_MAX
from proxy.controlplane.recorder import Recorder
from proxy.controlplane.reload import Applied, Outcome, Reloader
from proxy.controlplane.watched_files import WatchedFiles
from proxy.obs.log import Log

LOOK_S = 10.0  # at the files: of some changes nobody is told, as on network file systems
AGAIN_S = 0.1  # while somebody writes
HELD_OPEN_S = 60.0  # with the same bytes all the time: NFS says so of any file that it has no delegation for


class Follower:
    """Looks at the files when they change, and now and then."""

    def __init__(self, reloader: Reloader, recorder: Recorder, sources: Collection[Path], log: Log) -> None:
        """`sources`: what the configuration is read from, its file first. None: only secrets are read again."""
        self._reloader, self._recorder = reloader, recorder
        self._sources = [path.absolute() for path in sources]
        self._watched = WatchedFiles(self._files(), self.look, log, LOOK_S)

    def _files(self) -> frozenset[Path]:
        return frozenset((*self._sources, *self._reloader.secret_files))

    def applied(self) -> None:
        """Another configuration is in force: it may name other files."""
        self._watched.watch(self._files())

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._watched.run()

    async def look(self) -> None:
        """Put in force what has changed."""
        if self._sources:
            content, *_ = [await _whole(source) for source in self._sources]
            await self._record(await self._reloader.reload_if_changed(content), str(self._sources[0]))
        await self._reloader.read_secrets_if_changed()

    async def reload(self, who: str) -> None:
        """Somebody asks for it, changed or not."""
        await self._record(await self._reloader.reload(), who)

    async def _record(self, outcome: Outcome | None, who: str) -> None:
        if outcome is not None:
            await self._recorder.done("configuration_reloaded", who, "", audited(outcome))


def audited(outcome: Outcome) -> dict[str, str]:
    """What the audit log says of a reload."""
    result = "applied" if isinstance(outcome, Applied) else "rejected"
    return {"result": result, "generation": str(outcome.generation)}


async def _whole(path: Path) -> bytes | None:
    """The file's bytes, when nobody writes it any more. None: it cannot be read."""
    before, same_s = None, 0.0
    while True:
        content, being_written = await asyncio.to_thread(_look, path)
        if not being_written or same_s >= HELD_OPEN_S:
            return content
        same_s = same_s + AGAIN_S if content == before else 0.0
        before = content
        await asyncio.sleep(AGAIN_S)


def _look(path: Path) -> tuple[bytes | None, bool]:
    """The file's bytes, and whether somebody has it open for writing, as far as the system tells."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None, False
    with os.fdopen(descriptor, "rb") as file:  # which ends the lease, too
        being_written = not _lease(descriptor)
        try:
            return file.read(FILE_BYTES_MAX + 1), being_written
        except OSError:
            return None, False


def _lease(descriptor: int) -> bool:
    """Keep writers waiting until it is closed. False if there is one already."""
    if sys.platform != "linux":
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # for a writer that comes: SIGIO would end the process
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:  # of another user's file, or a file system without leases
        return error.errno != errno.EAGAIN
    return True
