"""The configuration that pods find is the one that was meant, and Serinus takes it as a pod has it."""

import json
import re
from base64 import b64encode
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from proxy.cli import main
from proxy.controlplane.crosscheck import ANY, SECRETS
from proxy.controlplane.document import read
from proxy.controlplane.load import load
from proxy.controlplane.problems import ConfigInvalid
from proxy.controlplane.vault import new_master_key
from tests.chart.rendering import NAMES, VALUES, config_text, objects, pod
from tests.support.authority import Authority


def mounted(name: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """The configuration as in a pod, but for where its folders are; and the environment."""
    rendered = objects(name)
    text = config_text(rendered).replace("/run/secrets", str(folder)).replace("/var/lib/serinus", str(folder / "state"))
    modes = {
        volume["secret"]["secretName"]: volume["secret"]["defaultMode"]
        for volume in pod(rendered)["volumes"]
        if "secret" in volume
    }
    issued = Authority(folder / "issued")
    cert, key = issued.issue("localhost")
    held = {"tls.crt": cert, "tls.key": key, "ca.crt": issued.ca_file}
    for path in {Path(found) for found in re.findall(rf"{folder}/[^\s\"']+/[^\s\"']+", text)}:
        path.parent.mkdir(exist_ok=True)
        path.write_text(held[path.name].read_text() if path.name in held else f"secret-{path.name}\n")
        path.chmod(modes[path.parent.name])
    variables = {found: f"sk-{found}" for found in re.findall(r"env:([A-Z_]+)", text)}
    variables["WEBHOOK_SECRET"] = f"whsec_{b64encode(bytes(32)).decode()}"
    variables["SERINUS_MASTER_KEY"] = new_master_key()
    file = folder / "serinus.yaml"
    file.write_text(text)
    return file, variables


@pytest.mark.parametrize("name", NAMES)
def test_serinus_check_accepts_it(name: str, tmp_path: Path) -> None:
    file, variables = mounted(name, tmp_path)
    done = CliRunner().invoke(main, ["check", str(file), "--json"], env=variables)
    assert (done.exit_code, json.loads(done.stdout)["problems"]) == (0, []), done.output


def test_secret_that_all_users_could_read_would_not_do(tmp_path: Path) -> None:
    """Which is Kubernetes' default: 0644."""
    file, variables = mounted("minimal", tmp_path)
    (tmp_path / "llm" / "openai-key").chmod(0o644)
    with pytest.raises(ConfigInvalid, match="open to all users"):
        load(file, variables)


def test_chart_knows_all_that_is_a_secret() -> None:
    """`serinus.secrets` in _refusals.tpl: none of them may stand in a ConfigMap."""
    known = {
        ("admin", "tokens", ANY, "value"),
        ("canaries", ANY, "webhooks", ANY, "secret"),
        ("client_pepper",),
        ("clients", ANY, "key"),
        ("clients", ANY, "keys", ANY),
        ("master_keys", ANY),
        ("tracing", "headers", ANY),
        ("upstreams", ANY, "keys", ANY, "value"),
    }
    assert set(SECRETS) <= known


@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_readable_by_the_pods_group_and_nobody_else(name: str) -> None:
    spec = pod(objects(name))
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"] == 10001
    assert {volume["secret"]["defaultMode"] for volume in spec["volumes"] if "secret" in volume} == {0o440}


def meant(name: str) -> dict[str, object]:
    """`config` as one would read it who knows YAML 1.2 only."""
    data = read((VALUES / f"{name}.yaml").read_text(), name).data
    return data["config"]


def within(part: object, whole: object) -> bool:
    """Helm puts what the minimal values say beside it."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(within(value, whole.get(key)) for key, value in part.items())
    return part == whole


@pytest.mark.parametrize("name", [name for name in NAMES if "\nconfig:" in (VALUES / f"{name}.yaml").read_text()])
def test_what_was_written_is_what_is_read(name: str) -> None:
    found = read(config_text(objects(name)), name).data
    asked = meant(name)
    asked.pop("x-note", None)  # nobody reads it
    assert within(asked, found)


def test_on_keeps_its_name() -> None:
    found = read(config_text(objects("awkward")), "awkward").data
    assert found["pools"]["chat"]["retry"] == {"attempts": 3, "on": ["connect", 429, 503]}
    assert yaml.safe_load(config_text(objects("awkward")))["pools"]["chat"]["retry"]["on"] == ["connect", 429, 503]
