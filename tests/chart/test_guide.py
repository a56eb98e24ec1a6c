"""docs/kubernetes.md: each of its commands is tried, as far as that goes without a cluster."""

import asyncio
import os
import random
import re
import shlex
import subprocess
import sys
from base64 import b64decode
from functools import cache
from pathlib import Path
from secrets import token_hex

import httpx2
import pytest
import yaml
from click.testing import CliRunner

from proxy.cli import main
from proxy.simulation import Behaviour, SimulatedUpstream
from tests.chart.podlike import mount_config, mount_secret
from tests.chart.rendering import KUBECTL, ROOT, Objects, config_text, helm, parsed
from tests.docs.blocks import blocks, commands
from tests.support.process import SerinusProcess

PAGE = ROOT / "docs/kubernetes.md"
SHOWN = [block for block in blocks(PAGE) if f"<!-- scene\n{block.text}" not in PAGE.read_text()]
_TYPED = [command.text for block in SHOWN if block.kind == "console" for command in commands(block)]
COMMANDS = [re.sub(r"\\\n *", "", text) for text in _TYPED]
INSTALLS = [command for command in COMMANDS if re.match(r"helm (install|upgrade) ", command)]
KUBECTLS = [part for command in COMMANDS for part in re.findall(r"kubectl (?:[^|\"')]|\"[^\"]*\"|'[^']*')+", command)]
# Of these, only the program's own parser can be asked.
IN_A_CLUSTER = ("helm test ", "helm rollback ")


@pytest.fixture(scope="session")
def values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the guide shows, by the names that it gives them."""
    folder = tmp_path_factory.mktemp("guide")
    for block in SHOWN:
        if block.file_name:
            (folder / block.file_name).write_text(block.text)
    assert {path.name for path in folder.iterdir()} == {"values.yaml", "canary.yaml"}
    return folder


@cache
def rendered(command: str, folder: Path) -> Objects:
    """What `helm install` or `upgrade` would hand to the cluster."""
    _, _, *arguments = shlex.split(command)
    arguments = [str(ROOT / word) if word == "charts/serinus" else word for word in arguments]
    arguments = [str(folder / word) if word.endswith(".yaml") else word for word in arguments]
    done = helm("template", *arguments)
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def test_nothing_is_left_untried() -> None:
    tried = (*INSTALLS, *(command for command in COMMANDS if "kubectl" in command or command.startswith("curl ")))
    rest = [command for command in COMMANDS if command not in tried]
    assert [command for command in rest if not command.startswith((*IN_A_CLUSTER, "docker "))] == []


@pytest.mark.parametrize("command", INSTALLS)
def test_every_install_is_one_that_the_chart_renders(command: str, values: Path) -> None:
    assert len(rendered(command, values)) >= 6


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(IN_A_CLUSTER)])
def test_helm_commands_for_a_cluster_find_none_here(command: str) -> None:
    done = helm(*shlex.split(command)[1:], "--kube-apiserver", "http://127.0.0.1:1")
    assert "connection refused" in done.stderr, done.stderr


@pytest.mark.parametrize("command", KUBECTLS)
def test_kubectl_commands_for_a_cluster_find_none_here(command: str) -> None:
    """Its parser takes them; then there is nobody to connect to."""
    assert KUBECTL is not None
    words = shlex.split(re.sub(r"\$\([^)]*\)", "made", command))
    done = subprocess.run(
        [KUBECTL, "--server=http://127.0.0.1:1", *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert re.search(
        r"connection( to the server 127.0.0.1:1)? was refused|connection refused|no objects passed", done.stderr
    ), done.stderr


def test_what_kubectl_is_to_look_at_is_there(values: Path) -> None:
    there = {f"{kind.lower()}/{name}" for command in INSTALLS for kind, name in rendered(command, values)}
    asked = set(re.findall(r"\b(?:deployment|statefulset|service)/[\w-]+", "\n".join(COMMANDS)))
    assert asked == {"deployment/serinus", "service/serinus", "statefulset/trial-serinus"}
    assert asked <= there


def test_base_url_of_the_guide_is_that_of_the_service(values: Path) -> None:
    (told,) = re.findall(r"`http://(\w+)\.(\w+)\.svc:(\d+)/v1`", PAGE.read_text())
    service = rendered(INSTALLS[0], values)["Service", "serinus"]
    assert told == (service["metadata"]["name"], "llm", str(service["spec"]["ports"][0]["port"]))


def secret() -> dict[str, str]:
    """What the guide's own command makes of it, with an upstream's key of the test's."""
    (command,) = (found for found in COMMANDS if "create secret" in found)
    command = command.replace("$OPENAI_API_KEY", "sk-simulated").replace("$(openssl rand -hex 24)", token_hex(24))
    words = [*shlex.split(command)[1:], "--dry-run=client", "-o", "yaml"]
    done = subprocess.run([str(KUBECTL), *words], capture_output=True, text=True, check=True)
    return {name: b64decode(value).decode() for name, value in yaml.safe_load(done.stdout)["data"].items()}


async def called(curl: str, port: int, key: str) -> str:
    """The answer to what this command asks for."""
    words = iter(shlex.split(curl.replace("$CLIENT_KEY", key))[1:])
    assert next(words) == "-N"
    url = next(words).replace(":8080", f":{port}")
    options = [(word, next(words)) for word in words]
    headers = dict(value.split(": ", 1) for option, value in options if option == "-H")
    (body,) = (value for option, value in options if option == "-d")
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.post(url, headers=headers, content=body)).text


def run(words: list[str], admin: str) -> str:
    """What `serinus` and these words print."""
    return CliRunner().invoke(main, words, env={"SERINUS_ADMIN": admin}).output


async def run_on(words: list[str], admin: str, stdin: str) -> str:
    """What it prints of this on its standard input."""
    ours, theirs = os.pipe()
    os.write(theirs, stdin.encode())
    os.close(theirs)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *words),
        env=os.environ | {"PYTHONPATH": str(ROOT), "SERINUS_ADMIN": admin},
        stdin=ours,
        stdout=asyncio.subprocess.PIPE,
    )
    os.close(ours)
    said, _ = await process.communicate()
    return said.decode()


async def test_from_the_secret_to_the_first_streamed_token_and_a_look_inside(values: Path, tmp_path: Path) -> None:
    objects, held = rendered(INSTALLS[0], values), secret()
    mount_secret(tmp_path, objects, "llm", held)
    serinus = SerinusProcess(tmp_path)
    async with SimulatedUpstream(Behaviour(tokens=5, api_key="sk-simulated"), random.Random(1)) as upstream:
        try:
            file = mount_config(tmp_path, objects, f"{upstream.url}/v1")
            await serinus.start("", "--config", str(file))
            serving = await serinus.until("serving")
            (curl,) = (command for command in COMMANDS if command.startswith("curl "))
            said = await called(curl, serving["listen"][0][1], held["client-key"])
            assert said.startswith("data: {"), said
            assert said.endswith("data: [DONE]\n\n")
            await looked_inside(tmp_path, f"http://127.0.0.1:{serving['admin'][1]}", file.read_text())
        finally:
            await serinus.kill()


async def looked_inside(folder: Path, admin: str, config: str) -> None:
    """What the guide has `kubectl exec` run in a pod."""
    inside = [command.partition(" -- serinus ")[2] for command in COMMANDS if " -- serinus " in command]
    words = [shlex.split(command.replace("/run/secrets", str(folder / "secrets"))) for command in inside]
    assert [each[0] for each in words] == ["status", "check", "keys", "canary"]
    check = await run_on(words.pop(1), admin, config)
    assert f"nothing differs from what is in force at {admin}" in check, check
    status, keys, canary = [await asyncio.to_thread(run, each, admin) for each in words]
    assert "openai" in status
    assert "main" in keys
    assert "no canary" in canary, canary  # that is in the other release


def test_canary_of_the_guide_is_one_that_serinus_takes(values: Path, tmp_path: Path) -> None:
    (command,) = (found for found in INSTALLS if "canary.yaml" in found)
    config = yaml.safe_load(config_text(rendered(command, values)))
    assert config["canaries"]["next"]["steps"][-1] == {"set_weight": 100}
    assert config["routes"] == [{"prefix": "/v1", "pool": "chat", "canary": "next"}]
