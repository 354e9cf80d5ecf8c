import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from mxweir.outlet import Outlet


class Pipe:
    """A stream with a reader that may stall."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.stream: TextIO = os.fdopen(writer, "w")

    def read(self) -> bytes:
        """What is in the pipe now."""
        os.set_blocking(self.reader, False)
        found = b""
        try:
            while part := os.read(self.reader, 65536):
                found += part
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        os.close(self.reader)
        self.stream.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def put(outlet: Outlet, line: str) -> None:
    outlet.write(line)
    outlet.flush()


def test_a_line_is_written_at_once(pipe):
    outlet = Outlet(pipe.stream)
    put(outlet, "one\n")
    assert pipe.read() == b"one\n"


def test_a_stream_without_a_descriptor_is_written_too():
    stream = io.StringIO()
    put(Outlet(stream), "one\n")
    assert stream.getvalue() == "one\n"


def test_a_stalled_reader_holds_up_nobody_and_what_does_not_fit_is_counted(pipe):
    outlet = Outlet(pipe.stream)
    count = 40_000
    for i in range(count):
        put(outlet, f"line {i:06} {'x' * 88}\n")
    # 64 KiB in the pipe, a megabyte kept: of 4 MB the rest is lost, and known to be.
    assert outlet.lost > count * 0.6
    read = b""
    while part := pipe.read():
        read += part
        outlet.write_out()
    lines = read.decode().splitlines(keepends=True)
    assert len(lines) == count - outlet.lost
    assert [line[:11] for line in lines] == [f"line {i:06}" for i in range(len(lines))]
    assert all(len(line) == 101 for line in lines)
    put(outlet, "after\n")
    assert pipe.read() == b"after\n"


def test_a_line_longer_than_a_pipe_takes_at_once_arrives_whole(pipe):
    outlet = Outlet(pipe.stream)
    line = "x" * 300_000 + "\n"
    put(outlet, line)
    read = b""
    while part := pipe.read():
        read += part
        outlet.write_out()
    assert read.decode() == line


def test_text_that_is_no_unicode_is_escaped_and_loses_nothing_else(pipe):
    outlet = Outlet(pipe.stream)
    put(outlet, "a\udce9b\xe9\n")
    assert pipe.read() == b"a\\udce9b\xc3\xa9\n"


def test_a_reader_that_went_away_and_a_full_disk_stop_nothing(pipe):
    outlet = Outlet(pipe.stream)
    os.close(pipe.reader)
    pipe.reader = os.open(os.devnull, os.O_RDONLY)
    with Path("/dev/full").open("w") as full:
        for at_fault in (outlet, Outlet(full)):
            for _ in range(30_000):
                put(at_fault, "x" * 100 + "\n")
            assert at_fault.lost > 0


def test_a_stream_that_is_closed_stops_nothing(pipe):
    outlet = Outlet(pipe.stream)
    pipe.stream.close()
    put(outlet, "one\n")
    text = io.StringIO()
    outlet = Outlet(text)
    text.close()
    put(outlet, "one\n")


def test_lines_of_several_threads_stay_whole(pipe):
    outlet = Outlet(pipe.stream)

    def write(name: str) -> None:
        for _ in range(200):
            put(outlet, name * 50 + "\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = pipe.read().decode().splitlines()
    assert len(lines) == 800
    assert set(lines) == {name * 50 for name in "abcd"}
