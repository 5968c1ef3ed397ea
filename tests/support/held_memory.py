"""A real server that reports, at a signal, which of its objects contain a text: `python -m tests.support.held_memory FLAGS`.

At SIGWINCH it walks all reachable objects and writes the matches to a file. A search of the process's raw memory would also
find memory that is freed but not overwritten, which docs/security.md excludes from its promise.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from tests.support.waiting import wait_until

SOUGHT, FOUND = "sought.json", "found.json"  # in the directory that the environment variable names
DIRECTORY = "HELD_MEMORY_DIRECTORY"


def look(pid: int, directory: Path, markers: Sequence[str]) -> list[str]:
    """Return the reachable objects of a `held_memory` process that contain a marker."""
    answer = directory / f"{FOUND}.{pid}"
    (directory / SOUGHT).write_text(json.dumps([marker.encode().hex() for marker in markers]))
    os.kill(pid, signal.SIGWINCH)
    wait_until(answer.exists, secs=60, what=lambda: "what the process holds")
    found: list[str] = json.loads(answer.read_text())
    answer.unlink()
    return found


def _holders(sought: Sequence[bytes]) -> list[str]:
    """Return the type and first bytes of each object that contains a marker, in hexadecimal: plain text would match again."""
    own = {id(marker) for marker in sought}
    held = []
    for value in _reachable():
        if isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
        elif isinstance(value, bytes | bytearray | memoryview) and id(value) not in own:
            data = bytes(value)
        else:
            continue
        if any(marker in data for marker in sought):
            held.append(f"{type(value).__name__} {data[:200].hex()}")
    return held


def _reachable() -> Iterator[Any]:
    """Yield all objects, including structs without garbage collection and values on the stacks."""
    seen: set[int] = set()
    waiting: list[Any] = [*gc.get_objects(), *sys._current_frames().values()]
    mine = {id(waiting), id(seen)}
    while waiting:
        value = waiting.pop()
        if id(value) in seen or id(value) in mine:
            continue
        seen.add(id(value))
        yield value
        waiting.extend(gc.get_referents(value))
        if isinstance(value, msgspec.Struct):
            waiting.extend(getattr(value, name, None) for name in value.__struct_fields__)


def _tell(_number: int, _frame: FrameType | None) -> None:
    directory = Path(os.environ[DIRECTORY])
    sought = [bytes.fromhex(marker) for marker in json.loads((directory / SOUGHT).read_text())]
    gc.collect()
    found = _holders(sought)
    written = directory / f"{FOUND}.{os.getpid()}"
    written.with_suffix(".new").write_text(json.dumps(found))
    written.with_suffix(".new").rename(written)


def main() -> None:
    from openguild_runtime.cli.main import main as serve

    signal.signal(signal.SIGWINCH, _tell)
    serve()


if __name__ == "__main__":
    main()
