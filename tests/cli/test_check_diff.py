"""`serinus check FILE --diff`, as a shell sees it, before a running proxy."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from proxy.cli import main
from tests.support.running import config_for

TOP = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"
CONFIG = TOP + config_for("http://127.0.0.1:1/v1")


@pytest.fixture
async def check(proxy, tmp_path):
    """Runs a proxy; then `check(text)` compares a file that holds the text with it."""
    file = tmp_path / "serinus.yaml"
    running = await proxy(CONFIG, path=file)
    file.write_text(CONFIG + "fast_lane: true\n" if running.serinus.settings.fast_lane else CONFIG)
    environ = {"COLUMNS": "100", "SERINUS_ADMIN": running.admin_url, "SERINUS_ADMIN_TOKEN": ""}

    async def check(change=lambda text: text, *options):
        file.write_text(change(file.read_text()))
        arguments = ["check", str(file), "--diff", *options]
        return await asyncio.to_thread(CliRunner(env=environ).invoke, main, arguments)

    check.running = running
    return check


async def test_nothing_differs(check):
    result = await check()
    assert result.output.splitlines()[-1] == f"nothing differs from what is in force at {check.running.admin_url}"
    assert result.exit_code == 0


async def test_differences_have_their_places_and_those_that_need_a_restart_say_so(check):
    result = await check(
        lambda text: "drain_timeout: 1s\nstate_dir: other\n" + text.replace("upstream-key-0", "another-key")
    )
    *_, state_dir, drain, key, verdict = result.output.splitlines()
    assert state_dir == "~ state_dir: .serinus → other (needs a restart)"
    assert drain == "~ drain_timeout: 30s → 1s"
    assert key.startswith("~ upstreams.up0.keys[main].value: <secret ")
    assert verdict == (
        f"differs from what is in force at {check.running.admin_url} in 3 places, 1 of which waits for a restart"
    )
    assert "another-key" not in result.output
    assert result.exit_code == 3


async def test_programs_get_the_same(check):
    result = await check(lambda text: "drain_timeout: 1s\n" + text, "--json")
    answer = json.loads(result.output)
    assert answer["differences"] == [
        {"path": "drain_timeout", "kind": "changed", "before": "30s", "after": "1s", "needs_restart": False}
    ]
    assert (answer["ok"], answer["waiting"], result.exit_code) == (True, [], 3)


async def test_what_waits_for_a_restart_is_named(check):
    await check(lambda text: "state_dir: other\n" + text)
    await check.running.serinus.reloader.reload()
    result = await check()
    assert "changed before, and not in force without a restart: state_dir" in result.output
    assert result.exit_code == 0


async def test_invalid_file_is_not_compared(check):
    result = await check(lambda text: "routes: [")
    assert "not valid" in result.output
    assert "differs" not in result.output
    assert result.exit_code == 1


async def test_no_proxy_is_an_error(check):
    result = await check(lambda text: text, "--admin", "http://127.0.0.1:1")
    assert "does not answer" in result.output
    assert result.exit_code == 1
