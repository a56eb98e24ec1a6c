import stat
from pathlib import Path

import pytest

from proxy.controlplane.state_dir import StateDirUnusable, locked


def test_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "var" / "serinus"
    with locked(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "lock").stat().st_mode) == 0o600


def test_second_holder_is_told_that_there_is_a_first(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(StateDirUnusable, match="in use by another Serinus") as caught,
        locked(tmp_path),
    ):
        pass
    assert str(tmp_path) in str(caught.value)


def test_lock_ends_with_its_holder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("kept")
    with locked(tmp_path):
        pass
    assert (tmp_path / "keys").read_text() == "kept"


def test_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirUnusable, match=r"file cannot be used .*: name a directory"), locked(tmp_path / "file"):
        pass


def test_file_system_without_locks_is_not_taken_for_another_serinus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(StateDirUnusable, match="No locks available"), locked(tmp_path):
        pass
