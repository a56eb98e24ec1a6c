"""`serinus check` and `serinus schema`, as a shell sees them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli.check import check
from proxy.cli.environment import environment
from proxy.cli.schema import schema
from tests.support.authority import Authority

VALID = """\
listen: [127.0.0.1:8080, 127.0.0.1:8081]
clients: [{name: web, key: env:CHECK_WEB_KEY}]
upstreams:
  openai: {base_url: "https://api.openai.com/v1", keys: [{name: main, value: env:CHECK_OPENAI_KEY}]}
pools:
  chat: {members: [{upstream: openai}]}
routes:
  - {prefix: /v1, pool: chat}
"""
FIVE_MISTAKES = """\
listen: 8080
clients: [{name: web, key: env:CHECK_UNSET}]
upstreams:
  openai: {base_url: "https://api.openai.com/v1", timeouts: {connect: 5}}
pools:
  chat: {members: [{upstream: opnai}]}
routes:
  - {prefix: /v1, pol: chat}
"""
EXPORT = "export it where Serinus starts, or name a file that has it with --env-file"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECK_WEB_KEY", "srn_web")
    monkeypatch.setenv("CHECK_OPENAI_KEY", "sk-1")


def run(folder: Path, text: str, *options: str) -> Result:
    file = folder / "config.yaml"
    file.write_text(text)
    return CliRunner().invoke(check, [str(file), *options])


@pytest.mark.usefixtures("keys")
def test_valid_file_is_summed_up(tmp_path: Path) -> None:
    result = run(tmp_path, VALID)
    assert result.output == "ok: 2 listeners, 1 upstream, 1 pool, 1 route, 1 client\n"
    assert result.exit_code == 0


def test_five_mistakes_are_all_named(tmp_path: Path) -> None:
    result = run(tmp_path, FIVE_MISTAKES)
    file = tmp_path / "config.yaml"
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"{file}:1: listen: 8080 is not an address: write 127.0.0.1:8080",
        f"{file}:2: clients[0].key: the environment variable CHECK_UNSET is not set: {EXPORT}",
        f"{file}:4: upstreams.openai.timeouts.connect: 5 is not a duration: write 5s, 250ms or 2m",
        f"{file}:6: pools.chat.members[0].upstream: no upstream is named 'opnai': did you mean 'openai'?",
        f"{file}:8: routes[0].pol: unknown field: did you mean 'pool'?",
        "not valid: 5 problems",
    ]


@pytest.mark.usefixtures("keys")
def test_warnings_are_shown_and_do_no_harm(tmp_path: Path) -> None:
    result = run(tmp_path, VALID.replace("env:CHECK_OPENAI_KEY", "sk-S3CR3T"))
    warning, verdict = result.output.splitlines()
    assert warning.startswith(f"warning: {tmp_path}/config.yaml:4: upstreams.openai.keys[0].value: ")
    assert verdict == "ok: 2 listeners, 1 upstream, 1 pool, 1 route, 1 client (1 warning)"
    assert "S3CR3T" not in result.output
    assert result.exit_code == 0


def test_json_for_programs(tmp_path: Path) -> None:
    result = run(tmp_path, FIVE_MISTAKES, "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (answer["ok"], len(answer["problems"]), answer["warnings"]) == (False, 5, [])
    assert answer["problems"][4] == {
        "file": str(tmp_path / "config.yaml"),
        "line": 8,
        "path": "routes[0].pol",
        "message": "unknown field: did you mean 'pool'?",
    }


def test_env_file_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECK_WEB_KEY", "outer")
    env_file = tmp_path / ".env"
    env_file.write_text("CHECK_WEB_KEY=inner\nexport CHECK_OPENAI_KEY='sk-$HOME'\n# comment\nCHECK_BARE\n")
    assert run(tmp_path, VALID, "--env-file", str(env_file)).exit_code == 0
    environ = environment(env_file)
    assert (environ["CHECK_WEB_KEY"], environ["CHECK_OPENAI_KEY"]) == ("inner", "sk-$HOME")
    assert "CHECK_BARE" not in environ


def test_absent_files_are_errors(tmp_path: Path) -> None:
    absent = CliRunner().invoke(check, [str(tmp_path / "absent.yaml")])
    assert (absent.exit_code, "no such file" in absent.output) == (1, True)
    assert run(tmp_path, VALID, "--env-file", str(tmp_path / "absent.env")).exit_code == 2


@pytest.mark.usefixtures("keys")
def test_colour_changes_no_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(tmp_path, FIVE_MISTAKES).output
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = run(tmp_path, FIVE_MISTAKES).output
    assert "\x1b[31m" in coloured
    assert (
        "".join(part.partition("m")[2] if index else part for index, part in enumerate(coloured.split("\x1b[")))
        == plain
    )


def test_schema_is_json_schema() -> None:
    printed = json.loads(CliRunner().invoke(schema).stdout)
    assert printed["$schema"].startswith("https://json-schema.org/")
    assert {"listen", "upstreams", "pools", "routes"} <= printed["properties"].keys()


@pytest.mark.usefixtures("keys")
def test_certificate_that_ends_soon_is_a_warning(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(days=9, hours=1)
    cert, key = Authority(tmp_path / "authority").issue("localhost", not_after=soon)
    result = run(tmp_path, VALID + f"admin: {{tls: {{cert: '{cert}', key: '{key}'}}}}\n")
    warning, verdict = result.output.splitlines()
    assert warning.startswith("warning: configuration: admin.tls.cert: expires at ")
    assert warning.endswith("Z, in 9 days: renew it")
    assert (verdict.endswith("(1 warning)"), result.exit_code) == (True, 0)
