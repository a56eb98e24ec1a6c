"""What in the chart follows from elsewhere is as it would be written now."""

import json
import re

import pytest
import yaml

import proxy
from charts import generate
from tests.chart.rendering import CHART, ROOT, helm

AGAIN = "`make chart` writes it anew"


def test_schema_is_current() -> None:
    assert (CHART / "values.schema.json").read_text() == generate.schema(), AGAIN


def test_readme_is_current() -> None:
    assert (CHART / "README.md").read_text() == generate.readme(), AGAIN


def test_chart_serves_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == proxy.__version__


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"].keys() - values.keys() == {"global"}
    for name, part in schema["properties"].items():
        if "properties" in part:
            assert part["properties"].keys() == values[name].keys(), name


def objects_in(schema: object) -> list[dict[str, object]]:
    if isinstance(schema, dict):
        own = [schema] if isinstance(schema.get("properties"), dict) and "object" in schema.get("type", ()) else []
        return own + [found for part in schema.values() for found in objects_in(part)]
    return [found for part in schema for found in objects_in(part)] if isinstance(schema, list) else []


def test_no_mapping_lets_unknown_names_through() -> None:
    found = objects_in(json.loads((CHART / "values.schema.json").read_text()))
    assert len(found) > 100
    assert [part for part in found if part.get("additionalProperties") is not False] == []


@pytest.mark.parametrize(
    "told", ["replicaCount", "config", "acknowledge.limitsPerReplica", "probes.startup.periodSeconds"]
)
def test_readme_tells_of_each_value(told: str) -> None:
    assert f"| `{told}` |" in (CHART / "README.md").read_text()


def test_every_template_uses_values_that_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for file in (CHART / "templates").rglob("*.*"):
        for path in re.findall(r"\.Values\.([\w.]+)", file.read_text()):
            held, *names = values, *path.split(".")
            for name in names:
                assert name in held, f"{file.name}: .Values.{path}"
                held = held[name]
                if name == "config":
                    break


def test_every_value_is_used() -> None:
    text = "".join(file.read_text() for file in (CHART / "templates").rglob("*.*"))
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [name for name in values if f".Values.{name}" not in text] == []


def test_package_holds_what_an_install_needs(tmp_path) -> None:
    done = helm("package", str(CHART), "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [f"serinus-{proxy.__version__}.tgz"]
    assert (ROOT / "charts/serinus/Chart.yaml").exists()
