"""Tasks that somebody owns. A task that nobody keeps may be collected in mid-flight, and its error is lost."""

import asyncio
from collections.abc import Coroutine


class Tasks:
    """Background work of one owner, kept until it ends and ended with its owner."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Begin `work`. An error that escapes it goes to the event loop's exception handler, which logs it."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "a background task failed", "exception": error, "task": task}
            )

    def __len__(self) -> int:
        return len(self._running)

    async def finish(self) -> None:
        """Wait until all of it has ended by itself."""
        while self._running:
            await asyncio.wait(tuple(self._running))

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
