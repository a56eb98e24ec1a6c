"""Takes the pictures of the status page that the documents show: a demo whose canary is rolled back, in a real browser.

python -m tests.browser.take_pictures FOLDER
"""

import asyncio
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.browser.devtools import Browser, Page, connected, launched
from tests.support.process import ROOT

DEMO = ("-m", "proxy", "demo", "--bad-canary", "--plain", "--port", "0", "--admin-port", "0")
LONGEST_S = 240.0  # until the canary is decided
WIDTH, HEIGHT = 1280, 920
EVIDENT = "document.querySelector('.meter .worse').ariaValueNow > 40"
DECIDED = "document.querySelector('.canary .standing').innerText === 'failed'"


async def main(folder: Path) -> None:
    with TemporaryDirectory() as home, launched() as chromium:
        demo = await asyncio.create_subprocess_exec(
            sys.executable,
            *DEMO,
            cwd=home,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LONGEST_S), connected(chromium) as browser:
                await pictures(browser, await page_of(demo), folder)
        finally:
            demo.terminate()
            await demo.communicate()


async def page_of(demo: asyncio.subprocess.Process) -> str:
    """Its address, which the demo prints."""
    assert demo.stdout is not None
    while line := await demo.stdout.readline():
        if found := re.match(rb"open (\S+)", line):
            return found[1].decode()
    raise RuntimeError("the demo ended before it served")


async def pictures(browser: Browser, url: str, folder: Path) -> None:
    async with browser.page(WIDTH, HEIGHT, scale=1.5) as desktop:
        await desktop.open(url)
        await until(desktop, EVIDENT)
        await desktop.picture(folder / "status-page-light.webp")
        async with browser.page(390, 844, scale=2) as phone:
            await phone.open(url)
            await phone.until("document.querySelector('.plot .line.worse')")
            await phone.run("document.querySelector('#canaries').scrollIntoView({behavior: 'instant'})")
            await phone.picture(folder / "status-page-phone.webp")
        await until(desktop, DECIDED)
        await desktop.prefer(dark=True)
        await desktop.picture(folder / "status-page-dark.webp")
        await desktop.prefer(dark=False)
        await played(desktop)
        await desktop.picture(folder / "status-page-playground.webp", "#playground .columns")


async def played(page: Page) -> None:
    await page.run("document.querySelector('#model').focus()")
    await page.until("document.querySelector('#model').value")
    await page.click("#send")
    await page.shows(".said", "Whole")


async def until(page: Page, condition: str) -> None:
    """However long that takes."""
    while True:
        try:
            await page.until(condition)
            return
        except AssertionError:
            continue


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
