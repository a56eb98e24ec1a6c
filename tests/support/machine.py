"""Serinus as a process, on a machine that runs out of something.

What it says cannot be waited for here, for its output is what is out of order. So it is asked by way of others: its
upstream sees its checks, and `/proc` says where it listens and what it uses. Linux alone has all of that.
"""

import asyncio
import fcntl
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import proxy as package
from tests.support.patience import PATIENCE_S
from tests.support.running import config_for
from tests.support.scripted import Conversation, Held, ScriptedUpstream, whole

ROOT = Path(package.__file__).parent.parent
HOST, ADMIN_HOST = "127.0.0.1", "127.0.0.2"  # which tells the two listeners apart
TOP = f"listen: {HOST}:0\nadmin: {{listen: '{ADMIN_HOST}:0'}}\nstate_dir: state\npre_drain: 0s"
CHECKED = "health: {path: /health, interval: 400ms}"  # that is, whenever it looks, which is twice a second
PAGE_BYTES = resource.getpagesize()  # which pipes are made of
LISTENING = "0A"  # a socket's state in /proc/net/tcp
TICKS_AT_REST = 5  # of CPU, in half a second or more; a loop that spins takes ten times as many
NAPS_AT_REST = 3  # it looks at its limits ten times a second, and sleeps in between; a loop that spins never does


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the process has made `condition` true, which nothing here would be told of."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - any state may be asked for
            await asyncio.sleep(0)


class Vendor:
    """A script: answers checks and plain requests at once, and ends what is asked of /v1/stream when a test says so."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, talk: Conversation) -> None:
        while True:
            request = await talk.request()
            if b" /v1/stream " in request.line:
                await talk.send(Held.HEAD, Held.FIRST)
                await self.may_end.wait()
                await talk.send(Held.LAST)
            else:
                await talk.send(whole(b"{}"))


# --- where lines go --------------------------------------------------------------------------------------------------


class Output:
    """Where a process's lines go, and cannot be written for now."""

    most_file_bytes: int | None = None

    def __init__(self, folder: Path) -> None:
        self.said = b""
        self._reader = -1
        self.writer = self._open(folder)

    def _open(self, folder: Path) -> int:
        """A descriptor for the process."""
        return os.open("/dev/full", os.O_WRONLY)  # each write to it ends with ENOSPC

    def mend(self, process_id: int) -> None:
        """Let lines be written again."""

    def lines(self) -> list[dict[str, object]]:
        """All that was said up to now. Each line must be whole."""
        try:
            while block := os.read(self._reader, 65536):
                self.said += block
        except BlockingIOError:
            pass
        return [json.loads(line) for line in self.said.split(b"\n")[:-1] if line]

    def close(self) -> None:
        for descriptor in (self._reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)


class NoReader(Output):
    """A pipe whose reader is gone, EPIPE, and comes back."""

    def _open(self, folder: Path) -> int:
        self._path = folder / "fifo"
        os.mkfifo(self._path)
        reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(self._path, os.O_WRONLY)
        os.close(reader)
        return writer

    def mend(self, process_id: int) -> None:
        self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)


class NobodyReads(Output):
    """A pipe that is nearly full, whose reader has other things to do: a write of more than a page waits."""

    def _open(self, folder: Path) -> int:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2 * PAGE_BYTES)
        assert os.write(writer, b"\n" * (size - PAGE_BYTES)) == size - PAGE_BYTES
        return writer


class FullFile(Output):
    """A file that may not grow, amid a line, until it may: EFBIG. All of the process's files are held to that."""

    most_file_bytes = 1000

    def _open(self, folder: Path) -> int:
        writer = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._reader = os.open(folder / "log", os.O_RDONLY)
        return writer

    def mend(self, process_id: int) -> None:
        _, most = resource.prlimit(process_id, resource.RLIMIT_FSIZE)
        resource.prlimit(process_id, resource.RLIMIT_FSIZE, (most, most))


# --- the process -----------------------------------------------------------------------------------------------------


@dataclass
class Spent:
    cpu_ticks: int
    naps: int


class Process:
    """One `serinus serve` before an upstream that runs `Vendor`."""

    port: int

    def __init__(self, folder: Path, upstream: ScriptedUpstream) -> None:
        self._folder, self._upstream = folder, upstream

    async def start(self, output: Output) -> None:
        """Start it, with both its outputs in one place, and wait until it serves."""
        (self._folder / "serinus.yaml").write_text(config_for(self._upstream.url, top=TOP, upstream=CHECKED))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--config", "serinus.yaml"),
            cwd=self._folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=output.writer,
            stderr=output.writer,
            preexec_fn=None if output.most_file_bytes is None else lambda: _limit_files(output.most_file_bytes),
        )
        self.id = self._process.pid
        await self.checked()  # which begins when all listeners are open
        (self.port,) = [port for host, port in self._listeners() if host == HOST]

    def tell_to_end(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def open_files(self) -> dict[int, str]:
        """What is behind each of its descriptors."""
        found = {}
        for entry in Path(f"/proc/{self.id}/fd").iterdir():
            try:
                found[int(entry.name)] = str(entry.readlink())
            except FileNotFoundError:  # closed meanwhile
                continue
        return found

    def limit_open_files(self, most: int) -> None:
        _, hard = resource.prlimit(self.id, resource.RLIMIT_NOFILE)
        resource.prlimit(self.id, resource.RLIMIT_NOFILE, (most, hard))

    async def assert_rests(self) -> None:
        """Nothing happens: it sleeps, and uses no CPU. Counted from one check of its upstream to the next."""
        await self.checked()
        before = self._spent()
        await self.checked()
        after = self._spent()
        assert after.cpu_ticks - before.cpu_ticks <= TICKS_AT_REST
        assert after.naps - before.naps >= NAPS_AT_REST

    async def checked(self) -> None:
        """Wait until it checks its upstream once more."""
        checks = self._checks()
        await self._upstream.until(lambda: self._checks() > checks)

    def _checks(self) -> int:
        return sum(b" /v1/health " in request.line for request in self._upstream.requests)

    def _spent(self) -> Spent:
        """What it used since its start; proc(5) has the fields' places."""
        fields = Path(f"/proc/{self.id}/stat").read_text().rpartition(") ")[2].split()
        status = dict(line.split(":\t") for line in Path(f"/proc/{self.id}/status").read_text().splitlines())
        return Spent(int(fields[11]) + int(fields[12]), int(status["voluntary_ctxt_switches"]))

    def _listeners(self) -> list[tuple[str, int]]:
        behind, found = set(self.open_files().values()), []
        for line in Path(f"/proc/{self.id}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in behind:
                address, port = fields[1].split(":")
                host = ".".join(str(byte) for byte in int(address, 16).to_bytes(4, sys.byteorder))
                found.append((host, int(port, 16)))
        return found


def _limit_files(most_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
