"""What single values come to."""

import json
import math
from functools import cache

import pytest
import yaml

from proxy.controlplane.differences import AT_START
from proxy.main import CLOSING_S
from proxy.model.quantities import parse_duration
from proxy.model.settings import Settings
from tests.chart.rendering import CHART, NAMES, config_text, objects, parsed, pod, template, workload


@cache
def restart_sum(*arguments: str) -> str:
    metadata = workload(parsed(template(*arguments)))["spec"]["template"]["metadata"]
    return metadata["annotations"]["serinus/config-at-start"]


@pytest.mark.parametrize(
    "live",
    [
        "config.routes[0].prefix=/v2",
        "config.log.level=debug",
        "config.upstreams.openai.max_connections=5",
        "config.drain_timeout=31s",
    ],
)
def test_change_that_a_reload_puts_in_force_restarts_nothing(live: str) -> None:
    assert restart_sum("--set", live) == restart_sum()


RESTARTING = {
    "listen": ["--set", "ports.proxy=8081"],
    "admin.listen": ["--set", "ports.admin=9091"],
    "admin.tokens": ["--set", "config.admin.tokens[0].name=others"],
    "workers": ["--set", "config.workers=2"],
    "tracing": ["--set", "config.tracing.endpoint=http://collector:4318/v1/traces"],
    "log.format": ["--set", "config.log.format=console"],
}


@pytest.mark.parametrize("place", RESTARTING)
def test_change_that_waits_for_a_restart_restarts_the_pods(place: str) -> None:
    before = ["--set", "config.workers=4"] if place == "listen" else []
    assert restart_sum(*before, *RESTARTING[place]) != restart_sum(*before)


def test_all_that_waits_for_a_restart_is_thought_of() -> None:
    """`admin.tls` is refused, and `state_dir` never changes."""
    assert set(RESTARTING) == AT_START.keys() - {"admin.tls", "state_dir"}


@pytest.mark.parametrize("name", NAMES)
def test_pod_has_the_time_that_its_end_takes(name: str) -> None:
    rendered = objects(name)
    config = yaml.safe_load(config_text(rendered))
    default = {name: field.default for name, field in Settings.model_fields.items()}
    drain_s = parse_duration(config.get("pre_drain", default["pre_drain_s"]))
    drain_s += parse_duration(config.get("drain_timeout", default["drain_timeout_s"]))
    (container,) = pod(rendered)["containers"]
    hooks = container.get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})
    takes_s = hooks["preStop"]["sleep"]["seconds"] + drain_s + CLOSING_S
    assert pod(rendered)["terminationGracePeriodSeconds"] == math.ceil(takes_s)


def test_grace_is_computed_from_any_unit() -> None:
    assert pod(objects("workers"))["terminationGracePeriodSeconds"] == math.ceil(0.5 + 1.5 * 3600 + 5)


def test_egress_is_open_to_the_ports_that_the_configuration_calls() -> None:
    policy = objects("networkpolicy")["NetworkPolicy", "llm-serinus"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    dns, called, own = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {port["port"] for port in called["ports"]} == {443, 8000, 80}
    assert own["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    webhooks = objects("everything")["NetworkPolicy", "llm-serinus-llm"]["spec"]["egress"][1]
    assert {port["port"] for port in webhooks["ports"]} == {443, 8443}


def test_admin_port_is_open_to_chosen_namespaces_only() -> None:
    policy = objects("networkpolicy")["NetworkPolicy", "llm-serinus"]["spec"]
    who = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert who["admin"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    (test,) = (item for (kind, _), item in objects("networkpolicy").items() if kind == "Pod")
    allowed = who["proxy"][-1]["podSelector"]["matchLabels"]
    assert allowed.items() <= test["metadata"]["labels"].items()


def test_ingress_neither_buffers_nor_ends_streams_and_an_operator_has_the_last_word() -> None:
    ingress = objects("ingress")["Ingress", "llm-serinus"]
    said = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert said["proxy-buffering"] == said["proxy-request-buffering"] == "off"
    assert said["proxy-body-size"] == "0"
    assert said["proxy-next-upstream"] == "off"  # Serinus knows what may be tried again
    assert (said["proxy-send-timeout"], said["proxy-read-timeout"]) == ("3600", "7200")


def test_gateway_has_no_time_limits() -> None:
    (rule,) = objects("httproute")["HTTPRoute", "llm-serinus"]["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_autoscaler_leaves_the_number_of_pods_alone() -> None:
    assert "replicas" not in workload(objects("autoscaling"))["spec"]
    metrics = objects("autoscaling")["HorizontalPodAutoscaler", "llm-serinus"]["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["Resource", "Pods"]


def test_alerts_and_dashboard_arrive_as_they_were_written() -> None:
    rule = objects("monitoring")["PrometheusRule", "llm-serinus"]
    assert rule["spec"] == yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    dashboard = objects("monitoring")["ConfigMap", "llm-serinus-grafana"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["serinus.json"]) == json.loads((CHART / "files/dashboard.json").read_text())


def test_state_is_kept_where_it_is_asked_for() -> None:
    volumes = {volume["name"]: volume for volume in pod(objects("minimal"))["volumes"]}
    assert "emptyDir" in volumes["state"]
    kept = workload(objects("statefulset"))["spec"]
    assert kept["volumeClaimTemplates"][0]["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    assert ("Service", kept["serviceName"]) in objects("statefulset")
