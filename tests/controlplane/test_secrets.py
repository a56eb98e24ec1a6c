"""Where secrets come from, which files are refused, and that no error or warning holds one."""

import os
from pathlib import Path

import pytest

from proxy.controlplane.load import parse
from proxy.controlplane.problems import ConfigInvalid
from proxy.controlplane.secrets import FILE_BYTES_MAX, SecretReader
from proxy.controlplane.vault import CONFIG_PURPOSE, MasterKey, Vault, new_master_key

MARKER = "S3CR3T-5f1c"


def reader(folder: Path = Path("/nowhere"), **environ: str) -> SecretReader:
    return SecretReader(environ, folder)


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    file = folder / "secret"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def refusal(secrets: SecretReader, text: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        secrets.resolve(text)
    return str(caught.value)


def test_environment() -> None:
    assert reader(KEY=MARKER).resolve("env:KEY").reveal() == MARKER


def test_unset_and_empty_variables_are_named() -> None:
    secrets = reader(OPENAI_API_KEY=MARKER, EMPTY="", OPENAI_OTHER="")
    assert refusal(secrets, "env:OPENAI_KEY") == (
        "the environment variable OPENAI_KEY is not set: did you mean OPENAI_API_KEY?"
    )
    assert refusal(secrets, "env:EMPTY") == "the environment variable EMPTY is empty: give it a value"


@pytest.mark.parametrize("text", [f"env:{MARKER}", "env:", "env:a b", "env:sk_abc123", "env:1A"])
def test_a_key_in_the_place_of_a_variable_is_not_shown(text: str) -> None:
    message = refusal(reader(), text)
    assert text == "env:" or text.removeprefix("env:") not in message


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"key\n", "key"),
        (b"key\r\n", "key"),
        (b"key", "key"),
        (b"key\n\n", "key\n"),
        (b" key", " key"),
        ("ключ".encode(), "ключ"),
    ],
)
def test_file_loses_one_line_break_at_its_end(tmp_path: Path, content: bytes, value: str) -> None:
    assert reader().resolve(f"file:{secret_file(tmp_path, content)}").reveal() == value


def test_relative_file_begins_where_the_configuration_is(tmp_path: Path) -> None:
    secret_file(tmp_path, b"key\n")
    assert reader(tmp_path).resolve("file:secret").reveal() == "key"


def test_file_behind_a_link_as_in_kubernetes(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    secret_file(tmp_path / "..data", b"key", 0o440)
    (tmp_path / "link").symlink_to("..data/secret")
    assert reader(tmp_path).resolve("file:link").reveal() == "key"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o666])
def test_file_open_to_all_users_is_refused(tmp_path: Path, mode: int) -> None:
    file = secret_file(tmp_path, MARKER.encode(), mode)
    message = refusal(reader(), f"file:{file}")
    assert "open to all users: chmod 640 it" in message
    assert MARKER not in message


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o660])
def test_file_open_to_its_group_is_taken(tmp_path: Path, mode: int) -> None:
    assert reader().resolve(f"file:{secret_file(tmp_path, b'key', mode)}").reveal() == "key"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe" + MARKER.encode(), "holds no text"),
        (b"x" * (FILE_BYTES_MAX + 1), "too large"),
    ],
)
def test_file_without_a_usable_secret(tmp_path: Path, content: bytes, message: str) -> None:
    file = secret_file(tmp_path, content)
    told = refusal(reader(), f"file:{file}")
    assert message in told
    assert str(file) in told
    assert MARKER not in told


def test_file_that_is_none(tmp_path: Path) -> None:
    assert refusal(reader(tmp_path), "file:absent") == f"{tmp_path}/absent cannot be read: no such file or directory"
    assert "is not a file" in refusal(reader(), f"file:{tmp_path}")
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a file" in refusal(reader(tmp_path), "file:pipe")
    assert "write it as in file:/run" in refusal(reader(tmp_path), "file:")
    assert "comes no path" in refusal(reader(tmp_path), "file:a\0b")


def test_sealed_without_a_master_key() -> None:
    message = refusal(reader(), f"sealed:v1:{MARKER}")
    assert message == "no master key: set SERINUS_MASTER_KEY, or name a file that holds one"


def test_sealed_opens_with_any_master_key(tmp_path: Path) -> None:
    first, second = new_master_key(), new_master_key()
    file = secret_file(tmp_path, first.encode())
    sealed = Vault([MasterKey.parse(second)]).seal(MARKER, CONFIG_PURPOSE)
    assert SecretReader({"SERINUS_MASTER_KEY": second}, tmp_path, [f"file:{file}"]).resolve(sealed).reveal() == MARKER
    assert SecretReader({"A": first, "B": second}, tmp_path, ["env:A", "env:B"]).resolve(sealed).reveal() == MARKER
    assert MARKER not in refusal(reader(SERINUS_MASTER_KEY=first), sealed)


def test_sealed_values_in_a_configuration() -> None:
    master = new_master_key()
    sealed = Vault([MasterKey.parse(master)]).seal(MARKER, CONFIG_PURPOSE)
    text = f"""
        master_keys: [env:MASTER]
        upstreams: {{a: {{base_url: 'http://127.0.0.1:1', keys: [{{name: main, value: '{sealed}'}}]}}}}
        pools: {{p: {{members: [{{upstream: a}}]}}}}
        routes: [{{prefix: /v1, pool: p}}]
    """
    loaded = parse(text, {"MASTER": master})
    assert (loaded.settings.upstreams["a"].keys[0].value.reveal(), loaded.warnings) == (MARKER, ())
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, {"MASTER": "too short"})
    assert [str(problem).partition(": ")[2].partition(":")[0] for problem in caught.value.problems] == [
        "master_keys[0]",
        "upstreams.a.keys[0].value",
    ]
    assert "too short" not in str(caught.value.problems)


@pytest.mark.parametrize("text", ["", "  ", "ENV:KEY", "env : KEY", " env:KEY", "$KEY", "${KEY}", "${{ secrets.KEY }}"])
def test_almost_a_reference_is_not_taken_for_a_secret(text: str) -> None:
    refusal(reader(KEY=MARKER), text)


@pytest.mark.parametrize("text", ["sk-abc:def", "a$b", "$ecret", "/base64+/==", "environment"])
def test_plain_text_is_taken_with_a_warning(text: str) -> None:
    secrets = reader()
    assert secrets.resolve(text).reveal() == text
    assert secrets.remarks[text] == ["the secret stands here in plain text: write env:NAME or file:/path"]


@pytest.mark.parametrize(
    ("value", "remark"),
    [
        ("key ", "begins or ends with a blank"),
        ("\tkey", "begins or ends with a blank"),
        ("key\n", "begins or ends with a blank"),
        ("a\nb", "line break inside"),
        ('"key"', "in quotes"),
        ("'key'", "in quotes"),
    ],
)
def test_what_is_seldom_meant_is_noticed(value: str, remark: str) -> None:
    secrets = reader(KEY=value)
    secrets.resolve("env:KEY")
    assert [remark in noticed for noticed in secrets.remarks["env:KEY"]] == [True]


def test_ordinary_secrets_are_not_remarked_on() -> None:
    secrets = reader(KEY="sk-proj-abc_DEF")
    secrets.resolve("env:KEY")
    assert secrets.remarks["env:KEY"] == []


def test_no_error_or_warning_holds_a_secret(tmp_path: Path) -> None:
    secret_file(tmp_path, f'"{MARKER}"\n{MARKER} '.encode())
    text = f"""
clients: [{{name: a, key: {MARKER}}}, {{name: b, key: {MARKER}}}, {{name: c, key: file:secret, {MARKER}: 1}}]
admin: {{listen: 0.0.0.0:1, tokens: [{{name: a, value: "{MARKER}\\n"}}]}}
upstreams:
  a: {{base_url: "https://{MARKER}@x", keys: [{{name: a, value: file:secret, expect_prefix: sk-}}]}}
"""
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, {}, base=tmp_path)
    told = [str(caught.value), repr(caught.value), *map(repr, caught.value.problems + caught.value.warnings)]
    assert len(told) > 10
    assert not [line for line in told if MARKER in line]
