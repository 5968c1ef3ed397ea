"""The log writer: appending never blocks, and missing lines are counted and reported."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openguild_runtime.observability.log_writer import MAX_WAITING_BYTES, OVERHEAD_BYTES, LogWriter
from tests.support.waiting import wait_until

MANY = 2 * MAX_WAITING_BYTES // (OVERHEAD_BYTES + 10)  # lines: twice what may wait


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's ends. The write end stays open, because the writer's thread lives as long as the process."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def described(count: int, problem: str) -> str:
    return f"gap {count}{': ' if problem else ''}{problem}\n"


def gaps(text: str) -> int:
    """How many lines are reported as missing: one gap, or more where some were read meanwhile."""
    return sum(int(number) for number in re.findall(r"^gap (\d+)$", text, re.MULTILINE))


def read_until(reader: int, end: str | Callable[[str], bool]) -> list[str]:
    data = b""
    while not (
        data.endswith(f"{end}\n".encode()) if isinstance(end, str) else data.endswith(b"\n") and end(data.decode())
    ):
        data += os.read(reader, 1 << 20)
    return data.decode().splitlines()


def test_a_stopped_reader_blocks_nothing_and_drops_are_counted(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = LogWriter(writer, described)
    started = time.monotonic()
    for number in range(MANY):
        log.append(f"line {number}\n")
    assert time.monotonic() - started < 5, "it never waited"
    assert not log.flush(0.05), "bounded, where nobody reads"
    dropped = log.dropped
    assert dropped > 0
    # it reads again: the rest arrives in order, and each gap is reported in its place
    place = 0
    for line in read_until(reader, lambda text: gaps(text) == dropped):
        kind, number = line.split()
        if kind == "line":
            assert int(number) == place
        place += 1 if kind == "line" else int(number)
    assert place == MANY
    log.append("after it\n")
    assert read_until(reader, "after it") == ["after it"]
    assert log.dropped == dropped


def test_a_gap_is_reported_before_the_next_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = LogWriter(writer, described)
    for number in range(MANY):
        log.append(f"line {number}\n")
    data = b""
    while b"\nlater\n" not in data:
        data += os.read(reader, 65_536)
        log.append("later\n")  # first it is dropped too, then there is room
    log.append("the end\n")
    while not data.endswith(b"\nthe end\n"):
        data += os.read(reader, 65_536)
    lines = data.decode().splitlines()
    gaps = [index for index, line in enumerate(lines) if line.startswith("gap ")]
    assert "later" not in lines[: gaps[0]]
    assert sum(int(lines[index].removeprefix("gap ")) for index in gaps) == log.dropped


def test_lines_lost_by_a_dead_reader_are_reported_later(tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY)
    log = LogWriter(writer, described)
    os.close(reader)
    before = time.process_time()
    for number in range(5):
        log.append(f"line {number}\n")
        assert log.flush(5)
    assert log.dropped == 5
    assert time.process_time() - before < 1, "it does not spin"
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    log.append("heard\n")
    assert read_until(reader, "heard") == ["gap 5: Broken pipe", "heard"]
    os.close(reader)


def test_a_full_disk_is_named_on_a_line_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is cut where the disk ends; another process that writes to the file may have left one, too."""
    path, room = tmp_path / "log", [100]
    write = os.write

    def bounded(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # stays open, as the thread lives on
    log = LogWriter(descriptor, described)
    monkeypatch.setattr(os, "write", bounded)
    for length in (89, 30, 30):
        log.append("x" * length + "\n")
        assert log.flush(5)
    room[0] = 1000
    log.append("freed\n")
    assert log.flush(5)
    assert path.read_text().splitlines() == ["x" * 89, "x" * 10, "gap 2: No space left on device", "freed"]


def test_a_non_blocking_descriptor_loses_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    log = LogWriter(writer, described)
    for number in range(20_000):
        log.append(f"line {number}\n")
    assert read_until(reader, "line 19999") == [f"line {number}" for number in range(20_000)]
    assert log.dropped == 0


def test_processes_on_a_full_pipe_do_not_mix_lines(pipe: tuple[int, int]) -> None:
    """Each writer stands for a worker: a write of at most PIPE_BUF is whole, or waits."""
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    logs = [LogWriter(writer, described) for _ in range(2)]
    for number in range(300):
        for name, log in zip("ab", logs, strict=True):
            log.append(f"{name * 200} {number}\n")
    found = {name: [f"{name * 200} {number}" for number in range(300)] for name in "ab"}
    data = b""
    while data.count(b"\n") < 600:
        data += os.read(reader, 65_536)
    lines = data.decode().splitlines()
    assert {name: [line for line in lines if line.startswith(name)] for name in "ab"} == found


def test_flush_waits_for_a_slow_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = LogWriter(writer, described)
    for number in range(20_000):
        log.append(f"line {number}\n")
    assert not log.flush(0.01)
    wait_until(lambda: os.read(reader, 65_536).endswith(b"line 19999\n"))
    assert log.flush(1)
