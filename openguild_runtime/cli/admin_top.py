"""`openguild-server admin top`: the servers of this host, as a table that refreshes."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from openguild_proto.diagnosis.snapshot import Snapshot, counted_before, merged
from openguild_proto.diagnosis.top_table import Shown, draw
from openguild_runtime.server.failures import CommandFailed, WrongUsage

MIN_INTERVAL_SECS = 0.2
ONCE_SECS = 1.0  # between the two snapshots of a table that is printed once, for its rates
ONCE_HEIGHT = 200  # lines of a table that is printed once
ONCE_WIDTH = 400  # characters, without a terminal: through `kubectl exec`, or in a file
ALTERNATE, MAIN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # screens, without and with a cursor
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
RED, BOLD, PLAIN = "\x1b[31m", "\x1b[1m", "\x1b[0m"

Ask = Callable[[], list[dict[str, Any]]]


class TopSnapshots(NamedTuple):
    """The snapshots of all workers at one time."""

    snapshots: list[Snapshot]
    unanswered: list[str]  # workers without a snapshot, with the reason

    def drawn(self, before: TopSnapshots | None, elapsed_secs: float, *, width: int, height: int) -> list[Shown]:
        """Return the screen's lines."""
        former = None if before is None else counted_before(self.snapshots, before.snapshots)
        now = merged(self.snapshots)
        return draw(now, former, elapsed_secs, width=width, height=height, unanswered=self.unanswered)


def show_top(ask: Ask, arguments: dict[str, Any]) -> int:
    """Show the servers until `q` or Ctrl-C, or once with `--json`, `--once` or without a terminal. Return the exit status.

    Raises WrongUsage, and CommandFailed if no server answers at first.
    """
    if arguments["interval"] < MIN_INTERVAL_SECS:
        raise WrongUsage(f"admin top: --interval: at least {MIN_INTERVAL_SECS} seconds")
    now = _look(ask)
    if arguments["json"]:
        sys.stdout.write(json.dumps(msgspec.to_builtins(merged(now.snapshots)), indent=2, ensure_ascii=False) + "\n")
        return 0
    if arguments["once"] or not (sys.stdin.isatty() and sys.stdout.isatty()):
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else ONCE_WIDTH
        looked_at = time.monotonic()
        time.sleep(ONCE_SECS)
        later = _look(ask)
        lines = later.drawn(now, time.monotonic() - looked_at, width=width, height=ONCE_HEIGHT)
        sys.stdout.write("".join(line.text + "\n" for line in lines))
        return 0
    with _screen():
        _refresh(ask, now, arguments["interval"])
    return 0


def _look(ask: Ask) -> TopSnapshots:
    """Return the snapshots of all workers that answer. Raises CommandFailed if none does."""
    answers = ask()
    told = [msgspec.convert(answer, Snapshot) for answer in answers if "error" not in answer]
    if not told:
        raise CommandFailed(f"admin top: {answers[0]['error']}")
    return TopSnapshots(told, [f"worker {each.get('worker')}: {each['error']}" for each in answers if "error" in each])


def _refresh(ask: Ask, now: TopSnapshots, interval_secs: float) -> None:
    before: TopSnapshots | None = None
    looked_at, elapsed = time.monotonic(), 0.0
    problem = ""
    while True:
        _paint(now, before, elapsed, problem)
        if _asked_to_quit(interval_secs):
            return
        try:
            following = _look(ask)
        except CommandFailed as failure:  # the server may be restarting
            problem = str(failure)
            continue
        moment = time.monotonic()
        before, now, elapsed, looked_at, problem = now, following, moment - looked_at, moment, ""


def _paint(now: TopSnapshots, before: TopSnapshots | None, elapsed_secs: float, problem: str) -> None:
    width, height = shutil.get_terminal_size()
    lines = now.drawn(before, elapsed_secs, width=width, height=height - 1)
    if problem:
        lines[0] = Shown(f"{time.strftime('%H:%M:%S')} {problem}"[:width], is_bad=True)
    is_coloured = "NO_COLOR" not in os.environ
    text = "".join(_coloured(line, is_coloured) + REST_OF_LINE + "\n" for line in lines)
    sys.stdout.write(f"{HOME}{text}{REST_OF_SCREEN}q: quit")
    sys.stdout.flush()


def _coloured(line: Shown, is_coloured: bool) -> str:
    style = RED if line.is_bad else BOLD if line.is_head else ""
    return f"{style}{line.text}{PLAIN}" if style and is_coloured else line.text


def _asked_to_quit(secs: float) -> bool:
    """Wait for `secs` or until a key is pressed. Return whether it was `q`, or the terminal is gone."""
    if not select.select([sys.stdin], [], [], secs)[0]:
        return False
    return os.read(sys.stdin.fileno(), 1) in {b"q", b"Q", b""}


@contextmanager
def _screen() -> Iterator[None]:
    """Use the alternate screen and read single keys. The terminal is restored at the end."""
    descriptor = sys.stdin.fileno()
    kept = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        sys.stdout.write(ALTERNATE)
        yield
    except KeyboardInterrupt:
        return
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, kept)
        sys.stdout.write(MAIN)
        sys.stdout.flush()
