"""A headless Chromium that opens one page: no driver, no download, and no process of it is left behind."""

import asyncio
import os
import signal
from tempfile import TemporaryDirectory

LIMIT_S = 40.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP *.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


async def browse(url: str, over: asyncio.Future[None]) -> str:
    """Opens a page, and kills the browser when `over` is done. Returns what it wrote to stderr.

    A browser that ends by itself, or at the limit, leaves `over` cancelled. All its processes hold stderr open: once
    that is read to its end, none is left that could write to the folder.
    """
    with TemporaryDirectory() as home:
        browser = await _start(url, home)
        over.add_done_callback(lambda _: _kill(browser))
        limit = asyncio.get_running_loop().call_later(LIMIT_S, over.cancel)
        try:
            _, said = await browser.communicate()
        finally:
            limit.cancel()
            over.cancel()
            _kill(browser)
    return said.decode(errors="replace")


async def _start(url: str, home: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        "chromium",
        *FLAGS,
        f"--user-data-dir={home}/profile",
        url,
        env=os.environ | {"HOME": home, "TMPDIR": home},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


def _kill(browser: asyncio.subprocess.Process) -> None:
    try:
        os.killpg(browser.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # none of the group is left
