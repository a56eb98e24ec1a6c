"""From a file to settings; and that all mistakes are told at once, in order, whatever the file looks like."""

import copy
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.controlplane.crosscheck import ANY, SECRETS
from proxy.controlplane.document import NODES_MAX
from proxy.controlplane.load import FILE_BYTES_MAX, load, parse
from proxy.controlplane.problems import ConfigInvalid, Problem
from proxy.controlplane.shape import fields, homes, record_at
from proxy.model.settings import Settings

MINIMAL = """\
upstreams:
  openai: {base_url: "https://api.openai.com/v1", keys: [{name: main, value: env:KEY}]}
pools:
  chat: {members: [{upstream: openai}]}
routes:
  - {prefix: /v1, pool: chat}
"""
ENVIRON = {"KEY": "sk-1"}


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, ENVIRON)
    return caught.value.problems


def test_file_becomes_settings(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(MINIMAL)
    loaded = load(file, ENVIRON)
    assert loaded.settings.upstreams["openai"].keys[0].value.reveal() == "sk-1"
    assert loaded.warnings == ()
    assert loaded.source_digest == sha256(MINIMAL.encode()).hexdigest()


def test_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load(file, ENVIRON).settings == parse(MINIMAL, ENVIRON).settings


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        (b"# \xe4\nlisten: x", ":1: not UTF-8"),
        (b"a: 1\nb: \xff", ":2: not UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), "larger than"),
    ],
)
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigInvalid) as caught:
        load(file, ENVIRON)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="is a directory"):
        load(tmp_path, ENVIRON)


def test_problem_reads_as_a_compiler_would_say_it() -> None:
    problem = Problem(("upstreams", "openai", "keys", 0, "value"), 12, "what is wrong", "config.yaml")
    assert str(problem) == "config.yaml:12: upstreams.openai.keys[0].value: what is wrong"
    assert str(Problem((), None, "no such file", "config.yaml")) == "config.yaml: no such file"
    assert str(Problem(("a\nb\x1b[31m",), 1, "x", "f")) == r"f:1: a\nb\x1b[31m: x"


def test_plain_scalars_are_those_of_yaml_1_2() -> None:
    text = MINIMAL.replace("keys:", "query: {a: 2026-01-01, b: yes, c: 1:30, d: off, e: 1_000, f: 0x1f}, keys:")
    query = parse(text, ENVIRON).settings.upstreams["openai"].query
    assert query == {"a": "2026-01-01", "b": "yes", "c": "1:30", "d": "off", "e": "1_000", "f": "0x1f"}


def test_anchors_and_merge_keys() -> None:
    text = """
x-shared: &shared
  base_url: http://127.0.0.1:8000
  timeouts: &slow {connect: 9s}
x-more: &more {auth: api-key, base_url: http://127.0.0.1:8001}
upstreams:
  a: {<<: *shared}
  b: {<<: [*more, *shared]}
  c: {timeouts: {<<: *slow, idle: 1s}, <<: *shared, base_url: http://127.0.0.1:8002}
pools: {p: {members: [{upstream: a}, {upstream: b}, {upstream: c}]}}
routes: [{prefix: /, pool: p}]
"""
    a, b, c = parse(text, {}).settings.upstreams.values()
    assert [upstream.base_url.port for upstream in (a, b, c)] == [8000, 8001, 8002]
    assert b.auth.header == "api-key"
    assert (a.timeouts.connect_s, b.timeouts.connect_s, c.timeouts.connect_s, c.timeouts.idle_s) == (9, 9, 9, 1)


def test_relative_files_begin_where_the_configuration_is(tmp_path: Path) -> None:
    for name in ("ca.pem", "key"):
        (tmp_path / name).touch(mode=0o600)
    (tmp_path / "key").write_text("sk-2")
    text = MINIMAL.replace("env:KEY", "file:key").replace("keys:", "tls: {ca: ca.pem}, keys:")
    (tmp_path / "config.yaml").write_text(text)
    upstream = load(tmp_path / "config.yaml", {}).settings.upstreams["openai"]
    assert upstream.tls.ca == tmp_path / "ca.pem"
    assert upstream.keys[0].value.reveal() == "sk-2"


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "a: &a [*a]\n", "&a {<<: *a, b: *a}", "x-a: " + "9" * 10_000],
)
def test_hostile_text_is_refused_without_harm(text: str) -> None:
    assert problems(text)


def test_aliases_count_as_often_as_they_are_used() -> None:
    lines = [f"x-{step}: &a{step} [{', '.join([f'*a{step - 1}'] * 9)}]" for step in range(1, 30)]
    assert problems("\n".join(["x-0: &a0 x", *lines]))[0].message.startswith(f"more than {NODES_MAX} values")


@pytest.mark.parametrize("name", ["absent.pem", "folder", "pipe", "x" * 5000, "a\\0b"])
def test_certificate_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    text = MINIMAL.replace("keys:", f'tls: {{ca: "{name}"}}, keys:')
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, ENVIRON, base=tmp_path)
    assert [problem.path for problem in caught.value.problems] == [("upstreams", "openai", "tls", "ca")]


def test_allow_anonymous_opens_a_listener() -> None:
    assert parse("listen: 0.0.0.0:80\nallow_anonymous: true\n" + MINIMAL, ENVIRON).settings.allow_anonymous
    assert "allow_anonymous" in problems("listen: 0.0.0.0:80\n" + MINIMAL)[0].message


def test_port_that_the_system_chooses_is_never_taken() -> None:
    text = "listen: [127.0.0.1:0, 127.0.0.1:0]\nadmin: {listen: 127.0.0.1:0}\n" + MINIMAL
    assert len(parse(text, ENVIRON).settings.listen) == 2


def test_default_listeners_count_too() -> None:
    assert "choose another port" in problems("listen: 127.0.0.1:9090\n" + MINIMAL)[0].message
    assert "choose another port" in problems("admin: {listen: 127.0.0.1:8080}\n" + MINIMAL)[0].message


def test_one_mistake_is_told_once() -> None:
    misspelt = MINIMAL.replace("pools:", "pool:")
    assert [str(problem) for problem in problems(misspelt)] == [
        "config.yaml:3: pool: unknown field: did you mean 'pools'?"
    ]


def test_warnings_come_with_problems_too() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(MINIMAL.replace("env:KEY", "sk-plain").replace("/v1,", "v1,"), {})
    assert [problem.line for problem in caught.value.problems] == [6]
    assert ["plain text" in warning.message for warning in caught.value.warnings] == [True]


def secret_paths(schema: dict[str, Any], node: dict[str, Any], path: tuple[str | None, ...] = ()) -> set[Any]:
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    found = {path} if node.get("format") == "secret" else set()
    inner = [((*path, name), value) for name, value in node.get("properties", {}).items()]
    inner += [((*path, ANY), value) for value in node.get("patternProperties", {}).values()]
    inner += [((*path, ANY), node["items"])] if "items" in node else []
    inner += [(path, value) for value in node.get("anyOf", [])]
    return found.union(*(secret_paths(schema, value, place) for place, value in inner))


def test_every_secret_in_the_schema_is_looked_at_for_warnings() -> None:
    schema = Settings.model_json_schema()
    assert secret_paths(schema, schema) == set(SECRETS)


def test_shape_knows_which_record_is_where() -> None:
    assert record_at(()) is Settings
    names = [
        record.__name__
        for path in [("listen", 0), ("upstreams", "a", "keys", 3), ("pools", "p")]
        if (record := record_at(path))
    ]
    assert names == ["Listener", "UpstreamKey", "Pool"]
    assert [record_at(path) for path in [("listen",), ("upstreams",), ("state_dir",), ("nowhere", "at", "all")]] == [
        None
    ] * 4
    assert "connect" in fields(record_at(("upstreams", "a", "timeouts")) or Settings)
    assert homes("connect") == ("upstreams.NAME.timeouts",)
    assert homes("pools") == ("the top level",)


BROKEN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5000),
    st.sampled_from(
        [0.5, "", "x", "5s", "1MiB", "none", "127.0.0.1:1", "https://x", "env:KEY", "env:NONE", "/v1", "\x07"]
    ),
    st.sampled_from([[], {}, [[]], [{}], {"a": {}}, ["x"], [None], {"x": None}, {"name": 1, "nmae": 2}]),
)
FULL: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config" / "full.yaml").read_text())


def paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else []
    return [found for name, value in entries for found in [(*path, name), *paths(value, (*path, name))]]


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> None:
    try:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value
    except (LookupError, TypeError):
        pass  # an earlier replacement took the place away


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(paths(FULL)), BROKEN), min_size=1, max_size=5))
def test_any_damage_is_told_in_order_in_plain_words_and_with_a_line(damage: list[tuple[tuple[Any, ...], Any]]) -> None:
    data = copy.deepcopy(FULL)
    for path, value in damage:
        replaced(data, path, value)
    try:
        parse(yaml.safe_dump(data, sort_keys=False), ENVIRON, base=Path("/nowhere"))
    except ConfigInvalid as invalid:
        told = invalid.problems
    lines = [problem.line or 0 for problem in told]
    assert lines == sorted(lines)
    assert all(lines)
    assert len(set(told)) == len(told)
    assert not re.search(
        r"(?i)input should|not permitted|field required|does not fit here|pydantic", str(list(map(str, told)))
    )


def test_a_configuration_that_needs_what_is_not_installed_says_what(monkeypatch):
    monkeypatch.setattr("proxy.controlplane.crosscheck.OTEL", "opentelemetry_that_is_not_there.exporter")
    text = """tracing: {}
upstreams: {up: {base_url: http://127.0.0.1:9}}
pools: {chat: {members: [{upstream: up}]}}
routes: [{prefix: /v1, pool: chat}]
"""
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, {})
    (problem,) = map(str, caught.value.problems)
    assert problem == "config.yaml:1: tracing: this needs what was not installed: pip install 'serinus[otel]'"
    assert parse(text.replace("tracing: {}\n", ""), {}).settings.tracing is None, "and nothing else needs it"
