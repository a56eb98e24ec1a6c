"""What the documents say is there, is there; and what is there, they say."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.main import CLOSING_S
from proxy.model.quantities import parse_duration
from proxy.model.settings import Settings
from proxy.obs.metrics import MemberState, Metrics, PoolState, SeriesLabels

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])


def exported() -> set[str]:
    """The names of our metrics, as Prometheus stores them."""
    metrics = Metrics()
    metrics.inflight = lambda: [("some", 1)]
    metrics.outcomes = lambda: [("some", "ok", 1)]
    metrics.members = lambda: [MemberState("pool", "some", True, 1)]
    metrics.pools = lambda: [PoolState("pool", {"connect": 1}, 1)]
    metrics.certificates = lambda: [("127.0.0.1:8443", 1.0)]
    metrics.series(SeriesLabels("/v1", "pool", "some")).count(200)
    text, _ = metrics.render("text/plain")
    families = text_string_to_metric_families(text.decode())
    named = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    return {name for name in named if name.startswith("serinus_")}


def test_every_metric_is_described_and_every_described_metric_is_exported():
    described = set(re.findall(r"^\| `(serinus_\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    assert described == exported()


def test_configuration_in_the_readme_is_the_minimal_example():
    shown = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    lines = (ROOT / "config/minimal.yaml").read_text().splitlines()
    assert shown[1].strip() == "\n".join(line for line in lines if not line.startswith("#")).strip()


def test_unit_gives_a_drain_the_time_it_takes():
    unit = (ROOT / "docs/systemd.md").read_text()
    allowed = re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)
    assert allowed is not None
    default = {name: field.default for name, field in Settings.model_fields.items()}
    drain_s = parse_duration(default["pre_drain_s"]) + parse_duration(default["drain_timeout_s"])
    assert int(allowed[1]) == drain_s + CLOSING_S


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path):
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_architecture_names_files_that_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`((?:\w+/)?\w+\.py)`", text))
    there = {str(path.relative_to(ROOT / "proxy")) for path in (ROOT / "proxy").rglob("*.py")}
    there |= {Path(path).name for path in there}
    there |= {path.name for path in (ROOT / "tests").rglob("*.py")}
    assert named - there == set()


def test_every_room_is_in_the_architecture():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = [path.parent.name for path in (ROOT / "proxy").glob("*/__init__.py")]
    assert [room for room in rooms if f"  {room}/" not in text] == []
