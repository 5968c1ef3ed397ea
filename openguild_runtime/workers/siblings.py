"""The metrics of all workers at whichever of them is scraped: each answers its siblings on a unix socket.

A sample gets the label `worker`; `openguild_worker_up` says who answered. The directory belongs to the supervisor
and only its user may enter it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import SocketStream, TaskGroup

SIBLING_SECS = 1.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place: `number` of `count`, counted from 0, and where the siblings' sockets are."""

    number: int
    count: int
    directory: Path

    def socket(self, number: int) -> Path:
        return self.directory / f"worker-{number}.sock"


async def serve_siblings(seat: Seat, render: Callable[[], bytes], tasks: TaskGroup) -> None:
    """Answer every connection to this worker's socket with its metrics, until cancelled."""
    path = seat.socket(seat.number)
    path.unlink(missing_ok=True)  # of the worker that had this seat before

    async def answer(stream: SocketStream) -> None:
        async with stream:
            try:
                with anyio.fail_after(SIBLING_SECS):
                    await stream.send(render())
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError):
                return  # the sibling that asked has given up

    listener = await anyio.create_unix_listener(path, mode=0o600)
    async with listener:
        await listener.serve(answer, tasks)


async def gather(seat: Seat, render: Callable[[], bytes]) -> bytes:
    """The exposition of all workers; who does not answer in time is missing, and down."""
    texts: dict[int, bytes] = {seat.number: render()}

    async def ask(number: int) -> None:
        try:
            with anyio.fail_after(SIBLING_SECS):
                async with await anyio.connect_unix(seat.socket(number)) as stream:
                    texts[number] = await _all(stream)
        except (OSError, TimeoutError, anyio.BrokenResourceError):
            return  # it is starting, or gone: `openguild_worker_up` shows it

    async with anyio.create_task_group() as tasks:
        for number in range(seat.count):
            if number != seat.number:
                tasks.start_soon(ask, number)
    return merge({number: texts.get(number) for number in range(seat.count)})


async def _all(stream: SocketStream) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in stream:
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise OSError("a sibling's answer is too large")
        parts.append(part)
    return b"".join(parts)


def merge(texts: dict[int, bytes | None]) -> bytes:
    """Prometheus text 0.0.4 with the families of all workers, each once; None: that worker is down."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, text in texts.items():
        family = ""
        for line in (text or b"").decode().splitlines():
            if line.startswith("# "):
                _, kind, family, _ = line.split(" ", 3)
                if kind == "HELP":
                    heads.setdefault(family, []).clear()
                heads[family].append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, number))
    lines = ["# HELP openguild_worker_up 1 when the worker answered this scrape", "# TYPE openguild_worker_up gauge"]
    lines += [f'openguild_worker_up{{worker="{number}"}} {int(text is not None)}' for number, text in texts.items()]
    for family, head in heads.items():
        lines += head
        lines += samples.get(family, [])
    return ("\n".join(lines) + "\n").encode()


def _labelled(line: str, number: int) -> str:
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{worker="{number}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{worker="{number}"}} {value}'
