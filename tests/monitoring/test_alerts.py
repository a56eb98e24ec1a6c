"""Each alert fires when it should and is silent when it should be, and somebody who is woken by it finds what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts/serinus/files/alerts.yaml"
CASES = sorted(Path(__file__).parent.glob("*.yaml"))
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
DESCRIBED = re.findall(r"^## (\w+)\n\n(\w+)\.", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_rules():
    promtool("check", "rules", "--lint-fatal", RULES)


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_are_silent_as_the_cases_say(cases):
    promtool("test", "rules", cases)


def test_for_each_alert_there_is_a_case_that_fires_and_one_that_is_silent():
    checks = [
        (re.search(r'alertname="(\w+)"', check["expr"])[1], bool(check["exp_samples"]))
        for path in CASES
        for case in yaml.safe_load(path.read_text())["tests"]
        for check in case["promql_expr_test"]
    ]
    assert set(checks) == {(alert, fires) for alert in ALERTS for fires in (True, False)}


def test_each_alert_is_described_under_its_severity_and_its_runbook_is_that_section():
    assert [(name, rule["labels"]["severity"].capitalize()) for name, rule in ALERTS.items()] == DESCRIBED
    runbooks = {name: rule["annotations"]["runbook_url"] for name, rule in ALERTS.items()}
    assert runbooks == {name: f"docs/alerts.md#{name.lower()}" for name in ALERTS}


def test_each_alert_says_what_it_is_and_what_to_do():
    assert [name for name, rule in ALERTS.items() if set(rule["annotations"]) < {"summary", "description"}] == []


def test_prometheus_of_the_compose_file_takes_its_configuration_and_the_alerts(tmp_path):
    shutil.copy(ROOT / "config/compose/prometheus/prometheus.yaml", tmp_path)
    shutil.copy(RULES, tmp_path)
    promtool("check", "config", tmp_path / "prometheus.yaml")
