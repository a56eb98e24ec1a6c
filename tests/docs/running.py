"""One command of a scene, as a process."""

import asyncio
import os
import signal
from contextlib import suppress


class Ended(Exception):
    """A process ended that was to go on."""


class Running:
    """A process in a group of its own, whose output is read as it comes."""

    def __init__(self) -> None:
        self.lasts = False
        self.text = ""
        self.status: int | None = None

    async def start(self, *command: str, environ: dict[str, str]) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *command,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._said = asyncio.Event()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        while block := await self._process.stdout.read(65536):
            self.text += block.decode(errors="replace")
            self._said.set()
        self.status = await self._process.wait()
        self._said.set()

    async def until(self, condition) -> None:
        """Waits for it, or for the end where it does not last. Raises Ended."""
        while not condition():
            if self.status is not None:
                if self.lasts:
                    raise Ended
                return
            await self._said.wait()
            self._said.clear()

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._reading
