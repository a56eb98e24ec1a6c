"""The status page in a real browser: what it shows, to whom, at which width; and that it goes on by itself."""

import asyncio
import json

import pytest

from proxy.controlplane import status_feed
from tests.browser.devtools import connected, launched
from tests.controlplane.test_admin import TOKENS
from tests.dataplane.test_arms import asked
from tests.dataplane.test_arms import config as canary_config
from tests.support.running import config_for
from tests.support.scripted import answering, whole

DESKTOP, PHONE = (1280, 900), (360, 740)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LADDER = "steps: [{set_weight: 25}, {pause: {}}, {set_weight: 50}, {set_weight: 100}]"
# Each text that is seen, against what is behind it: WCAG 2.2, 1.4.3.
CONTRASTS = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const part = (value) => ((value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (it) => { const found = parse(getComputedStyle(it).backgroundColor);
    return found[3] !== 0 || !it.parentElement ? found : behind(it.parentElement); };
  const low = [];
  for (const it of document.querySelectorAll("body *")) {
    const own = [...it.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    if (!own || !it.checkVisibility()) continue;
    const style = getComputedStyle(it);
    const two = [light(parse(it instanceof SVGElement ? style.fill : style.color)), light(behind(it))];
    const contrast = (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
    if (contrast < 4.5) low.push(`${it.textContent.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return low;
})()"""
NAMELESS = """[...document.querySelectorAll("button, input, select, textarea")]
  .filter((it) => !it.ariaLabel && !it.labels?.length && !it.textContent.trim()).map((it) => it.id)"""


@pytest.fixture(scope="module")
def chromium():
    with launched() as url:
        yield url


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(status_feed, "EVERY_S", 0.05)


@pytest.fixture
async def browser(chromium):
    async with connected(chromium) as browser:
        yield browser


async def assert_well(page):
    """It fits its window, and nobody complained."""
    assert await page.run("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.complaints == []


# --- what it shows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_shows_pools_upstreams_keys_and_clients(browser, proxy, scripted, size, dark):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, upstream.url))
    async with browser.page(*size, dark=dark) as page:
        await page.open(running.admin_url)
        await page.shows("#pools", "up0")
        await page.shows("#pools", "idle")  # as its upstream, of which nothing was asked
        await page.shows("#upstreams", "up1")
        await page.shows("#keys", "up0 / main")
        await page.shows("#clients", "tester")
        await page.shows("#link", "live")
        await assert_well(page)
        assert await page.run(CONTRASTS) == []
        assert await page.run(NAMELESS) == []


async def test_it_follows_what_passes(browser, proxy, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, clients=False))
    async with browser.page(*DESKTOP) as page:
        await page.open(running.admin_url)
        await page.shows(".tile.requests", "0.0")
        await asked(running, 20)
        running.pass_time(10)
        await page.until("parseFloat(document.querySelector('.tile.requests .value').innerText) > 1")
        await page.until("document.querySelector('.tile.requests .spark-line').getAttribute('d').includes('L')")
        await page.shows("#upstreams", "20 ok")  # and to look on made no call
        await assert_well(page)


async def test_a_narrow_window_is_no_page_to_scroll_sideways_when_it_is_turned(browser, proxy):
    running = await proxy(config_for("http://127.0.0.1:1/a-rather-long-path-that-goes-on/and-on/without-an-end"))
    async with browser.page(*PHONE) as page:
        await page.open(running.admin_url)
        await page.shows("#upstreams", "without-an-end")
        for width in (360, 420, 700, 760, 1024):
            await page.resize(width, 740)
            await page.until(f"innerWidth === {width}")
            await assert_well(page)


async def test_the_theme_is_the_systems_until_one_is_chosen_and_then_stays(browser, proxy):
    running = await proxy(config_for("http://127.0.0.1:1"))
    ground = "getComputedStyle(document.body).backgroundColor"
    async with browser.page(*DESKTOP) as page:
        await page.open(running.admin_url)
        light = await page.run(ground)
        await page.prefer(dark=True)
        dark = await page.run(ground)
        assert light != dark
        await page.click("#theme")
        assert (await page.run(ground), await page.text("#theme")) == (light, "Theme: light")
        await page.open(running.admin_url)
        assert await page.run(ground) == light
        await page.click("#theme")
        assert (await page.run(ground), await page.text("#theme")) == (dark, "Theme: dark")
        await assert_well(page)


async def test_the_keyboard_reaches_the_content_first(browser, proxy):
    running = await proxy(config_for("http://127.0.0.1:1"))
    async with browser.page(*DESKTOP) as page:
        await page.open(running.admin_url)
        await page.press("Tab")
        assert await page.run("document.activeElement.getAttribute('href')") == "#content"
        assert await page.run("document.querySelectorAll('main, header, nav').length") == 3


# --- the token -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_it_asks_for_a_token_says_when_it_is_wrong_and_forgets_it(browser, proxy, size):
    running = await proxy(TOKENS + config_for("http://127.0.0.1:1"))
    async with browser.page(*size) as page:
        await page.open(running.admin_url)
        await page.shows("#unlock", "A token is needed")
        assert await page.run("document.activeElement.id") == "token"
        assert "up0" not in await page.text("body")
        await assert_well(page)
        await page.type("#token", "a-wrong-one")
        await page.click("#unlock button")
        await page.shows("#unlock-why", "not one of them")
        await page.type("#token", "ops-token")
        await page.click("#unlock button")
        await page.shows("#pools", "up0")
        await assert_well(page)
        await page.open(running.admin_url)  # it is kept for the tab
        await page.shows("#pools", "up0")
        assert await page.run("[localStorage.length, document.cookie, location.search]") == [0, "", ""]
        await page.click("#forget")
        await page.shows("#unlock", "A token is needed")
        assert await page.run("sessionStorage.length") == 0
        assert "up0" not in await page.text("body")
        await assert_well(page)


# --- a restart -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_it_says_that_the_proxy_is_not_there_and_goes_on_when_it_is_back(browser, proxy, size, held_port):
    config = TOKENS.replace("{listen: 127.0.0.1:0", f"{{listen: 127.0.0.1:{held_port}") + config_for(
        "http://127.0.0.1:1"
    )
    running = await proxy(config)
    async with browser.page(*size) as page:
        await page.open(running.admin_url)
        await page.until("document.activeElement.id === 'token'")
        await page.type("#token", "ops-token")
        await page.click("#unlock button")
        await page.shows("#link", "live")
        await page.run("document.querySelector('#prompt').value = 'is still there'")
        await running.stop()
        await page.shows("#notice", "The proxy is not there since")
        await page.shows("#link", "not there")
        await assert_well(page)
        await proxy(config.replace("up0", "new0"))
        await page.shows("#link", "live")
        await page.until("document.querySelector('#notice').hidden")
        await page.shows("#pools", "new0")
        assert "up0" not in await page.text("#pools")
        assert await page.run("document.querySelector('#prompt').value") == "is still there"
        await assert_well(page)


async def test_it_says_when_the_proxy_drains(browser, proxy):
    running = await proxy(config_for("http://127.0.0.1:1"))
    async with browser.page(*DESKTOP) as page:
        await page.open(running.admin_url)
        await page.shows("#link", "live")
        running.serinus.ready = False
        await page.shows("#link", "draining")
        await assert_well(page)


# --- canaries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_a_canary_is_shown_with_its_past_and_as_it_goes_on(browser, proxy, scripted, size):
    old, new = await scripted(answering(whole(b"{}"))), await scripted(answering(whole(b"{}")))
    running = await proxy(canary_config(old.url, new.url, LADDER))
    for _ in range(5):  # before anybody looks
        running.pass_time(5)
        await asked(running, 12)
    corners = "(document.querySelector('.plot .line.{}').getAttribute('d').match(/[ML]/g).length)"
    async with browser.page(*size) as page:
        await page.open(running.admin_url)
        await page.until(corners.format("worse") + " > 3")
        await page.until("document.querySelectorAll('.plot .line.threshold').length")
        await page.shows(".canary .about", "25")
        assert await page.text("[aria-current=step]") == "25 %"
        assert await page.run("document.querySelectorAll('.plot .line.baseline').length") == 2
        running.serinus.canaries.command("trial", "promote", "ops", reason="we know it")
        await page.shows("[aria-current=step]", "50")
        await page.shows("#decisions", "we know it")
        running.serinus.canaries.command("trial", "abort", "ops", reason="too soon")
        await page.shows(".canary .decision", "too soon")
        await assert_well(page)
        assert await page.run(CONTRASTS) == []


async def test_the_plot_is_read_by_the_keyboard(browser, proxy, scripted):
    old, new = await scripted(answering(whole(b"{}"))), await scripted(answering(whole(b"{}")))
    running = await proxy(canary_config(old.url, new.url, LADDER))
    running.pass_time(5)
    async with browser.page(*DESKTOP) as page:
        await page.open(running.admin_url)
        await page.until("document.querySelector('.plot')?.getAttribute('aria-label')?.includes('25 %')")
        await page.run("document.querySelector('.plot').focus()")
        await page.press("ArrowLeft")
        await page.shows(".readout", "25 %")
        await assert_well(page)


# --- the playground --------------------------------------------------------------------------------------------------


def chunk(text):
    data = b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
LIST = whole(b'{"object":"list","data":[{"id":"sings"},{"id":"hums"}]}')


class Singer:
    """Lists two models, and sings one note until it is told to go on, or is left."""

    def __init__(self, *, is_to_be_left: bool = False) -> None:
        self.is_to_be_left = is_to_be_left
        self.go_on, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, talk):
        while b"/models" in (await talk.request()).line:
            await talk.send(LIST)
        await talk.send(STREAM + chunk("<b>La</b>"))
        if self.is_to_be_left:
            await talk.gone()
            self.left.set()
        else:
            await self.go_on.wait()
            await talk.send(chunk(" la"), DONE)
            await talk.gone()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_the_playground_shows_tokens_as_they_come_and_who_answered(browser, proxy, scripted, size):
    singer = Singer()
    upstream = await scripted(singer)
    running = await proxy(config_for(upstream.url, clients=False))
    async with browser.page(*size) as page:
        await page.open(running.admin_url)
        await page.shows("#playground", "POST /v1/chat/completions")
        await page.run("document.querySelector('#model').focus()")
        await page.until("document.querySelector('#model').value === 'sings'")
        assert await page.run("[...document.querySelectorAll('#models option')].map((it) => it.value)") == [
            "sings",
            "hums",
        ]
        await page.type("#prompt", "Sing!")
        await page.click("#send")
        await page.shows(".answer", "<b>La</b>")  # as text, before the stream has ended
        await page.shows(".said", "Streaming")
        singer.go_on.set()
        await page.shows(".said", "Whole")
        assert await page.text(".answer") == "<b>La</b> la"
        facts = (await page.text(".facts")).split("\n")
        assert "up0" in facts
        assert await page.text("#send") == "Send"
        sent = json.loads(upstream.requests[-1].body)
        assert (sent["model"], sent["messages"][0]["content"], sent["stream"]) == ("sings", "Sing!", True)
        await assert_well(page)


async def test_a_call_of_the_playground_can_be_stopped(browser, proxy, scripted):
    singer = Singer(is_to_be_left=True)
    running = await proxy(config_for((await scripted(singer)).url, clients=False))
    async with browser.page(*DESKTOP) as page:
        await page.open(running.admin_url)
        await page.shows("#playground", "POST /v1/chat/completions")
        await page.type("#model", "sings")
        await page.click("#send")
        await page.shows(".said", "Streaming")
        await page.click("#send")
        await page.shows(".said", "Stopped")
        await running.until(singer.left.is_set)
        await assert_well(page)


async def test_the_playground_shows_the_proxys_own_refusal_and_keeps_the_key_to_itself(browser, proxy, scripted):
    singer = Singer()
    running = await proxy(config_for((await scripted(singer)).url))
    async with browser.page(*DESKTOP) as page:
        await page.open(running.admin_url)
        await page.shows("#playground", "POST /v1/chat/completions")
        await page.type("#model", "sings")
        await page.click("#send")
        await page.shows(".said", "401")
        await page.type("#client-key", "client-key")
        await page.click("#send")
        await page.shows(".answer", "La")
        assert await page.run("[sessionStorage.length, localStorage.length]") == [0, 0]
        singer.go_on.set()
        await page.shows(".said", "Whole")
        await assert_well(page)
