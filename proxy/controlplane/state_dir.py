"""The directory for what must survive a restart, held by one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StateDirUnusable(RuntimeError):
    """The message says which directory, and what to do about it."""


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Make the directory if there is none, and hold its lock: two processes over one state undo each other's work."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirUnusable(
            f"state_dir {state_dir} cannot be used ({error.strerror}): name a directory that can be written"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            problem = "is in use by another Serinus: stop it, or give this one a directory of its own"
        else:
            problem = f"cannot be locked ({error.strerror}): name one on a file system that has locks"
        raise StateDirUnusable(f"state_dir {state_dir} {problem}") from None
    try:
        yield
    finally:
        os.close(lock)
