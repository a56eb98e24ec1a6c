"""`docker compose up` has what it names: files, services, ports, variables; and it is open to this machine only."""

import json
import random
import re
from pathlib import Path

import click
import pytest
import yaml
from compose_spec import PyCompose

from proxy.cli import main
from proxy.controlplane.load import load
from proxy.simulation import Behaviour, SimulatedUpstream
from proxy.simulation.__main__ import main as simulation
from tests.support.raw import ask, get

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES = COMPOSE["services"]
CONFIG = ROOT / "config/compose/serinus/serinus.yaml"
ENVIRON = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in SERVICES["serinus"]["environment"].items()}


def mounts(service: str) -> dict[str, Path]:
    """What is where in the container."""
    bound = [entry.split(":") for entry in SERVICES[service]["volumes"] if entry.startswith("./")]
    return {target: ROOT / source for source, target, mode in bound if mode == "ro"}


def mounted(service: str, path: str) -> Path:
    """The file that is at a path of a container."""
    return next(there / Path(path).relative_to(at) for at, there in mounts(service).items() if path.startswith(at))


def test_it_is_a_compose_file():
    assert set(PyCompose.from_yaml(yaml.safe_dump(COMPOSE)).service_names()) == set(SERVICES)


def test_what_it_mounts_is_there():
    bound = [entry for service in SERVICES.values() for entry in service.get("volumes", []) if entry.startswith("./")]
    assert [entry for entry in bound if not (ROOT / entry.split(":")[0]).exists()] == []
    named = {entry.split(":")[0] for service in SERVICES.values() for entry in service.get("volumes", [])}
    assert {name for name in named if not name.startswith("./")} == set(COMPOSE["volumes"])


def test_it_publishes_on_this_machine_only():
    assert [
        port for service in SERVICES.values() for port in service.get("ports", []) if port[:10] != "127.0.0.1:"
    ] == []


def test_images_of_others_are_pinned():
    images = {service["image"] for service in SERVICES.values() if "build" not in service} - {"serinus"}
    assert {image for image in images if not re.search(r":v?\d+\.\d+\.\d+$", image)} == set()


def test_our_image_is_built_by_one_service_and_pulled_by_none():
    ours = {name: service["pull_policy"] for name, service in SERVICES.items() if service["image"] == "serinus"}
    assert ours.pop("serinus") == "build"
    assert SERVICES["serinus"]["build"] == "."
    assert set(ours.values()) == {"never"}


def test_configuration_is_valid_without_warnings_and_needs_no_variable_that_is_not_set():
    loaded = load(CONFIG, ENVIRON)
    assert loaded.warnings == ()
    published = {int(port.split(":")[-1]) for port in SERVICES["serinus"]["ports"]}
    assert {loaded.settings.listen[0].address.port, loaded.settings.admin.listen.port} == published


def test_image_finds_its_configuration_and_keeps_its_state_in_the_volume():
    assert mounted("serinus", "/etc/serinus/serinus.yaml") == CONFIG
    assert f"state:{yaml.safe_load(CONFIG.read_text())['state_dir']}" in SERVICES["serinus"]["volumes"]


@pytest.mark.parametrize("name", ["swift", "shaky"])
def test_simulated_providers_are_where_the_configuration_says(name):
    *_, host = SERVICES[name]["entrypoint"]
    options = simulation.make_context(name, list(SERVICES[name]["command"])).params
    assert host == "0.0.0.0"
    assert yaml.safe_load(CONFIG.read_text())["upstreams"][name]["base_url"] == f"http://{name}:{options['port']}/v1"


def test_callers_call_it_where_they_are_wanted():
    command, *arguments = SERVICES["callers"]["command"]
    options = main.get_command(click.Context(main), command).make_context(command, arguments).params
    assert (options["url"], options["rate"]) == ("http://serinus:8080/v1", 4.0)
    assert SERVICES["callers"]["profiles"] == ["callers"]


def test_prometheus_asks_the_admin_listener_and_has_the_alerts():
    (option,) = SERVICES["prometheus"]["command"]
    asked = yaml.safe_load(mounted("prometheus", option.removeprefix("--config.file=")).read_text())
    (job,) = asked["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["serinus:9090"]}]
    (rules,) = asked["rule_files"]
    assert mounts("prometheus")[f"/etc/prometheus/{rules}"] == ROOT / "charts/serinus/files/alerts.yaml"


def test_grafana_asks_prometheus_and_begins_with_the_dashboard():
    at = "/etc/grafana/provisioning"
    (source,) = yaml.safe_load(mounted("grafana", f"{at}/datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load(mounted("grafana", f"{at}/dashboards/serinus.yaml").read_text())["providers"]
    first = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(first).parent) == provider["options"]["path"]
    assert json.loads(mounts("grafana")[first].read_text())["title"] == "Serinus"


async def test_configuration_answers_before_its_simulated_providers(proxy):
    text = re.sub(r"0\.0\.0\.0:\d+", "127.0.0.1:0", CONFIG.read_text()).replace("state_dir: /var/lib/serinus\n", "")
    async with SimulatedUpstream(Behaviour(models=("gpt-4.1",)), random.Random(1), wall_clock=lambda: 0.0) as upstream:
        running = await proxy(re.sub(r"http://\w+:9001", upstream.url, text), environ=ENVIRON)
        answer = await ask(running.port, get())
    assert (answer.status, b"gpt-4.1" in answer.payload) == (200, True)
