import fcntl
import os
from threading import Thread

import pytest

from proxy.obs.output import MOST_HELD_BYTES, Output

LINE = "x" * 99 + "\n"


class Pipe:
    """A pipe of one page, which is full until somebody reads."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.size = fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(self.writer, b"\n" * self.size)

    def read(self):
        try:
            return os.read(self.reader, 10 * self.size)
        except BlockingIOError:
            return b""


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.writer)


def all_of(pipe, output):
    """What the reader gets when it reads on, and the output is flushed on."""
    got = pipe.read().lstrip(b"\n")
    while (output.flush(), more := pipe.read())[1]:
        got += more
    return got.decode()


def test_full_pipe_is_not_waited_for_and_its_lines_come_later(pipe):
    output = Output(pipe.writer)
    lines = [f"{number} {LINE}" for number in range(200)]
    for line in lines:
        output.write(line)
        output.flush()
    assert pipe.read() == b"\n" * pipe.size
    output.expired(0)
    assert all_of(pipe, output) == "".join(lines)
    assert os.get_blocking(pipe.writer)  # it may be another's as well


def test_no_more_than_a_bound_is_held_and_what_is_lost_is_counted(pipe):
    told = []

    def tell(lines):
        told.append(lines)
        output.write(f"{lines} lost\n")
        output.flush()

    output = Output(pipe.writer, tell)
    most = MOST_HELD_BYTES // len(LINE)
    for _ in range(most + 5):
        output.write(LINE)
        output.flush()
    output.write(LINE * 7)
    assert told == []
    assert all_of(pipe, output) == LINE * most + "12 lost\n"
    assert told == [12]


def test_line_that_was_cut_by_a_full_disk_is_completed(tmp_path):
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    full = os.open("/dev/full", os.O_WRONLY)
    held = os.dup(file)
    output = Output(held)
    os.dup2(full, held)
    output.write(LINE)
    output.flush()
    os.dup2(file, held)
    output.write("last\n")
    output.expired(0)
    assert (tmp_path / "log").read_text() == LINE + "last\n"
    for descriptor in (file, full, held):
        os.close(descriptor)


def test_end_waits_for_a_reader_that_reads(pipe):
    output, got = Output(pipe.writer), []
    os.set_blocking(pipe.reader, True)
    output.write(LINE * 200)

    def read():
        while sum(map(len, got)) < pipe.size + 200 * len(LINE):
            got.append(os.read(pipe.reader, 100))

    reading = Thread(target=read, daemon=True)
    reading.start()
    output.close()
    assert output._held == b""
    reading.join()
    assert b"".join(got).decode() == "\n" * pipe.size + LINE * 200


def test_end_does_not_wait_for_a_reader_that_is_gone():
    reader, writer = os.pipe()
    os.close(reader)
    output = Output(writer)
    output.write(LINE)
    output.close()
    os.close(writer)


def test_what_is_no_text_is_written_all_the_same(tmp_path):
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    output = Output(file)
    output.write("caf\udce9\n")
    output.close()
    os.close(file)
    assert (tmp_path / "log").read_bytes() == b"caf\\udce9\n"
