"""`serinus serve` as a process of its own."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

import proxy as package

ROOT = Path(package.__file__).parent.parent


class SerinusProcess:
    """One process, whose log is read as it comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "serinus.yaml"
        self.said: list[str] = []

    async def start(self, config, *options, **environ):
        self.file.write_text(config)
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(self.file), *options]
        environ = os.environ | {"PYTHONPATH": str(ROOT)} | environ
        self._process = await asyncio.create_subprocess_exec(
            *command, cwd=self._folder, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        return self

    async def until(self, event):
        """The next event of that name in its log."""
        while line := await self._process.stderr.readline():
            self.said.append(line.decode())
            if line.startswith(b"{") and (found := json.loads(line))["event"] == event:
                return found
        pytest.fail(f"it ended before {event}: {self.said}")

    async def serving(self):
        """The port where it serves."""
        return (await self.until("serving"))["listen"][0][1]

    @property
    def number(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def send(self, number):
        if not self.has_ended:
            self._process.send_signal(number)

    async def ended(self):
        """Its exit code. All it said is read by then."""
        stdout, stderr = await self._process.communicate()
        assert stdout == b""
        self.said += stderr.decode().splitlines(keepends=True)
        return self._process.returncode

    async def kill(self):
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()
