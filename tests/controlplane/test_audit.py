"""The audit log tells whoever looks that it was changed, and survives kills and full disks."""

import errno
import json
import os
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.controlplane.audit import LINE_BYTES_MAX, START, Audit, Fact, Head, Verified, read, verify
from proxy.controlplane.state_file import StateFile, StateUnreadable, StateUnwritable

WALL_S = 1_795_255_200.25  # 2026-11-21T10:00:00.250Z


class Killed(BaseException):
    """As a kill: nothing tidies up behind it."""


def opened(folder: Path) -> Audit:
    return Audit(folder / "audit.log", lambda: WALL_S)


def with_lines(folder: Path, count: int) -> Path:
    """A log of so many lines, all different."""
    audit = opened(folder)
    for number in range(1, count + 1):
        audit.append("key_rotated", "ops", "10.0.0.1", {"upstream": "openai", "key": f"key-{number}"})
    audit.close()
    return folder / "audit.log"


def lines_of(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines(keepends=True)


def head_of(folder: Path) -> Head:
    return StateFile(folder / "audit.head", Head).load() or START


def whats(log: Path) -> list[str]:
    return [entry.what for entry in read(log, 100)]


def failing(patch: pytest.MonkeyPatch, step: str, error: BaseException, calls_before: int = 0) -> None:
    """Let `os.step` fail, behind so many calls that work."""
    works: Callable[..., Any] = getattr(os, step)
    left = [calls_before]

    def fails(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            return works(*arguments, **options)
        raise error

    patch.setattr(os, step, fails)


def no_space() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


# --- lines ---------------------------------------------------------------------------------------------------------


def test_a_line_says_who_did_what_when_and_from_where(tmp_path: Path) -> None:
    audit = opened(tmp_path)
    entry = audit.append("key_revoked", "ops", "10.0.0.1", {"upstream": "openai", "fingerprint": "5f1c0d9e", "left": 2})
    assert json.loads((tmp_path / "audit.log").read_bytes()) == {
        "number": 1,
        "time": "2026-11-21T10:00:00.250Z",
        "who": "ops",
        "from": "10.0.0.1",
        "what": "key_revoked",
        "about": {"upstream": "openai", "fingerprint": "5f1c0d9e", "left": 2},
        "chain": entry.chain,
    }
    assert read(tmp_path / "audit.log", 1) == [entry]
    assert stat.S_IMODE((tmp_path / "audit.log").stat().st_mode) == 0o600
    audit.close()


def test_chain_can_be_checked_with_nothing_but_a_hash(tmp_path: Path) -> None:
    previous = "0" * 64
    for line in lines_of(with_lines(tmp_path, 3)):
        body, chain = line[:-77] + b"}", line[-67:-3].decode()
        assert line == body[:-1] + b',"chain":"%b"}\n' % chain.encode()
        assert sha256(previous.encode() + body).hexdigest() == chain
        previous = chain
    assert head_of(tmp_path) == Head(3, previous)


FACTS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | st.lists(st.text())


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.dictionaries(st.text(), FACTS)), max_size=3))
def test_any_events_make_a_log_that_holds(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, str, str, dict[str, Fact]]]
) -> None:
    folder = tmp_path_factory.mktemp("audit")
    audit = opened(folder)
    entries = []
    for event in events:
        try:
            entries.append(audit.append(*event))
        except ValueError:
            continue
    audit.close()
    log = folder / "audit.log"
    assert read(log, 10) == entries
    assert verify(log) == Verified(len(entries))
    assert log.read_bytes().count(b"\n") == len(entries)


def test_a_line_that_is_refused_leaves_no_trace(tmp_path: Path) -> None:
    audit = opened(tmp_path)
    refused: list[Any] = [{"x": "x" * LINE_BYTES_MAX}, {"x": {"y": 1}}, {"x": "\ud800"}]
    for about in refused:
        with pytest.raises(ValueError, match=r"."):
            audit.append("too_much", "ops", "", about)
    audit.append("enough", "ops", "", {})
    audit.close()
    assert verify(tmp_path / "audit.log") == Verified(1)


def test_the_longest_line_is_found_again(tmp_path: Path) -> None:
    audit = opened(tmp_path)
    room = LINE_BYTES_MAX
    while True:
        try:
            audit.append("long", "ops", "", {"x": "x" * room})
            break
        except ValueError:
            room -= 1
    for _ in range(4):
        audit.append("long", "ops", "", {"x": "x" * room})
    audit.close()
    assert len(lines_of(tmp_path / "audit.log")[0]) == LINE_BYTES_MAX
    with (tmp_path / "audit.log").open("ab") as file:
        file.write(b"x" * LINE_BYTES_MAX)
    opened(tmp_path).close()
    assert whats(tmp_path / "audit.log") == ["long"] * 5 + ["torn_line_removed"]


def test_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    with_lines(tmp_path, 3)
    log = with_lines(tmp_path, 2)
    assert [entry.number for entry in read(log, 10)] == [1, 2, 3, 4, 5]
    assert verify(log) == Verified(5)


def test_the_last_entries_are_read_oldest_first(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 5)
    assert [entry.number for entry in read(log, 2)] == [4, 5]
    assert read(log, 0) == []
    assert read(tmp_path / "absent.log", 5) == []


def test_what_is_no_line_is_not_read(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 2)
    log.write_bytes(b"\n\xff\n{}\n" + log.read_bytes() + lines_of(log)[0][:-1])
    assert [entry.number for entry in read(log, 10)] == [1, 2]


def test_nothing_written_holds(tmp_path: Path) -> None:
    assert verify(tmp_path / "audit.log") == Verified(0)
    opened(tmp_path).close()
    assert verify(tmp_path / "audit.log") == Verified(0)


# --- tampering -----------------------------------------------------------------------------------------------------


def rechained(lines: list[bytes]) -> list[bytes]:
    """What somebody writes who knows how it is done, and has not thought of the head."""
    previous, made = "0" * 64, []
    for line in lines:
        body = line[:-77] + b"}"
        previous = sha256(previous.encode() + body).hexdigest()
        made.append(body[:-1] + b',"chain":"%b"}\n' % previous.encode())
    return made


@pytest.fixture(scope="module")
def four_lines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    log = with_lines(tmp_path_factory.mktemp("audit"), 4)
    return log, log.read_bytes()


@given(st.data())
def test_any_changed_byte_is_found_where_it_is(four_lines: tuple[Path, bytes], data: st.DataObject) -> None:
    log, content = four_lines[0], bytearray(four_lines[1])
    at = data.draw(st.integers(0, len(content) - 1))
    line = content[:at].count(b"\n") + 1
    content[at] ^= data.draw(st.integers(1, 255))
    log.write_bytes(content)
    verified = verify(log)
    assert verified.first_broken == line
    assert verified.lines == line - 1
    assert verified.why


@pytest.mark.parametrize("at", range(5))
def test_a_removed_line_is_found(tmp_path: Path, at: int) -> None:
    log = with_lines(tmp_path, 5)
    lines = lines_of(log)
    del lines[at]
    log.write_bytes(b"".join(lines))
    assert verify(log).first_broken == at + 1


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("what", [0, 4, b"\n", b"\r", b"{}\n"])
def test_an_inserted_line_is_found(tmp_path: Path, at: int, what: int | bytes) -> None:
    log = with_lines(tmp_path, 5)
    lines = lines_of(log)
    lines.insert(at, lines[what] if isinstance(what, int) else what)
    log.write_bytes(b"".join(lines))
    if at == 5 and what == b"\r":
        assert verify(log) == Verified(5), "behind the last, it is half of a line to come"
    else:
        assert verify(log).first_broken == at + 1 + (what == at), "of two that are the same, the second"


def test_moved_lines_are_found(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 5)
    lines = lines_of(log)
    lines[1], lines[3] = lines[3], lines[1]
    log.write_bytes(b"".join(lines))
    assert verify(log) == Verified(1, 2, "it says that it is line 4: lines were removed, inserted or moved")


def test_a_changed_line_says_that_it_was_changed(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 3)
    log.write_bytes(log.read_bytes().replace(b"key-2", b"key-9"))
    why = "its chain value is not that of its text and the line before: one of them was changed"
    assert verify(log) == Verified(1, 2, why)


@pytest.mark.parametrize("left", range(5))
def test_lines_cut_off_are_found_by_the_head(tmp_path: Path, left: int) -> None:
    log = with_lines(tmp_path, 5)
    log.write_bytes(b"".join(lines_of(log)[:left]))
    assert verify(log) == Verified(left, left + 1, "lines were cut off: audit.head says that there are 5")


def test_log_that_was_deleted_is_missed(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 5)
    log.unlink()
    assert verify(log).first_broken == 1


def test_log_written_anew_is_found_by_the_head(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 3)
    log.write_bytes(b"".join(rechained([line.replace(b"key-2", b"key-9") for line in lines_of(log)])))
    assert verify(log) == Verified(2, 3, "its chain value is not the one that audit.head has for it")


def test_lines_added_without_the_head_are_found_but_for_the_one_that_a_kill_may_leave(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 3)
    old = (tmp_path / "audit.head").read_bytes()
    with_lines(tmp_path, 1)
    (tmp_path / "audit.head").write_bytes(old)
    assert verify(log) == Verified(4)
    with_lines(tmp_path, 1)
    (tmp_path / "audit.head").write_bytes(old)
    found = verify(log)
    assert (found.lines, found.first_broken) == (4, 5)
    assert found.why.startswith("audit.head says that there are 3 lines")


def test_missing_head_is_found(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 3)
    (tmp_path / "audit.head").unlink()
    assert verify(log).why.startswith("audit.head says that there are 0 lines: it is missing")


def test_log_that_grows_while_it_is_verified_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = with_lines(tmp_path, 3)
    opens = Path.open

    def grown(path: Path, *arguments: Any) -> Any:
        monkeypatch.undo()
        with_lines(tmp_path, 3)  # behind the first look at the head, before the first line is read
        return opens(path, *arguments)

    monkeypatch.setattr(Path, "open", grown)
    assert verify(log) == Verified(6)


# --- kills ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 40, -2, -1])
def test_half_a_line_is_cut_off_and_that_is_told(tmp_path: Path, kept: int) -> None:
    log = with_lines(tmp_path, 3)
    head = (tmp_path / "audit.head").read_bytes()
    log = with_lines(tmp_path, 1)
    (tmp_path / "audit.head").write_bytes(head)
    *whole, last = lines_of(log)
    log.write_bytes(b"".join(whole) + last[:kept])
    assert verify(log) == Verified(3), "half a line is no break"
    opened(tmp_path).close()
    assert verify(log) == Verified(4)
    assert lines_of(log)[:3] == whole
    told = read(log, 1)[0]
    assert (told.what, told.who, told.origin, told.about) == (
        "torn_line_removed",
        "serinus",
        "",
        {"bytes": len(last[:kept])},
    )


def test_half_a_first_line_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "audit.log").write_bytes(b'{"number":1,"ti')
    opened(tmp_path).close()
    assert whats(tmp_path / "audit.log") == ["torn_line_removed"]
    assert verify(tmp_path / "audit.log") == Verified(1)


@pytest.mark.parametrize(
    ("step", "calls_before", "lines"),
    [("write", 0, 2), ("fdatasync", 0, 3), ("write", 1, 3), ("fsync", 0, 3), ("replace", 0, 3), ("fsync", 1, 3)],
)
def test_a_kill_at_any_step_leaves_a_log_that_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, calls_before: int, lines: int
) -> None:
    log = with_lines(tmp_path, 2)
    audit = opened(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, step, Killed(), calls_before)
        with pytest.raises(Killed):
            audit.append("key_revoked", "ops", "", {})
    audit.close()
    assert verify(log) == Verified(lines)
    opened(tmp_path).close()
    assert head_of(tmp_path).number == lines, "opening brings a head that is one behind up"
    with_lines(tmp_path, 2)
    assert verify(log) == Verified(lines + 2)
    assert not {"head_differs", "torn_line_removed"} & {*whats(log)}


# --- full disks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["write", "fdatasync"])
def test_full_disk_is_told_and_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    log = with_lines(tmp_path, 2)
    before = log.read_bytes()
    audit = opened(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, step, no_space())
        with pytest.raises(StateUnwritable) as caught:
            audit.append("key_revoked", "ops", "", {})
    assert str(caught.value) == f"{log} cannot be written (No space left on device)"
    if step == "write":
        assert log.read_bytes() == before
    audit.append("key_revoked", "ops", "", {})
    audit.close()
    assert verify(log) == Verified(3)


@pytest.mark.parametrize("cut_fails", [False, True])
def test_half_a_line_on_a_full_disk_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_fails: bool
) -> None:
    log = with_lines(tmp_path, 2)
    before = log.read_bytes()
    audit = opened(tmp_path)
    whole = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: whole(descriptor, bytes(data)[:20]))
        if cut_fails:
            failing(patch, "ftruncate", OSError(errno.EIO, "Input/output error"))
        with pytest.raises(StateUnwritable, match=r"audit.log cannot be written \(No space left on device\)"):
            audit.append("key_revoked", "ops", "", {})
        assert (log.read_bytes() == before) is not cut_fails
        if cut_fails:
            with pytest.raises(StateUnwritable, match=r"half a line cannot be removed .* \(Input/output error\)"):
                audit.append("key_revoked", "ops", "", {})
    audit.append("key_revoked", "ops", "", {})
    audit.close()
    assert verify(log) == Verified(3)


def test_head_that_found_no_room_is_written_before_the_next_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = with_lines(tmp_path, 2)
    audit = opened(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, "replace", no_space())
        assert audit.append("key_revoked", "ops", "", {}).number == 3, "it is recorded"
        with pytest.raises(StateUnwritable, match=r"audit.head cannot be written \(No space left on device\)"):
            audit.append("key_revoked", "ops", "", {})
    assert head_of(tmp_path).number == 2
    assert verify(log) == Verified(3)
    audit.append("key_revoked", "ops", "", {})
    audit.close()
    assert head_of(tmp_path).number == 4
    assert verify(log) == Verified(4)


def test_log_opens_on_a_full_disk_and_says_later_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = with_lines(tmp_path, 2)
    with log.open("ab") as file:
        file.write(b'{"number":3,')
    with monkeypatch.context() as patch:
        failing(patch, "write", no_space())
        audit = opened(tmp_path)
    audit.append("key_revoked", "ops", "", {})
    audit.close()
    assert whats(log)[2:] == ["torn_line_removed", "key_revoked"]
    assert verify(log) == Verified(4)


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StateUnwritable, match=r"absent/audit.log cannot be opened for writing \(No such file"):
        opened(tmp_path / "absent")


# --- what opening finds --------------------------------------------------------------------------------------------


def test_lines_cut_off_before_the_start_stay_visible(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 5)
    log.write_bytes(b"".join(lines_of(log)[:3]))
    with_lines(tmp_path, 2)
    assert [entry.number for entry in read(log, 10)] == [1, 2, 3, 6, 7, 8]
    told = read(log, 3)[0]
    assert (told.what, told.about) == ("head_differs", {"head_number": 5, "last_number": 3})
    assert verify(log).first_broken == 4
    with_lines(tmp_path, 1)
    assert whats(log).count("head_differs") == 1


def test_log_deleted_before_the_start_stays_visible(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 5)
    log.unlink()
    with_lines(tmp_path, 1)
    assert [entry.number for entry in read(log, 10)] == [6, 7]
    assert verify(log).first_broken == 1


def test_last_line_changed_before_the_start_stays_visible(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 3)
    log.write_bytes(log.read_bytes().replace(b"key-3", b"key-9"))
    with_lines(tmp_path, 1)
    assert whats(log)[3:] == ["head_differs", "key_rotated"]
    assert verify(log).first_broken == 3


def test_last_line_written_anew_before_the_start_stays_visible(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 3)
    log.write_bytes(b"".join(rechained([line.replace(b"key-3", b"key-9") for line in lines_of(log)])))
    with_lines(tmp_path, 1)
    assert whats(log)[3:] == ["head_differs", "key_rotated"]
    assert verify(log).first_broken == 4


@pytest.mark.parametrize("removed", [True, False])
def test_head_missing_or_old_at_the_start_is_told(tmp_path: Path, removed: bool) -> None:
    log = with_lines(tmp_path, 2)
    old = (tmp_path / "audit.head").read_bytes()
    with_lines(tmp_path, 2)
    (tmp_path / "audit.head").unlink()
    if not removed:
        (tmp_path / "audit.head").write_bytes(old)
    opened(tmp_path).close()
    told = read(log, 1)[0]
    assert (told.what, told.about) == ("head_differs", {"head_number": 0 if removed else 2, "last_number": 4})
    assert verify(log) == Verified(5)


def test_end_that_cannot_be_understood_without_a_head_is_refused(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 2)
    (tmp_path / "audit.head").unlink()
    log.write_bytes(log.read_bytes() + b"{}\n")
    before = log.read_bytes()
    with pytest.raises(StateUnreadable, match=r"audit.log ends in something that is no audit line") as caught:
        opened(tmp_path)
    assert "move it and audit.head away to begin anew" in str(caught.value)
    assert log.read_bytes() == before


def test_what_is_no_log_at_all_is_not_cut_off(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 2)
    log.write_bytes(log.read_bytes() + b"x" * (LINE_BYTES_MAX + 1))
    before = log.read_bytes()
    with pytest.raises(StateUnreadable, match="no audit line"):
        opened(tmp_path)
    assert log.read_bytes() == before


def test_damaged_head_is_named(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 2)
    (tmp_path / "audit.head").write_bytes(b"{")
    with pytest.raises(StateUnreadable, match=r"audit.head is damaged"):
        opened(tmp_path)
    with pytest.raises(StateUnreadable, match=r"audit.head is damaged"):
        verify(log)


def test_log_open_to_others_is_closed_and_remarked_on(tmp_path: Path) -> None:
    log = with_lines(tmp_path, 1)
    log.chmod(0o644)
    audit = opened(tmp_path)
    assert audit.remarks == [f"{log} was open to other users (mode 644): it is now its owner's alone"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    audit.close()
