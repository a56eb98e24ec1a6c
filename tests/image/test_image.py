"""What the Dockerfile makes is a Serinus that serves, is healthy, writes nothing but its state, and ends in order."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from proxy import __version__
from tests.image.recipe import ROOT, Recipe, stages

BUILD, FINAL = stages(ROOT / "Dockerfile")
PINNED = re.compile(r"^([\w.-]+==\S+)", re.MULTILINE)


def last(name: str) -> tuple[str, ...]:
    """What the image's last instruction of that name says."""
    return [command.value for command in FINAL if command.cmd == name][-1]


def pins(lock: str) -> set[str]:
    return set(PINNED.findall((ROOT / lock).read_text()))


def test_linter_of_dockerfiles_has_nothing_to_say():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_have_the_same_base_for_the_environment_names_its_python():
    assert BUILD[0].value[0] == FINAL[0].value[0]


def test_labels_say_which_version_it_is():
    labels = dict(zip(last("LABEL")[::2], last("LABEL")[1::2], strict=True))
    assert labels["org.opencontainers.image.version"].strip('"') == __version__


def test_it_is_not_root_and_can_be_seen_not_to_be():
    assert last("USER") == ("10001:10001",)


def test_state_is_kept_where_the_user_may_write():
    made = next(command.value[0] for command in FINAL if command.cmd == "RUN")
    assert "install -d -o serinus -g serinus -m 0700 /var/lib/serinus" in made
    assert "--uid 10001" in made
    assert "--gid 10001" in made
    assert last("VOLUME") == last("WORKDIR") == ("/var/lib/serinus",)


def test_all_that_is_copied_gets_past_the_dockerignore_and_nothing_else_does():
    copied = {name for stage in (BUILD, FINAL) for command in stage if command.cmd == "COPY" and not command.flags
              for name in command.value[:-1]}  # fmt: skip
    everything, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] in "*!"]
    assert everything == "*"
    patterns = [line[1:] for line in kept if line.startswith("!")]
    there = {path.name for path in ROOT.iterdir()}
    let_through = {name for name in there if any(fnmatch(name, pattern) for pattern in patterns)}
    assert let_through == copied | {"requirements-dev.lock"}


def test_lock_of_the_extra_adds_to_the_lock_and_changes_nothing_in_it():
    added, dev = pins("requirements-otel.lock"), pins("requirements-dev.lock")
    assert any(pin.startswith("opentelemetry-sdk==") for pin in added)
    names = {pin.split("==")[0] for pin in pins("requirements.lock")}
    assert {pin for pin in added if pin.split("==")[0] in names} == set()
    assert added <= dev, "tests run with what the image has"


# --- built and run -----------------------------------------------------------------------------------------------


async def serving(process: asyncio.subprocess.Process) -> dict:
    said = []
    while line := await process.stderr.readline():
        said.append(line)
        if (found := json.loads(line))["event"] == "serving":
            return found
    pytest.fail(f"it ended: {said}")


async def health(image: Recipe, admin: str) -> int:
    """The exit code of the health check, where the admin listener is at that address."""
    _, *command = last("HEALTHCHECK")
    environ = image.environ | {"SERINUS_ADMIN": f"http://{admin}"}
    process = await asyncio.create_subprocess_exec(
        *map(image.here, command), env=environ, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


@pytest.mark.timeout(300)  # it installs everything
async def test_what_it_makes_has_no_build_tools_serves_is_healthy_writes_only_its_state_and_ends(tmp_path):
    image = Recipe(tmp_path)
    image.build()
    assert {"serinus", "aiohttp", "opentelemetry_sdk"} <= image.installed()
    assert image.installed() & {"pip", "setuptools", "wheel", "hatchling", "pytest"} == set()
    text = re.search(r"```yaml\n(# serinus.yaml\n.*?)```", (ROOT / "docs/containers.md").read_text(), re.DOTALL)[1]
    config = Path(image.here(last("CMD")[-1]))
    config.parent.mkdir(parents=True)
    config.write_text(image.here(re.sub(r"0\.0\.0\.0:\d+", "127.0.0.1:0", text)))
    keys = dict.fromkeys(re.findall(r"env:(\w+)", text), "sk-some")
    before = image.files()
    process = await asyncio.create_subprocess_exec(
        *map(image.here, (*last("ENTRYPOINT"), *last("CMD"))),
        env=image.environ | keys, cwd=image.here(last("WORKDIR")[0]), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        host, port = (await serving(process))["admin"]
        assert await health(image, f"{host}:{port}") == 0
        process.send_signal(getattr(signal, last("STOPSIGNAL")[0]))
        process.send_signal(getattr(signal, last("STOPSIGNAL")[0]))  # at once
        await process.communicate()
        assert process.returncode == 0
        assert await health(image, f"{host}:{port}") != 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    written = image.files() - before
    assert {path for path in written if not path.is_relative_to(image.here("/var/lib/serinus"))} == set()
