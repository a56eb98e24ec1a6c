"""`serinus seal`, as a shell sees it: no secret among its arguments and messages, and a file is moved whole or not."""

import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli.seal import seal
from proxy.controlplane.secrets import FILE_BYTES_MAX
from proxy.controlplane.vault import MasterKey, Vault, new_master_key

MARKER = "S3CR3T-5f1c"
OLD, NEW = new_master_key(), new_master_key()
OLD_VAULT, NEW_VAULT = Vault([MasterKey.parse(OLD)]), Vault([MasterKey.parse(NEW)])


def run(*arguments: str | Path, master_key: str | None = NEW, stdin: str | bytes = "") -> Result:
    result = CliRunner().invoke(
        seal, [str(argument) for argument in arguments], input=stdin, env={"SERINUS_MASTER_KEY": master_key}
    )
    for secret in (MARKER, OLD, NEW):
        assert secret not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def refusal(*arguments: str | Path, master_key: str | None = NEW, stdin: str | bytes = MARKER) -> str:
    result = run(*arguments, master_key=master_key, stdin=stdin)
    assert result.exit_code != 0
    assert result.stdout == ""
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def key_file(folder: Path, text: str, mode: int = 0o600, name: str = "master") -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration file of these bytes."""

    def write(content: bytes, mode: int = 0o640) -> Path:
        file = tmp_path / "serinus.yaml"
        file.write_bytes(content)
        file.chmod(mode)
        return file

    return write


@pytest.mark.parametrize(
    ("stdin", "value"),
    [
        (MARKER, MARKER),
        (f"{MARKER}\n", MARKER),
        (f"{MARKER}\r\n", MARKER),
        (f"{MARKER}\n\n", f"{MARKER}\n"),
        (f" {MARKER}\tключ ", f" {MARKER}\tключ "),
    ],
)
def test_what_is_piped_in_is_sealed_without_its_last_line_break(stdin: str, value: str) -> None:
    result = run(stdin=stdin)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    assert NEW_VAULT.unseal(result.stdout.rstrip("\n"), "config") == value


def test_purpose_can_be_given() -> None:
    result = run("--purpose", "key:openai/main", stdin=MARKER)
    assert NEW_VAULT.unseal(result.stdout.rstrip("\n"), "key:openai/main") == MARKER


@pytest.mark.parametrize("purpose", ["", " ", "a\nb", "\udcff"])
def test_purpose_is_a_word(purpose: str) -> None:
    assert refusal("--purpose", purpose) == "--purpose is a word, such as config"


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ("\n", "standard input is empty: write the secret to it, as in: serinus seal < /run/secrets/openai"),
        (MARKER.encode() + b"\xff", "standard input holds no text: give the secret as UTF-8"),
        (f"sealed:v1:{MARKER}", "the value on standard input is sealed already: give the secret itself"),
        ("k" * (FILE_BYTES_MAX + 1), f"more than {FILE_BYTES_MAX} bytes on standard input: is it the right file?"),
    ],
)
def test_what_is_no_secret_is_refused(stdin: str | bytes, message: str) -> None:
    assert refusal(stdin=stdin) == message


def test_secret_is_no_argument() -> None:
    assert run(MARKER[:3], stdin=MARKER).exit_code == 2


@pytest.mark.parametrize("master_key", [None, "", " , "])
def test_missing_master_key_is_said(master_key: str | None) -> None:
    assert refusal(master_key=master_key) == (
        "no master key: set SERINUS_MASTER_KEY or name a --master-key-file; --new-master-key prints a fresh one"
    )


def test_wrong_master_key_is_said_with_its_place(tmp_path: Path) -> None:
    right = "no master key: it has to be 32 random bytes in base64: openssl rand -base64 32"
    assert refusal(master_key=f"{NEW} {MARKER}") == f"SERINUS_MASTER_KEY: number 2 of 2: {right}"
    file = key_file(tmp_path, MARKER)
    assert refusal("--master-key-file", file) == f"{file}: {right}"


def test_first_master_key_seals_files_before_the_environment(tmp_path: Path) -> None:
    first, second = key_file(tmp_path, f"{NEW}\n", 0o440), key_file(tmp_path, OLD, name="second")
    for master_key, files in (
        (f"{NEW},{OLD}", []),
        (f"{NEW}\n{OLD}", []),
        (OLD, [first]),
        (None, [first, second]),
    ):
        result = run(*(f"--master-key-file={file}" for file in files), master_key=master_key, stdin=MARKER)
        assert NEW_VAULT.unseal(result.stdout.rstrip("\n"), "config") == MARKER


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_master_key_file_open_to_all_users_is_refused(tmp_path: Path, mode: int) -> None:
    file = key_file(tmp_path, NEW, mode)
    assert refusal("--master-key-file", file, master_key=None) == (
        f"{file} is open to all users: chmod 640 it, or defaultMode: 0440 in Kubernetes"
    )


def test_missing_master_key_file_is_named(tmp_path: Path) -> None:
    assert refusal("--master-key-file", tmp_path / "gone") == (
        f"{tmp_path / 'gone'} cannot be read: no such file or directory"
    )


def test_new_master_key_needs_none_and_is_another_each_time() -> None:
    results = [run("--new-master-key", master_key=None) for _ in range(2)]
    assert [result.exit_code for result in results] == [0, 0]
    assert len({MasterKey.parse(result.stdout).key_id for result in results}) == 2


def test_new_master_key_and_rewrap_do_not_go_together(tmp_path: Path) -> None:
    assert refusal("--new-master-key", "--rewrap", tmp_path) == (
        "--new-master-key and --rewrap do different things: use one of them"
    )


def test_rewrap_changes_sealed_values_and_no_other_byte(config: Callable[..., Path]) -> None:
    old = [OLD_VAULT.seal(f"{MARKER}-{number}", "config").encode() for number in range(4)]
    there = NEW_VAULT.seal(MARKER, "config").encode()
    template = (
        b"\xef\xbb\xbfa: %b # \xff\r\nb: '%b'\r\n\tc: \"%b\"\n# was: %b\nd: {e: %b}\nunsealed:v1:x, sealed:v1:..."
    )
    file = config(template % (old[0], old[1], old[2], old[3], there))
    result = run("--rewrap", file, master_key=f"{NEW},{OLD}")
    assert result.output == f"{file}: 4 values moved to master key {NEW_VAULT.key_id}, 1 there before\n"
    content = file.read_bytes()
    moved = [part for part in content.replace(b"'", b" ").replace(b'"', b" ").split() if part.startswith(b"sealed:v1:")]
    assert [NEW_VAULT.unseal(part.decode(), "config") for part in moved[:4]] == [f"{MARKER}-{n}" for n in range(4)]
    assert content == template % (*moved[:4], there)


def test_rewrap_takes_one_purpose(config: Callable[..., Path]) -> None:
    file = config(OLD_VAULT.seal(MARKER, "key:openai/main").encode())
    result = run("--rewrap", file, "--purpose", "key:openai/main", master_key=f"{NEW},{OLD}")
    assert result.output == f"{file}: 1 value moved to master key {NEW_VAULT.key_id}, 0 there before\n"
    assert NEW_VAULT.unseal(file.read_text(), "key:openai/main") == MARKER


def test_rewrap_of_what_cannot_be_read_changes_nothing_and_names_the_lines(config: Callable[..., Path]) -> None:
    lost, sealed = Vault([MasterKey.parse(new_master_key())]), OLD_VAULT.seal(MARKER, "config")
    values = {
        sealed: None,
        lost.seal(MARKER, "config"): f"sealed under master key {lost.key_id}",
        "env:KEY": None,
        sealed[:-1]: "damaged",
        OLD_VAULT.seal(MARKER, "other"): "sealed for another purpose",
        "sealed:v2:x": "sealed in format v2",
        f"sealed:v1:{MARKER}": "damaged",
    }
    content = "\n".join(f"key: {value}" for value in values).encode()
    file = config(content)
    before = file.stat()
    result = run("--rewrap", file, master_key=f"{NEW},{OLD}")
    assert result.exit_code == 1
    first, *said = result.stderr.splitlines()
    assert first == f"Error: {file} is as it was: 5 sealed values cannot be read"
    expected = [f"{file}:{line}: {problem}" for line, problem in enumerate(values.values(), 1) if problem]
    assert [line[: len(start)] for line, start in zip(said, expected, strict=True)] == expected
    assert file.read_bytes() == content
    assert file.stat().st_ino == before.st_ino


def test_rewrap_keeps_mode_and_owner_and_leaves_nothing_behind(config: Callable[..., Path]) -> None:
    file = config(OLD_VAULT.seal(MARKER, "config").encode(), 0o604)
    if os.geteuid() == 0:
        os.chown(file, 12345, 23456)
    before = file.stat()
    assert run("--rewrap", file, master_key=f"{NEW},{OLD}").exit_code == 0
    after = file.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert list(file.parent.iterdir()) == [file]


def test_rewrap_follows_a_link_and_keeps_it(config: Callable[..., Path], tmp_path: Path) -> None:
    file = config(OLD_VAULT.seal(MARKER, "config").encode())
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(file)
    assert run("--rewrap", link, master_key=f"{NEW},{OLD}").exit_code == 0
    assert link.is_symlink()
    assert NEW_VAULT.unseal(file.read_text(), "config") == MARKER


def test_rewrap_with_nothing_to_move_does_not_write(config: Callable[..., Path]) -> None:
    there = f"0 values moved to master key {NEW_VAULT.key_id}, 1 there before"
    for value, said in (("env:KEY", "nothing in it is sealed"), (NEW_VAULT.seal(MARKER, "config"), there)):
        file = config(f"key: {value}\n".encode())
        before = file.stat()
        assert run("--rewrap", file).output == f"{file}: {said}\n"
        assert file.stat().st_ino == before.st_ino


@pytest.mark.parametrize("function", ["fchown", "fchmod", "fsync"])
def test_rewrap_that_cannot_be_written_leaves_the_file(
    config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    content = OLD_VAULT.seal(MARKER, "config").encode()
    file = config(content)
    if function == "fchown":  # as if whoever runs this were not the file's owner
        stranger = os.stat_result((0, 0, 0, 0, 54321, 54321, 0, 0, 0, 0))
        monkeypatch.setattr(os, "fstat", lambda _: stranger)
    monkeypatch.setattr(os, function, refused)
    assert refusal("--rewrap", file, master_key=f"{NEW},{OLD}") == (
        f"{file} cannot be rewritten: operation not permitted"
    )
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_content_is_on_the_disk_before_it_has_its_name_and_the_name_after(
    config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = config(OLD_VAULT.seal(MARKER, "config").encode())
    synced = []

    def fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append((kind, file.read_text().split(":")[2]))

    monkeypatch.setattr(os, "fsync", fsync)
    assert run("--rewrap", file, master_key=f"{NEW},{OLD}").exit_code == 0
    assert synced == [("file", OLD_VAULT.key_id), ("directory", NEW_VAULT.key_id)]


def test_rewrap_of_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "gone", tmp_path / "pipe"):
        assert refusal("--rewrap", path) == f"{path} is no file: name the one that holds sealed values"


def test_terminal_does_not_show_what_is_typed() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from proxy.cli.seal import seal; seal()"]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=os.environ | {"SERINUS_MASTER_KEY": NEW},
        start_new_session=True,  # so that it has no other terminal to ask
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Secret (not shown): " not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, f"{MARKER}\n".encode())
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        while b"\n" not in shown:
            shown += os.read(ours, 1000)
    os.close(ours)
    assert process.returncode == 0
    assert MARKER.encode() not in shown
    assert NEW_VAULT.unseal(printed.rstrip("\n"), "config") == MARKER
