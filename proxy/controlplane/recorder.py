"""Writes down what was done to keys and clients, and what of it must survive a restart: in turn, away from the loop.

A disk that is full, or fails, stops nobody: what could not be written holds until the process ends, and the log says
so. Who asked for it is told that it was not kept.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from proxy.controlplane.audit import Audit, Entry, read, verify
from proxy.controlplane.canaries import CanaryStore, Kept
from proxy.controlplane.client_store import ClientStore, Issued
from proxy.controlplane.key_store import KeyStore
from proxy.controlplane.keyring import Keyring
from proxy.controlplane.state_file import StateUnreadable, StateUnwritable
from proxy.obs.log import Log
from proxy.state.tasks import Tasks


class Audited(msgspec.Struct, frozen=True):
    """The audit log: how many lines hold, where it is broken if it is, and its last entries."""

    path: str
    lines: int
    broken: str
    entries: list[Entry]


@dataclass(slots=True)
class Recorder:
    audit: Audit
    keys: KeyStore
    clients: ClientStore
    canaries: CanaryStore
    log: Log
    _in_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: Tasks = field(default_factory=Tasks)
    _canaries_due: bool = False

    # What is asked for here is begun at once and goes on though who waits for it leaves: it is in force already.

    def event(self, what: str, who: str, about: dict[str, str]) -> None:
        """Something has happened that is for the audit log."""
        self._write(lambda: self.audit.append(what, who, "", about))

    def done(self, what: str, who: str, origin: str, about: dict[str, str]) -> "asyncio.Future[str]":
        """Somebody at the address `origin` has done something. Returns why it could not be recorded, or nothing."""
        return self._write(lambda: self.audit.append(what, who, origin, about))

    def save(self, keyring: Keyring) -> "asyncio.Future[str]":
        """Keep what must be known of keys after a restart. Returns why it could not be kept, or nothing."""
        now = self.keys.now(keyring)
        return self._write(lambda: self.keys.save(now))

    def save_clients(self, issued: Issued) -> "asyncio.Future[str]":
        """Likewise of clients."""
        return self._write(lambda: self.clients.save(issued))

    def begin_save_canaries(self, kept: Callable[[], Kept]) -> None:
        """Keep how rollouts fare, soon. `kept`: asked for when it is its turn, so that a slow disk has one to write."""
        if not self._canaries_due:
            self._canaries_due = True
            self._tasks.spawn(self._save_canaries(kept))

    async def _save_canaries(self, kept: Callable[[], Kept]) -> None:
        async with self._in_turn:
            pass
        self._canaries_due = False
        now = kept()
        await self._write(lambda: self.canaries.save(now))

    async def save_canaries(self, kept: Callable[[], Kept]) -> str:
        """Keep it now. Returns why it could not be kept, or nothing."""
        now = kept()
        return await self._write(lambda: self.canaries.save(now))

    async def audited(self, last: int) -> Audited:
        """Is the audit log whole, and what are its last entries?"""
        async with self._in_turn:
            return await asyncio.to_thread(self._audited, last)

    def _audited(self, last: int) -> Audited:
        path = self.audit.path
        try:
            verified = verify(path)
        except (StateUnreadable, OSError) as error:
            return Audited(str(path), 0, str(error), [])
        where = "" if verified.first_broken is None else f"line {verified.first_broken}: {verified.why}"
        return Audited(str(path), verified.lines, where, read(path, last) if last else [])

    def _write(self, write: Callable[[], object]) -> "asyncio.Future[str]":
        said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks.spawn(self._written(write, said))
        return said

    async def _written(self, write: Callable[[], object], said: "asyncio.Future[str]") -> None:
        why = ""
        try:
            async with self._in_turn:
                await asyncio.to_thread(write)
        except (StateUnwritable, StateUnreadable) as error:
            why = str(error)
            self.log.warning("state_not_written", reason=why)
        except BaseException:
            said.cancel()  # nobody is to wait for ever
            raise
        if not said.done():
            said.set_result(why)

    async def close(self) -> None:
        """Write what is still to be written."""
        await self._tasks.finish()
        self.audit.close()
