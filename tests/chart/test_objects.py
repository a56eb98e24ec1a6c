"""Every object of every values file is one that Kubernetes takes, down to the last name in it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.chart.rendering import CHART, NAMES, VALUES, config_text, helm, objects, pod, workload

CUSTOM = Path(__file__).with_name("schemas")


def strict(schema: Any) -> Any:
    """Where it lists properties, no others: the API server's strict field validation."""
    match schema:
        case dict():
            made = {name: strict(part) for name, part in schema.items()}
            if isinstance(made.get("properties"), dict) and made.get("type") == "object":
                made.setdefault("additionalProperties", False)
            return made
        case list():
            return [strict(part) for part in schema]
        case _:
            return schema


@cache
def custom(kind: str, api_version: str) -> jsonschema.protocols.Validator | None:
    file = CUSTOM / f"{kind.lower()}-{api_version.replace('/', '-')}.json"
    return jsonschema.Draft202012Validator(strict(json.loads(file.read_text()))) if file.exists() else None


OLDEST, NEWEST = "1.30", "1.37"


def validate(item: dict[str, Any], version: str = NEWEST) -> None:
    if validator := custom(item["kind"], item["apiVersion"]):
        validator.validate(item)
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": item["metadata"]}, version, strict=True
        )
    else:
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_valid(name: str) -> None:
    for item in objects(name).values():
        validate(item)


@pytest.mark.parametrize("name", ["minimal", "statefulset", "everything"])
def test_every_object_is_valid_in_the_oldest_kubernetes_that_the_chart_is_for(name: str) -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"
    for item in objects(name).values():
        validate(item, OLDEST)


@pytest.mark.parametrize("name", ["monitoring", "httproute", "minimal"])
def test_a_name_too_many_is_noticed(name: str) -> None:
    for item in objects(name).values():
        if isinstance(item.get("spec"), dict):
            with pytest.raises(jsonschema.ValidationError):
                validate(item | {"spec": item["spec"] | {"unheardOf": 1}})


@pytest.mark.parametrize("name", ["minimal", "statefulset", "everything"])
def test_lint_has_nothing_to_say(name: str) -> None:
    done = helm("lint", "--strict", str(CHART), "-f", str(VALUES / "minimal.yaml"), "-f", str(VALUES / f"{name}.yaml"))
    assert done.returncode == 0, done.stdout


def test_matrix_has_every_kind_that_the_chart_can_make() -> None:
    written = {
        line.removeprefix("kind: ")
        for file in CHART.rglob("templates/**/*.yaml")
        for line in file.read_text().splitlines()
        if line.startswith("kind: ") and "{{" not in line
    }
    assert {kind for name in NAMES for kind, _ in objects(name)} == written | {"Deployment", "StatefulSet"}


# --- pods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_is_held_to_the_restricted_standard(name: str) -> None:
    pods = [item["spec"] for (kind, _), item in objects(name).items() if kind == "Pod"] + [pod(objects(name))]
    assert len(pods) == 2
    for spec in pods:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"} <= {
            "configMap",
            "emptyDir",
            "secret",
        }


@pytest.mark.parametrize("name", NAMES)
def test_services_and_probes_lead_to_ports_that_are_served(name: str) -> None:
    rendered = objects(name)
    (container,) = pod(rendered)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = yaml.safe_load(config_text(rendered))
    assert config["listen"][0]["address"].endswith(f":{ports['proxy']}")
    assert config["admin"]["listen"].endswith(f":{ports['admin']}")
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "admin"
    }
    labels = workload(rendered)["spec"]["template"]["metadata"]["labels"]
    services = [item["spec"] for (kind, _), item in rendered.items() if kind == "Service"]
    assert [port["targetPort"] for service in services for port in service["ports"]] == ["proxy", "admin"]
    for service in services:
        assert service["selector"].items() <= labels.items()


@pytest.mark.parametrize("name", NAMES)
def test_configuration_and_secrets_are_folders_so_that_they_follow_changes(name: str) -> None:
    """With subPath a file would stay as it was."""
    (container,) = pod(objects(name))["containers"]
    assert not any("subPath" in mount for mount in container["volumeMounts"])
    assert {"name": "config", "mountPath": "/etc/serinus", "readOnly": True} in container["volumeMounts"]


def test_test_pod_gets_no_requests_of_callers() -> None:
    rendered = objects("minimal")
    (test,) = (item for (kind, _), item in rendered.items() if kind == "Pod")
    selector = rendered["Service", "llm-serinus"]["spec"]["selector"]
    assert not selector.items() <= test["metadata"]["labels"].items()


@pytest.mark.parametrize("name", ["minimal", "tls", "open"])
def test_program_of_the_test_pod_is_python(name: str) -> None:
    (test,) = (item for (kind, _), item in objects(name).items() if kind == "Pod")
    (container,) = test["spec"]["containers"]
    compile(container["args"][0], "test", "exec")
