"""What must survive a restart, each kind of it a small JSON file in `state_dir`, replaced whole.

A file written in place is half old and half new for a moment, and a kill needs no more. So a new file is written beside
the old one, brought to the disk, and renamed over it: POSIX promises that whoever opens the name finds one of the two.
Both the file and the directory are synced, for a rename can reach the disk before what was written. A journal or a
database would do as well; a few kilobytes that change a few times a day need neither.

A file that cannot be understood is never guessed at and never overwritten: `load` raises, and so does every `save`
until the file is moved away, an operator's word that it may be done without. To serve is better than not to start,
with an exception that only the caller can know. What a file grants (a key given by command, a client issued) may be
missing: the configured key is used, the client is refused. What it forbids (a client revoked) may not: to serve
without it lets in who was shut out, which is worse than a start that fails and names the one command that mends it. A
running proxy goes on whatever is raised here; what could not be saved holds until it ends, and the caller says so.

All of it waits for the disk: call it from a thread. One process at a time has the directory (`state_dir.locked`).
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import msgspec

VERSION = 1
PRIVATE = 0o600
_MEND = "put a good copy in its place and restart, or move it away to do without; until then nothing is saved to it"
# What msgspec says of types and missing fields. All else it says may quote what it found.
_SHOWABLE = ("Expected ", "Object missing ")

T = TypeVar("T", bound=msgspec.Struct)


class StateUnreadable(RuntimeError):
    """The message says which file, what is wrong with it, and what to do about it; nothing of what it holds."""


class StateUnwritable(RuntimeError):
    """The message says which file and why. What was there before is whole."""


class _Unfit(Exception):
    """What was found, and what to do."""


class _Version(msgspec.Struct):
    """Read first: the rest of a newer file may look different."""

    version: int


class _Written(_Version):
    """`name` is the file's own: structs whose fields all have defaults would take any file for theirs."""

    name: str
    state: msgspec.Raw


_VERSION_OF = msgspec.json.Decoder(_Version)
_WRITTEN = msgspec.json.Decoder(_Written)


class StateFile(Generic[T]):
    """The file at `path`, which holds one value of `kind`. `remarks` are what the last `load` noticed, for a log."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self.remarks: list[str] = []
        self._fresh = path.with_name(path.name + ".new")
        self._decoder = msgspec.json.Decoder(kind)
        self._looked = False
        self._unreadable: str | None = None
        self._alone = Lock()

    def load(self) -> T | None:
        """What was saved last; None where nothing was. Raises StateUnreadable."""
        with self._alone:
            return self._load()

    def save(self, value: T) -> None:
        """Replace what the file holds: when this returns, a power cut does not bring the old value back.

        Raises StateUnreadable while a file stands there that could not be read, StateUnwritable where the disk refuses,
        and ValueError for a value that could not be read again. All of them leave what was there. In one case what was
        there is the new value already: where the directory could not be synced, and only a power cut decides.
        """
        content = msgspec.json.encode({"version": VERSION, "name": self.path.name, "state": value}) + b"\n"
        try:
            self._decode(content)
        except _Unfit as unfit:
            raise ValueError(f"{self.path}: a value that could not be read again: it {unfit}") from None
        with self._alone:
            self._refuse_to_overwrite()
            try:
                self._replace(content)
            except OSError as error:
                with suppress(OSError):
                    self._fresh.unlink(missing_ok=True)
                raise StateUnwritable(f"{self.path} cannot be written ({error.strerror})") from None

    def _refuse_to_overwrite(self) -> None:
        if not self._looked:
            self._load()
        if self._unreadable is None:
            return
        if os.path.lexists(self.path):
            raise StateUnreadable(self._unreadable)
        self._unreadable = None

    def _load(self) -> T | None:
        self._looked, self._unreadable, self.remarks = True, None, []
        try:
            return self._decode(self._read())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._unreadable = f"{self.path} cannot be read ({error.strerror}): {_MEND}"
        except _Unfit as unfit:
            self._unreadable = f"{self.path} {unfit}"
        raise StateUnreadable(self._unreadable)

    def _read(self) -> bytes:
        # Not blocking: opening a pipe would wait for its writer.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _Unfit(f"is not a file: {_MEND}")
            self.remarks += made_private(descriptor, self.path)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)

    def _decode(self, content: bytes) -> T:
        try:
            version = _VERSION_OF.decode(content).version
            if version != VERSION:
                raise _Unfit(f"has version {version}, not {VERSION}: start the Serinus that wrote it, or {_MEND}")
            written = _WRITTEN.decode(content)
            if written.name != self.path.name:
                raise _Unfit(f"was saved under another name: {_MEND}")
            return self._decoder.decode(written.state)
        except msgspec.ValidationError as error:
            found = str(error) if str(error).startswith(_SHOWABLE) else "a value that cannot be"
            problem = f"holds something else ({found})"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            problem = "is damaged"
        raise _Unfit(f"{problem}: {_MEND}")

    def _replace(self, content: bytes) -> None:
        self._fresh.unlink(missing_ok=True)  # what a kill left
        descriptor = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(self._fresh, self.path)  # noqa: PTH105 - one system call, beside the others
        sync_directory(self.path.parent)


def made_private(descriptor: int, path: Path) -> list[str]:
    """Close an open file to all but its owner; what there is to say of it."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return []
    try:
        os.fchmod(descriptor, PRIVATE)
    except OSError as error:
        return [f"{path} is open to other users and stays so ({error.strerror}): chmod 600 it"]
    return [f"{path} was open to other users (mode {mode:o}): it is now its owner's alone"]


def sync_directory(directory: Path) -> None:
    """Bring what was made and renamed in a directory to the disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems sync no directories at all. PostgreSQL passes over the same two (fsync_fname_ext in fd.c).
        if error.errno not in {errno.EBADF, errno.EINVAL}:
            raise
    finally:
        os.close(descriptor)
