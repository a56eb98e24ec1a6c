"""States survive kills and full disks whole, and what cannot be understood is left as it is."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.controlplane.state_file import StateFile, StateUnreadable, StateUnwritable

MARKER = "S3CR3T-5f1c"
STEPS = ["open", "write", "fsync", "replace"]


class Rotation(msgspec.Struct):
    name: str
    kind: Literal["sealed", "file"] = "sealed"
    share: float = 0.0


class Keys(msgspec.Struct):
    rotations: list[Rotation] = []
    revoked: dict[str, int] = {}


class Killed(BaseException):
    """As a kill: nothing tidies up behind it."""


OLD, NEW = Keys([Rotation("main")]), Keys([Rotation("main"), Rotation("other")], {"5f1c0d9e": 7})


def keys_file(folder: Path) -> StateFile[Keys]:
    return StateFile(folder / "keys.json", Keys)


def written(folder: Path, content: bytes) -> StateFile[Keys]:
    (folder / "keys.json").write_bytes(content)
    (folder / "keys.json").chmod(0o600)
    return keys_file(folder)


def refusal(file: StateFile[Keys]) -> str:
    with pytest.raises(StateUnreadable) as caught:
        file.load()
    return str(caught.value)


def failing(monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException, calls_before: int = 0) -> None:
    """Let `os.step` fail, behind so many calls that work."""
    works: Callable[..., Any] = getattr(os, step)
    left = [calls_before]

    def fails(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            return works(*arguments, **options)
        raise error

    monkeypatch.setattr(os, step, fails)


# --- there and back ------------------------------------------------------------------------------------------------


def test_what_was_saved_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    keys_file(tmp_path).save(OLD)
    file = keys_file(tmp_path)
    assert file.load() == OLD
    assert file.remarks == []
    file.save(NEW)
    assert keys_file(tmp_path).load() == NEW


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert keys_file(tmp_path).load() is None


def test_file_says_its_version_and_is_private(tmp_path: Path) -> None:
    keys_file(tmp_path).save(OLD)
    assert (tmp_path / "keys.json").read_bytes().startswith(b'{"version":1,"name":"keys.json","state":{')
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


ROTATIONS = st.builds(Rotation, st.text(), st.sampled_from(["sealed", "file"]), st.floats(allow_nan=False))


@given(st.builds(Keys, st.lists(ROTATIONS), st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1))))
def test_any_value_comes_back_or_is_refused_with_the_old_one_kept(
    tmp_path_factory: pytest.TempPathFactory, value: Keys
) -> None:
    file = keys_file(tmp_path_factory.mktemp("state"))
    file.save(OLD)
    try:
        file.save(value)
    except ValueError:
        value = OLD
    assert file.load() == value


def test_value_that_could_not_be_read_again_is_refused(tmp_path: Path) -> None:
    file = keys_file(tmp_path)
    file.save(OLD)
    with pytest.raises(ValueError, match=r"keys.json: a value that could not be read again: it holds something else"):
        file.save(Keys([Rotation("main", share=float("nan"))]))
    assert file.load() == OLD


# --- kills and full disks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "calls_before"), [*((step, 0) for step in STEPS), ("open", 1), ("fsync", 1)])
def test_kill_leaves_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, calls_before: int
) -> None:
    file = keys_file(tmp_path)
    file.save(OLD)
    with monkeypatch.context() as patch:
        failing(patch, step, Killed(), calls_before)
        with pytest.raises(Killed):
            file.save(NEW)
    after = keys_file(tmp_path)
    assert after.load() == (NEW if calls_before else OLD)
    after.save(NEW)
    assert keys_file(tmp_path).load() == NEW
    assert [left.name for left in tmp_path.iterdir()] == ["keys.json"], "what the kill left is cleared"


def test_leftover_is_no_part_of_what_is_saved_next(tmp_path: Path) -> None:
    (tmp_path / "keys.json.new").write_bytes(b"x" * 10_000)
    (tmp_path / "keys.json.new").chmod(0o666)
    keys_file(tmp_path).save(OLD)
    assert keys_file(tmp_path).load() == OLD
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", STEPS)
def test_full_disk_leaves_the_old_one_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    file = keys_file(tmp_path)
    file.save(OLD)
    with monkeypatch.context() as patch:
        failing(patch, step, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(StateUnwritable) as caught:
            file.save(NEW)
    assert str(caught.value) == f"{tmp_path}/keys.json cannot be written (No space left on device)"
    assert keys_file(tmp_path).load() == OLD
    assert [left.name for left in tmp_path.iterdir()] == ["keys.json"]
    file.save(NEW)
    assert keys_file(tmp_path).load() == NEW


def test_write_in_pieces_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, bytes(data)[:7]))
    keys_file(tmp_path).save(NEW)
    assert keys_file(tmp_path).load() == NEW


def test_file_and_directory_are_synced_in_that_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    keys_file(tmp_path).save(OLD)
    assert done == ["file", "rename", "directory"]


@pytest.mark.parametrize(("code", "told"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_directory_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: bool
) -> None:
    failing(monkeypatch, "fsync", OSError(code, "no"), calls_before=1)
    if told:
        with pytest.raises(StateUnwritable):
            keys_file(tmp_path).save(OLD)
    else:
        keys_file(tmp_path).save(OLD)
    assert keys_file(tmp_path).load() == OLD


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StateUnwritable, match=r"absent/keys.json cannot be written \(No such file or directory\)"):
        keys_file(tmp_path / "absent").save(OLD)


# --- what cannot be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is damaged"),
        (b"\0" * 80, "is damaged"),
        (b'{"version":1,"name":"keys.json","state":{"rotations":[', "is damaged"),
        (b'{"version":1,"name":"keys.json","state":{"rotations":[{"name":"\xff"}]}}', "is damaged"),
        (b"[" * 100_000, "holds something else"),
        (b'{"version":1,"name":"keys.json","state":' + b"[" * 100_000, "is damaged"),
        (b"{}", "holds something else (Object missing required field `version`)"),
        (b'{"version":"1"}', "holds something else (Expected `int`, got `str` - at `$.version`)"),
        (b'{"version":1}', "holds something else (Object missing required field `name`)"),
        (b'{"version":1,"name":"clients.json","state":{}}', "was saved under another name"),
        (
            b'{"version":1,"name":"keys.json","state":{"revoked":["%b"]}}' % MARKER.encode(),
            "holds something else (Expected `object`, got `array` - at `$.revoked`)",
        ),
        (
            b'{"version":1,"name":"keys.json","state":{"rotations":[{"name":"","kind":"%b"}]}}' % MARKER.encode(),
            "holds something else (a value that cannot be)",
        ),
        (b'{"version":2,"everything":"%b"}' % MARKER.encode(), "has version 2, not 1: start the Serinus that wrote it"),
    ],
)
def test_file_that_is_none_of_ours_is_named_and_left_alone(tmp_path: Path, content: bytes, found: str) -> None:
    file = written(tmp_path, content)
    message = refusal(file)
    assert message.startswith(f"{tmp_path}/keys.json {found}")
    assert "move it away to do without" in message
    assert MARKER not in message
    for another in (file, keys_file(tmp_path)):  # whether it was loaded before or not
        with pytest.raises(StateUnreadable) as caught:
            another.save(NEW)
        assert str(caught.value) == message
    assert (tmp_path / "keys.json").read_bytes() == content


def test_file_moved_away_may_be_saved_anew(tmp_path: Path) -> None:
    file = written(tmp_path, b"damaged")
    refusal(file)
    (tmp_path / "keys.json").rename(tmp_path / "keys.json.damaged")
    file.save(OLD)
    file.save(NEW)
    assert keys_file(tmp_path).load() == NEW
    assert (tmp_path / "keys.json.damaged").read_bytes() == b"damaged"


def test_file_repaired_is_not_overwritten_before_it_was_loaded(tmp_path: Path) -> None:
    file = written(tmp_path, b"damaged")
    refusal(file)
    (tmp_path / "keys.json").unlink()
    keys_file(tmp_path).save(OLD)
    with pytest.raises(StateUnreadable):
        file.save(NEW)
    assert file.load() == OLD
    file.save(NEW)
    assert file.load() == NEW


def test_fields_of_a_later_minor_version_are_passed_over(tmp_path: Path) -> None:
    file = written(tmp_path, b'{"version":1,"name":"keys.json","by":"x","state":{"revoked":{"a":1},"later":[]}}')
    assert file.load() == Keys([], {"a": 1})


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys.json", 0o600)
    assert f"{tmp_path}/keys.json is not a file" in refusal(keys_file(tmp_path))
    (tmp_path / "keys.json").unlink()
    (tmp_path / "keys.json").mkdir()
    assert f"{tmp_path}/keys.json is not a file" in refusal(keys_file(tmp_path))


def test_file_that_may_not_be_read_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, b"{}")
    with monkeypatch.context() as patch:
        failing(patch, "open", PermissionError(errno.EACCES, "Permission denied"))
        assert "keys.json cannot be read (Permission denied): put a good copy" in refusal(file)
    with pytest.raises(StateUnreadable, match="Permission denied"):
        file.save(NEW)


# --- in whose sight ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o622, 0o666])
def test_file_open_to_others_is_closed_and_remarked_on(tmp_path: Path, mode: int) -> None:
    keys_file(tmp_path).save(OLD)
    (tmp_path / "keys.json").chmod(mode)
    file = keys_file(tmp_path)
    assert file.load() == OLD
    assert file.remarks == [
        f"{tmp_path}/keys.json was open to other users (mode {mode:o}): it is now its owner's alone"
    ]
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    file.load()
    assert file.remarks == []


def test_file_that_cannot_be_closed_to_others_is_loaded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys_file(tmp_path).save(OLD)
    (tmp_path / "keys.json").chmod(0o644)
    failing(monkeypatch, "fchmod", PermissionError(errno.EPERM, "Operation not permitted"))
    file = keys_file(tmp_path)
    assert file.load() == OLD
    assert "stays so (Operation not permitted): chmod 600 it" in file.remarks[0]
