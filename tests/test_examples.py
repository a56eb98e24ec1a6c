"""Every example in config/ is one an operator can start from: it loads, and the full one leaves nothing out."""

import re
import shutil
import typing
from base64 import b64encode
from pathlib import Path

import pytest
import yaml

from proxy.controlplane.crosscheck import FILES, texts
from proxy.controlplane.document import read
from proxy.controlplane.load import Loaded, load
from proxy.controlplane.shape import fields
from proxy.controlplane.vault import new_master_key
from proxy.model.record import Record
from proxy.model.settings import Settings

EXAMPLES = sorted((Path(__file__).parents[1] / "config").glob("*.yaml"))


def loaded(example: Path, folder: Path) -> Loaded:
    """Loads a copy beside which all files exist that it names, with all variables set that it names."""
    text = example.read_text()
    variables = {name: f"sk-ant-{name}" for name in re.findall(r"env:([A-Z_]+)", text)}
    variables["MASTER_KEY"] = new_master_key()
    variables["WEBHOOK_SECRET"] = f"whsec_{b64encode(bytes(32)).decode()}"
    named = [path for pattern in FILES for _, path in texts(yaml.safe_load(text), *pattern)]
    for name in named + re.findall(r"file:(secrets/\S+)", text):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.touch(mode=0o640)
        file.write_text(f"sk-{name}\n")
    return load(Path(shutil.copy(example, folder)), variables)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_loads_without_warnings(example: Path, tmp_path: Path) -> None:
    assert loaded(example, tmp_path).warnings == ()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_begins_with_what_it_is_for(example: Path) -> None:
    assert re.match(r"# [A-Z].{20,}", example.read_text())


def unmentioned(record: type[Record], written: list[dict[str, typing.Any]], path: str = "") -> list[str]:
    """Fields that none of the mappings written for a record has, and so on inside of them."""
    missing = []
    for name, annotation in fields(record).items():
        values = [mapping[name] for mapping in written if name in mapping]
        if not values:
            missing.append(f"{path}{name}")
        for inner in records_in(annotation):
            mappings = [found for value in values for found in mappings_in(value, fields(inner))]
            missing += unmentioned(inner, mappings, f"{path}{name}.")
    return missing


def records_in(annotation: typing.Any) -> list[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    return [record for part in typing.get_args(annotation) for record in records_in(part)]


def mappings_in(value: typing.Any, names: typing.Container[str]) -> list[dict[str, typing.Any]]:
    if isinstance(value, dict) and all(name in names for name in value):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [mapping for part in parts for mapping in mappings_in(part, names)]


def test_full_example_mentions_every_field() -> None:
    full = next(path for path in EXAMPLES if path.name == "full.yaml")
    assert unmentioned(Settings, [read(full.read_text(), "full.yaml").data]) == []


def test_a_field_that_an_example_lacks_is_noticed() -> None:
    assert "upstreams.timeouts.idle" in unmentioned(Settings, [{"upstreams": {"a": {"timeouts": {"total": "1s"}}}}])


def test_full_example_shows_the_defaults(tmp_path: Path) -> None:
    full = loaded(next(path for path in EXAMPLES if path.name == "full.yaml"), tmp_path).settings
    default = Settings()
    names = ("state_dir", "drain_timeout_s", "pre_drain_s", "allow_anonymous", "downstream", "log")
    assert [getattr(full, name) for name in names] == [getattr(default, name) for name in names]
    assert full.admin.listen == default.admin.listen
