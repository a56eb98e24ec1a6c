"""Files that hold secrets or certificates, watched: whoever writes a new one need not tell anybody.

Directories are watched, not files: editors put a new file in the place of the old one, Kubernetes a new `..data` link.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from watchfiles import Change, awatch

from proxy.obs.log import Log

AGAIN_S = 5.0  # after a directory could not be watched: it may be there again


class SecretFiles:
    """`run` calls `on_change` when something has happened to one of `files`, and every `look_s` in any case."""

    def __init__(
        self, files: Collection[Path], on_change: Callable[[], Awaitable[object]], log: Log, look_s: float | None = None
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
                self._log.warning("secret_files_not_watched", reason=str(error))
                await asyncio.sleep(AGAIN_S)

    async def _watch(self) -> None:
        folders = {file.parent for file in self._files}
        if not folders:
            await self._others.wait()
            return
        async for _ in awatch(
            *folders,
            watch_filter=self._concerns,
            stop_event=self._others,
            recursive=False,
            rust_timeout=None if self._look_s is None else round(self._look_s * 1000),
            yield_on_timeout=self._look_s is not None,
        ):
            await self._on_change()

    def _concerns(self, change: Change, path: str) -> bool:
        """One of the files, or what Kubernetes puts in its place."""
        return Path(path).name.startswith("..") or Path(path) in self._files
