"""The audit log: who did what, one JSON line an event, each chained to the one before it by its hash.

A log that can be edited proves nothing. Here each line ends with the SHA-256 of the chain value before it (64 zeros
before the first) and of the line's own bytes as they stand, without the chain: who changes, removes, inserts or moves
a line must write all that follow anew. The bytes are taken as written, so no two programs can differ over how to write
JSON; `printf '%s%s' PREVIOUS LINE_WITHOUT_CHAIN | sha256sum` is the whole check.

A chain alone cannot know where it ends: lines cut off at the end leave a whole chain. So the number and chain value of
the last line are kept in a file of their own, `audit.head`, written after each line. A kill between the two leaves a
head that is one behind, never more. What neither shows is who writes both anew from the beginning, for nothing here is
secret: send the lines to another machine where that matters.

On opening, only the end is looked at. Half a line that a kill left is cut off, and a line says so. An end that is not
the head's is not smoothed over: a line says `head_differs`, and the log goes on from the further of both, so that what
was cut off stays visible as a gap. To begin anew, stop Serinus and move both files away.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock

import msgspec

from proxy.controlplane.state_file import (
    PRIVATE,
    StateFile,
    StateUnreadable,
    StateUnwritable,
    made_private,
    sync_directory,
)

LINE_BYTES_MAX = 16 * 1024  # the end of a log is found by reading so much
_BEFORE_CHAIN = b',"chain":"'
_CHAIN_BYTES = len(_BEFORE_CHAIN) + 64 + len(b'"}\n')
_ITSELF = "serinus"  # who wrote the lines about the log

Fact = str | int | float | bool | list[str] | None


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"origin": "from"}):
    """One line. `time` is UTC; `origin` (`from` in the file) an address or ""; `about` holds no secret."""

    number: int
    time: str
    who: str
    origin: str
    what: str
    about: dict[str, Fact]
    chain: str


class Head(msgspec.Struct, frozen=True):
    """A place in the log: behind the line of this number."""

    number: int
    chain: str


START = Head(0, "0" * 64)
_ENTRY = msgspec.json.Decoder(Entry)


@dataclass(frozen=True, slots=True)
class Verified:
    """`lines` hold, counted from the first. `first_broken` is the line where the log stops being what was written."""

    lines: int
    first_broken: int | None = None
    why: str = ""


class _Broken(Exception):
    """Why a line is not the one that was written there."""


class Audit:
    """The log at `path`, open for more. `remarks` are what opening it noticed, for a log.

    Raises StateUnreadable where its head, or its end without a head, cannot be understood, and StateUnwritable where it
    cannot be opened. To serve without an audit log, and say so loudly, is the caller's decision.
    """

    def __init__(self, path: Path, wall_clock: Callable[[], float]) -> None:
        self.path = path
        self._wall_clock = wall_clock
        self._alone = Lock()
        self._head = StateFile(_head_path(path), Head)
        self._due: list[tuple[str, dict[str, Fact]]] = []  # what the log has to say of itself
        self._cut_at: int | None = None  # what stands behind it is no whole line
        head = self._head.load()
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
        except OSError as error:
            raise StateUnwritable(f"{path} cannot be opened for writing ({error.strerror})") from None
        try:
            self.remarks = self._head.remarks + made_private(self._descriptor, path)
            self._find_end(head)
            with suppress(StateUnwritable):  # tried again before the next line
                self._settle()
        except BaseException:
            self.close()
            raise

    def append(self, what: str, who: str, origin: str, about: Mapping[str, Fact]) -> Entry:
        """Record an event: when this returns, a power cut does not undo it. Waits for the disk: call it from a thread.

        Raises StateUnwritable, and ValueError for a line above LINE_BYTES_MAX; the log is then as it was before.
        """
        with self._alone:
            self._settle()
            return self._write(what, who, origin, about)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _find_end(self, head: Head | None) -> None:
        """Where the log goes on, and what it has to say of how it was found."""
        try:
            size = os.fstat(self._descriptor).st_size
            begin = max(0, size - 3 * LINE_BYTES_MAX)  # two lines and half of one, at most
            *whole, torn = os.pread(self._descriptor, size - begin, begin).split(b"\n")
            if not size:
                sync_directory(self.path.parent)
        except OSError as error:
            raise StateUnwritable(f"{self.path} cannot be opened ({error.strerror})") from None
        if torn:
            self._cut_at = size - len(torn)
            self._due.append(("torn_line_removed", {"bytes": len(torn)}))
        known = head or START
        before, end = (None, None) if len(torn) > LINE_BYTES_MAX else _last_places(whole, begin)
        if end is None and (head is None or len(torn) > LINE_BYTES_MAX):
            raise StateUnreadable(
                f"{self.path} ends in something that is no audit line: restart with a good copy of it, "
                f"or move it and {self._head.path.name} away to begin anew"
            )
        if known not in {before, end}:
            found: dict[str, Fact] = {"head_number": known.number, "last_number": end.number if end else None}
            self._due.append(("head_differs", found))
        self._place = end if end and end.number > known.number else known
        self._head_due = self._place != known

    def _settle(self) -> None:
        """What must come before another line. Raises StateUnwritable; what was not done stays to be done."""
        try:
            self._cut()
        except OSError as error:
            raise StateUnwritable(f"half a line cannot be removed from {self.path} ({error.strerror})") from None
        if self._head_due:
            self._head.save(self._place)
            self._head_due = False
        while self._due:
            what, about = self._due[0]
            self._write(what, _ITSELF, "", about)
            del self._due[0]

    def _write(self, what: str, who: str, origin: str, about: Mapping[str, Fact]) -> Entry:
        moment = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="milliseconds")
        time = moment.replace("+00:00", "Z")
        entry = Entry(self._place.number + 1, time, who, origin, what, dict(about), "")
        body = msgspec.json.encode(entry).removesuffix(_BEFORE_CHAIN + b'"}') + b"}"
        line = body[:-1] + b'%b%b"}\n' % (_BEFORE_CHAIN, _chained(self._place.chain, body).encode())
        if len(line) > LINE_BYTES_MAX:
            raise ValueError(f"an audit line of {len(line)} bytes: put less into it, {LINE_BYTES_MAX} at most")
        try:
            entry = _entry(line)
        except _Broken:
            raise ValueError("an audit line that could not be read again: put only names and numbers into it") from None
        self._bring_to_disk(line)
        self._place = Head(entry.number, entry.chain)
        self._head_due = True
        # The event is recorded: a disk that now has no room for the head is the next one's trouble. Until then the
        # head is one behind, as a kill would leave it.
        with suppress(StateUnwritable):
            self._head.save(self._place)
            self._head_due = False
        return entry

    def _bring_to_disk(self, line: bytes) -> None:
        """All of the line or nothing of it."""
        try:
            end = os.fstat(self._descriptor).st_size
            self._cut_at = end
            _write_at_once(self._descriptor, line)
            self._cut_at = None
        except OSError as error:
            with suppress(OSError):  # tried again before the next line
                self._cut()
            raise StateUnwritable(f"{self.path} cannot be written ({error.strerror})") from None

    def _cut(self) -> None:
        if self._cut_at is not None:
            os.ftruncate(self._descriptor, self._cut_at)
            os.fdatasync(self._descriptor)
            self._cut_at = None


def verify(path: Path) -> Verified:
    """Compare the whole log with its chain and its head; it may be in use. Raises StateUnreadable and OSError.

    The head is read twice: the lines must reach what it said before, and it must reach them, but for one, afterwards.
    """
    head = StateFile(_head_path(path), Head)
    promised = head.load() or START
    place = START
    for line in _whole_lines(path):
        try:
            place = _following(place, line)
        except _Broken as broken:
            return Verified(place.number, place.number + 1, str(broken))
        if place.number == promised.number and place.chain != promised.chain:
            why = f"its chain value is not the one that {head.path.name} has for it"
            return Verified(place.number - 1, place.number, why)
    lines = place.number
    if lines < promised.number:
        return Verified(lines, lines + 1, f"lines were cut off: {head.path.name} says that there are {promised.number}")
    said = (head.load() or START).number
    if lines > said + 1:
        why = f"{head.path.name} says that there are {said} lines: it is missing or old, or others were added"
        return Verified(said + 1, said + 2, why)
    return Verified(lines)


def read(path: Path, last: int) -> list[Entry]:
    """The last so many entries, oldest first; what is no audit line is left to `verify`. Raises OSError."""
    entries: deque[Entry] = deque(maxlen=last)
    for line in _whole_lines(path):
        with suppress(_Broken):
            entries.append(_entry(line))
    return list(entries)


def _whole_lines(path: Path) -> Iterator[bytes]:
    """With their ends; what stands behind the last is half a line, being written or left by a kill."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _last_places(whole: list[bytes], begin: int) -> tuple[Head | None, Head | None]:
    """The places before and behind the last line, of lines read from the byte `begin` on; None where it is broken."""
    if not whole and not begin:
        return None, START
    try:
        before = START if len(whole) == 1 and not begin else _behind(whole[-2] + b"\n")
        return before, _following(before, whole[-1] + b"\n")
    except (_Broken, IndexError):
        return None, None


def _following(place: Head, line: bytes) -> Head:
    """The place behind a line that follows a place. Raises _Broken."""
    entry = _entry(line)
    if entry.number != place.number + 1:
        raise _Broken(f"it says that it is line {entry.number}: lines were removed, inserted or moved")
    if not line.endswith(b'%b%b"}\n' % (_BEFORE_CHAIN, _chained(place.chain, line[:-_CHAIN_BYTES] + b"}").encode())):
        raise _Broken("its chain value is not that of its text and the line before: one of them was changed")
    return Head(entry.number, entry.chain)


def _behind(line: bytes) -> Head:
    entry = _entry(line)
    return Head(entry.number, entry.chain)


def _entry(line: bytes) -> Entry:
    try:
        return _ENTRY.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise _Broken("it is no audit line")


def _write_at_once(descriptor: int, line: bytes) -> None:
    if os.write(descriptor, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what a short write to a file means
    os.fdatasync(descriptor)


def _chained(previous: str, body: bytes) -> str:
    return sha256(previous.encode() + body).hexdigest()


def _head_path(path: Path) -> Path:
    return path.with_suffix(".head")
