"""Files that are watched, so that whoever writes one need not tell anybody: configuration, secrets, certificates.

Directories are watched, not files: editors put a new file in the place of the old one, Kubernetes a new `..data` link.
Such a change has several steps, which are told as one when nothing more happens for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from watchfiles import Change, awatch

from proxy.obs.log import Log

QUIET_MS = 200  # after the last step of a change
BUSY_MS = 1600  # in a directory that is never quiet
AGAIN_S = 5.0  # after a directory could not be watched: it may be there again


class WatchedFiles:
    """`run` calls `on_change` when something has happened to one of `files`, and every `look_s` in any case."""

    def __init__(
        self, files: Collection[Path], on_change: Callable[[], Awaitable[object]], log: Log, look_s: float
    ) -> None:
        self._on_change, self._log, self._look_s = on_change, log, look_s
        self._others = asyncio.Event()  # other files are to be watched now
        self._files = frozenset(files)

    def watch(self, files: Collection[Path]) -> None:
        """These, from now on."""
        if self._files != frozenset(files):
            self._files = frozenset(files)
            self._others.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._others.clear()
            try:
                await self._watch()
            except (OSError, RuntimeError) as error:  # as watchfiles says that a directory is not there
                self._log.warning("files_not_watched", reason=str(error))
                await asyncio.sleep(AGAIN_S)
                await self._on_change()

    async def _watch(self) -> None:
        folders = {file.parent for file in self._files}
        if not folders:
            await self._others.wait()
            return
        async for _ in awatch(
            *folders,
            watch_filter=self._concerns,
            step=QUIET_MS,
            debounce=BUSY_MS,
            stop_event=self._others,
            recursive=False,
            rust_timeout=round(self._look_s * 1000),
            yield_on_timeout=True,
        ):
            await self._on_change()

    def _concerns(self, change: Change, path: str) -> bool:
        """One of the files, or what Kubernetes puts in its place."""
        return Path(path).name.startswith("..") or Path(path) in self._files
