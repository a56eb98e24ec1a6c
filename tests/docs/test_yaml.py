"""Every piece of YAML that a page shows is what it seems: a configuration, a part of one, or another's file."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from proxy.controlplane.load import parse
from proxy.controlplane.problems import ConfigInvalid
from proxy.controlplane.secrets import SecretReader
from proxy.model.settings import Settings
from tests.docs.blocks import Block, blocks
from tests.docs.pages import PAGES, ROOT

SECTIONS = {field.alias or name for name, field in Settings.model_fields.items()}
SHOWN = [(page, block) for page in PAGES for block in blocks(page) if block.kind == "yaml"]


class Anything(dict):
    """An environment where every variable is set."""

    def get(self, name: str, default: str | None = None) -> str:
        return f"whsec_{'A' * 32}" if "WEBHOOK" in name else f"value-of-{name}"


def problems(block: Block, page: Path, folder: Path) -> str | None:
    """What is wrong with it."""
    data = yaml.safe_load(block.text)
    if not isinstance(data, dict):
        return "no mapping"
    if {"upstreams", "pools", "routes"} <= data.keys():
        return whole(block.text, folder)
    sections = {name for name in data if not name.startswith("x-")}
    if sections <= SECTIONS:
        return part(data, folder)
    if (block.file_name or "").startswith("values"):
        return values(data)
    if {"apiVersion", "kind"} <= data.keys() or "services" in data:
        return None  # of Kubernetes and Compose: held against their own schemas where they are tested
    shown = "\n".join(other.text for other in blocks(page) if other.kind == "console")
    if block.file_name and block.file_name in shown:
        return None  # what it is, the command knows that is given it
    return f"neither settings ({', '.join(sorted(sections - SECTIONS))}?) nor a file that a command uses: name it"


def whole(text: str, folder: Path) -> str | None:
    """A configuration as `serinus check` sees it, but for files that are its reader's."""
    try:
        parse(text, Anything(), base=folder)
    except ConfigInvalid as invalid:
        found = [str(problem) for problem in invalid.problems]
        return "\n".join(text for text in found if "no such file or directory" not in text) or None
    return None


def part(data: dict[str, object], folder: Path) -> str | None:
    """Sections of a configuration, each by itself: what they refer to stands elsewhere."""
    try:
        settings = {name: value for name, value in data.items() if not name.startswith("x-")}
        Settings.model_validate(settings, context=AnySecret(Anything(), folder))
    except ValidationError as error:
        return str(error)
    return None


class AnySecret(SecretReader):
    """Files of secrets hold what they should."""

    def _from_file(self, text: str) -> str:
        return f"whsec_{'A' * 32}"


def values(data: dict[str, object]) -> str | None:
    """Values of the chart: its schema knows them."""
    schema = ROOT / "charts/serinus/values.schema.json"
    known = json.loads(schema.read_text())["properties"] if schema.exists() else {}
    wrong = sorted(data.keys() - known.keys())
    return f"the chart knows no {', '.join(wrong)}" if wrong else None


@pytest.mark.parametrize(("page", "block"), SHOWN, ids=[f"{page.name}:{block.line}" for page, block in SHOWN])
def test_yaml_of_a_page_is_what_it_seems(page: Path, block: Block, tmp_path: Path) -> None:
    assert problems(block, page, tmp_path) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("upstreams: {}\npools: {}\nroutes: []\n", "routes"),
        ("pools: {a: {members: []}}\n", "members"),
        ("pols: {a: 1}\n", "neither settings (pols?)"),
        ("# values.yaml\nfoo: 1\n", "the chart knows no foo"),
        ("- a\n", "no mapping"),
    ],
)
def test_yaml_that_is_wrong_is_noticed(text: str, complaint: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```yaml\n{text}```\n")
    assert complaint in str(problems(blocks(page)[0], page, tmp_path))
