"""What workers and their supervisor ask each other on unix sockets: a question as one word, the answer to the end.

`metrics`: those of all workers are shown at whichever of them is scraped. A sample gets the label `worker`;
`openguild_worker_up` says who answered. `pulse`: the supervisor sees who hangs. The directory belongs to the supervisor
and only its user may enter it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec
from anyio.abc import SocketStream

from openguild_runtime.local_socket import serve_local

METRICS, PULSE = "metrics", "pulse"
SIBLING_SECS = 1.0
MAX_QUESTION_BYTES = 64
MAX_ANSWER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place: `number` of `count`, counted from 0, where the siblings' sockets are, and whose process id ends all."""

    number: int
    count: int
    directory: Path
    supervisor: int

    def socket(self, number: int) -> Path:
        """Where worker `number` answers its siblings."""
        return self.directory / f"worker-{number}.sock"


class Pulse(msgspec.Struct, frozen=True):
    """A worker's loop turns."""

    listening: bool  # it takes connections
    changes: dict[str, Any]  # settings that `admin set` gave it: who takes its seat gets them


async def serve_siblings(seat: Seat, answers: Mapping[str, Callable[[], Awaitable[bytes]]]) -> None:
    """Answer every question to this worker, until cancelled."""

    async def answer(stream: SocketStream) -> None:
        with anyio.move_on_after(SIBLING_SECS):
            question = await stream.receive(MAX_QUESTION_BYTES)
            await stream.send(await answers[question.decode()]())

    await serve_local(seat.socket(seat.number), answer)


async def ask(path: Path, question: str, secs: float = SIBLING_SECS) -> bytes:
    """The answer of the worker behind `path`. Raises OSError when there is none in time."""
    try:
        with anyio.fail_after(secs):
            async with await anyio.connect_unix(path) as stream:
                await stream.send(question.encode())
                return await _all(stream)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as failure:
        raise OSError(str(failure)) from None


async def gather(seat: Seat, render: Callable[[], Awaitable[bytes]]) -> bytes:
    """The exposition of all workers; who does not answer in time is missing, and down."""
    texts: dict[int, bytes] = {seat.number: await render()}

    async def collect(number: int) -> None:
        try:
            texts[number] = await ask(seat.socket(number), METRICS)
        except OSError:  # it is starting, or gone: `openguild_worker_up` shows it
            return

    async with anyio.create_task_group() as tasks:
        for number in range(seat.count):
            if number != seat.number:
                tasks.start_soon(collect, number)
    return merge({number: texts.get(number) or None for number in range(seat.count)})


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
