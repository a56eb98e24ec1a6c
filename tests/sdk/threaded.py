"""A synchronous SDK client with the manners of its asynchronous twin, so that one test speaks for both.

Whatever would block runs in a thread: the proxy and the upstream go on in the test's loop, over real sockets.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any

import httpx2
import pydantic

_PLAIN = (pydantic.BaseModel, str, bytes, int, float, list, tuple, Mapping, httpx2.Response, httpx2.Headers, type(None))
_END = object()


def threaded(thing: Any) -> Any:
    """What a test can look at stays as it is; what has methods that block is wrapped."""
    return thing if isinstance(thing, _PLAIN) else Threaded(thing)


class Threaded:
    """A client, a resource of one, a stream, or a manager of streams. Calls are awaited, iteration is asynchronous."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        return threaded(getattr(self._thing, name))

    def __call__(self, *args: Any, **options: Any) -> "Called":
        return Called(lambda: self._thing(*args, **options))

    def __aiter__(self) -> AsyncIterator[Any]:
        return _each(self._thing)


class Called:
    """A call that runs when it is awaited, entered or iterated, as those of the asynchronous SDKs do."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._manager: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _result(self) -> Any:
        return threaded(await asyncio.to_thread(self._call))

    async def __aenter__(self) -> Any:
        self._manager = await asyncio.to_thread(self._call)
        return threaded(await asyncio.to_thread(self._manager.__enter__))

    async def __aexit__(self, *error: Any) -> None:
        await asyncio.to_thread(self._manager.__exit__, *error)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for one in _each(await asyncio.to_thread(self._call)):
            yield one


async def _each(iterable: Any) -> AsyncIterator[Any]:
    iterator = await asyncio.to_thread(iter, iterable)
    while (one := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield one
