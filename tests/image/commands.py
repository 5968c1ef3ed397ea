"""Commands that end with their caller: also when it is interrupted, with all that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

END_SECS = 15.0
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class CommandError(Exception):
    """A command has failed; the text has what it said."""


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, shown: bool = False
) -> str:
    """Run a command in a process group of its own; its standard output, or none if that is `shown`. Raises CommandError."""
    output = None if shown else subprocess.PIPE
    process = subprocess.Popen(
        [str(part) for part in command], cwd=cwd, env=os.environ | (env or {}), stdin=subprocess.DEVNULL, stdout=output,
        stderr=output, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, errors = process.communicate()
    except BaseException:
        end(process, signal.SIGINT)
        raise
    if process.returncode != 0:
        raise CommandError(f"{' '.join(map(str, command))}: {process.returncode}\n{out or ''}{errors or ''}".strip())
    return out or ""


def end(process: subprocess.Popen[str], number: signal.Signals, *, group: bool = True) -> None:
    """Signal a process that leads its group, and kill what of it does not end."""
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Turn signals into SystemExit, so that everything is cleaned up; later ones do not disturb that."""

    def leave(number: int, frame: FrameType | None) -> None:
        for later in SIGNALS:
            signal.signal(later, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in SIGNALS:
        signal.signal(number, leave)
    yield
