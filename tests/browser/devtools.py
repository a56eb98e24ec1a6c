"""A headless Chromium that is driven: clicked, typed into, looked at. No driver: it speaks the DevTools Protocol.

https://chromedevtools.github.io/devtools-protocol/: JSON over one WebSocket, commands with numbers and events without.
The port is the system's choice: Chromium says it when it listens. One process serves many tests: each connects anew,
and its pages share nothing with those of others.
"""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import threading
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from tests.browser.chromium import FLAGS

PATIENCE_S = 40.0  # it only ends what would never end
# What Chromium itself notes of an answer that is no 200, or of none: no script can keep it from doing so.
NOTED_BY_ITSELF = ("network",)


class PageFailed(AssertionError):
    """A script of the page threw."""


class Browser:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def listen(self) -> None:
        async for message in self._socket:
            heard = json.loads(message.data)
            if "id" in heard:
                answer = self._answers.pop(heard["id"])
                if not answer.done():  # somebody may have stopped waiting
                    answer.set_result(heard)
            elif (page := self._pages.get(heard.get("sessionId", ""))) is not None:
                page.heard(heard["method"], heard["params"])

    async def call(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        told = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        await self._socket.send_str(json.dumps(told))
        async with asyncio.timeout(PATIENCE_S):
            found = await answer
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']}")
        result: dict[str, Any] = found["result"]
        return result

    @asynccontextmanager
    async def page(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> AsyncIterator["Page"]:
        """A page that shares nothing with others: no storage, no cache."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        try:
            target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
            attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
            for domain in ("Page", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            await page.resize(width, height, scale)
            await page.prefer(dark=dark)
            yield page
        finally:
            await self.call("Target.disposeBrowserContext", browserContextId=context)


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []  # errors and warnings of its scripts, and what its policy forbade

    def heard(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["source"] not in NOTED_BY_ITSELF:
            self.complaints.append(json.dumps(params["entry"]))

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **params)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def resize(self, width: int, height: int, scale: float = 1) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)

    async def prefer(self, *, dark: bool) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def run(self, script: str) -> Any:
        """What the expression comes to, as JSON has it."""
        found = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise PageFailed(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Wait until the expression is true, looking at each frame. Returns what it came to."""
        waiting = f"new Promise(ok => {{ const look = () => {{ let found; try {{ found = ({condition}); }} catch {{}} "
        waiting += "found ? ok(found) : setTimeout(look, 15); }; look(); })"
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        return await self.run(waiting)
                    except (RuntimeError, PageFailed) as error:
                        if not any(each in str(error) for each in ("context", "navigated")):
                            raise  # else the page was left meanwhile: look at the next one
        except TimeoutError:
            shown = await self.run("document.body.innerText")
            raise PageFailed(f"never: {condition}\n{self.complaints}\n{shown}") from None

    async def text(self, selector: str) -> str:
        found: str = await self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    async def shows(self, selector: str, text: str) -> None:
        """Wait until the element is seen, and its text has this in it."""
        place, wanted = f"document.querySelector({json.dumps(selector)})", json.dumps(text)
        await self.until(f"{place}.checkVisibility() && {place}.innerText.includes({wanted})")

    async def type(self, selector: str, text: str) -> None:
        place = json.dumps(selector)
        await self.run(f"(() => {{ const it = document.querySelector({place}); it.focus(); it.select(); }})()")
        await self.call("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """Once a pointer would meet it there. In one go: what lives may move between a look and a click."""
        place = json.dumps(selector)
        await self.until(
            f"(() => {{ const it = document.querySelector({place}); it.scrollIntoView({{block: 'center', behavior: "
            "'instant'}); const {x, y, width, height} = it.getBoundingClientRect(); "
            "const met = document.elementFromPoint(x + width / 2, y + height / 2); "
            "if (!it.contains(met)) return false; it.focus(); it.click(); return true; })()"
        )

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def picture(self, path: Path, selector: str | None = None) -> None:
        """What is in the window; or all of one element. As WebP where the name says so."""
        await self.call("Page.bringToFront")  # what is behind another is not drawn
        form = {"format": "webp", "quality": 82} if path.suffix == ".webp" else {"format": "png"}
        if selector is not None:
            place = json.dumps(selector)
            box = await self.run(
                f"(() => {{ const {{x, y, width, height}} = document.querySelector({place}).getBoundingClientRect(); "
                "return {x: x + scrollX, y: y + scrollY, width, height, scale: 1}; })()"
            )
            form |= {"clip": box, "captureBeyondViewport": True}
        found = await self.call("Page.captureScreenshot", **form)
        path.write_bytes(b64decode(found["data"]))


@contextmanager
def launched() -> Iterator[str]:
    """One Chromium: where it is to be driven. None of its processes is left at the end."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            ["chromium", *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={home}/profile", "about:blank"],
            env=os.environ | {"HOME": home, "TMPDIR": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        try:
            said = b""
            while b"DevTools listening on " not in said:
                said = process.stderr.readline()
                assert said, "chromium ended before it listened"
            reader = threading.Thread(target=process.stderr.read, daemon=True)  # lest it wait to be read
            reader.start()
            yield said.decode().partition("listening on ")[2].strip()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join()
        process.stderr.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        driven = Browser(socket)
        listening = asyncio.get_running_loop().create_task(driven.listen())
        try:
            yield driven
        finally:
            listening.cancel()
