"""What the dashboard and the alerts show is there to be shown, and an operator can read it."""

import json
import re
from itertools import combinations

import pytest
import yaml

from tests.monitoring.promql import grouped, labels, mistakes, selectors
from tests.monitoring.test_alerts import ALERTS, ROOT, promtool
from tests.test_docs import DOCUMENTS, exported

DASHBOARD = json.loads((ROOT / "charts/serinus/files/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


def filled_in(expression: str) -> str:
    """As Grafana sends it, where everything is chosen."""
    return re.sub(r"\$(job|instance|pool|upstream)\b", ".*", expression.replace("$__rate_interval", "5m"))


def expressions() -> dict[str, str]:
    """All that the dashboard asks Prometheus, by where it stands."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
    found |= {f"annotation {each['name']}": each["target"]["expr"] for each in DASHBOARD["annotations"]["list"]}
    for name, variable in VARIABLES.items():
        if variable["type"] == "query":
            found[f"variable {name}"] = LABEL_VALUES.fullmatch(variable["query"]["query"])[1]
    return {place: filled_in(expression) for place, expression in found.items()}


def test_prometheus_understands_all_that_the_dashboard_asks(tmp_path):
    rules = [{"record": f"dashboard:{number}", "expr": text} for number, text in enumerate(expressions().values())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", tmp_path / "rules.yaml")


@pytest.mark.parametrize("place", expressions())
def test_metrics_and_labels_of_the_dashboard_are_exported(place):
    assert mistakes(expressions()[place]) == []


@pytest.mark.parametrize("name", ALERTS)
def test_metrics_and_labels_of_the_alerts_are_exported(name):
    assert mistakes(ALERTS[name]["expr"]) == []


def test_a_metric_or_label_that_nobody_exports_is_noticed():
    assert mistakes('sum by (colour) (rate(serinus_requests_total{taste="x"}[5m])) / serinus_requests') == [
        "serinus_requests_total has no label taste",
        "no metric serinus_requests",
        "nothing has a label colour",
    ]


def test_metrics_that_documents_name_are_exported():
    known = exported() | set(labels())
    named = {
        (path.name, name)
        for path in DOCUMENTS
        if path.name != "CHANGELOG.md"  # which tells of what was
        for name in re.findall(r"\bserinus_[a-z_]+[a-z]\b", path.read_text())
    }
    assert {(document, name) for document, name in named if name not in known} == set()


def test_labels_of_metrics_are_those_that_the_document_lists():
    rows = re.findall(r"^\| `(serinus_\w+)` \| \w+ \| ([^|]*) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    known, before = labels(), set()
    for name, listed in rows:
        before = before if listed == "the same" else set(re.findall(r"`(\w+)`", listed))
        assert known.get(name, known.get(f"{name}_count")) == before, name


def test_labels_in_legends_are_there():
    for panel in PANELS:
        for target in panel["targets"]:
            text = filled_in(target["expr"])
            kept = grouped(text) or {"job", "instance"}.union(*(labels()[metric] for metric, _ in selectors(text)))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_variables_are_there_and_each_is_used():
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__all", "__rate_interval"}
    assert used == set(VARIABLES)


def test_each_panel_says_what_it_shows_and_in_what():
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


def test_panels_lie_beside_each_other():
    def cells(panel):
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

    for one, other in combinations(DASHBOARD["panels"], 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_dashboard_shows_every_metric_of_ours():
    shown = {
        re.sub("_(bucket|count|sum)$", "", metric) for text in expressions().values() for metric, _ in selectors(text)
    }
    assert exported() - shown == set()
