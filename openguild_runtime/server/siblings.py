"""Messages between a worker and its supervisor, over a socket pair that the worker inherits.

No name in the file system leads to it, so no cleaner of temporary directories can take it away, and no directory has to be
there or to be writable. Every worker sends its heartbeat, by which the supervisor sees who hangs. The metrics of all workers
are shown at whichever of them is scraped: it asks the supervisor, who asks the others. A sample gets the label `worker`;
`openguild_worker_up` says who answered.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import msgspec

from openguild_runtime.system.background import log_exceptions, start_background_task

HEARTBEAT_SECS = 2.0  # between two heartbeats
STARTING_HEARTBEAT_SECS = 0.2  # until the worker takes connections
SIBLING_SECS = 1.0  # in which a worker gives its metrics
RETURN_SECS = 0.5  # for the way through the supervisor
RECEIVE_BYTES = 65_536
LENGTH_BYTES = 4  # before each message, big-endian
MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # the metrics of all workers
MAX_WAITING_BYTES = MAX_MESSAGE_BYTES  # for an end that does not read


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """A worker's loop turns."""

    listening: bool  # it takes connections
    changes: dict[str, Any]  # settings that `admin set` gave it: who takes its slot gets them


class MetricsRequest(msgspec.Struct, frozen=True, tag="metrics_request"):
    """Asks for metrics: of a worker, or of all others if a worker asks. The answer has the same number."""

    number: int


class WorkerMetrics(msgspec.Struct, frozen=True, tag="worker_metrics"):
    """A worker's metrics."""

    number: int
    text: bytes


class SiblingMetrics(msgspec.Struct, frozen=True, tag="sibling_metrics"):
    """The metrics of the other workers, by their numbers; who did not answer in time is missing."""

    number: int
    texts: dict[int, bytes]


class ReloadFailed(msgspec.Struct, frozen=True, tag="reload_failed"):
    """From the supervisor: the last reload was refused, and the worker keeps its configuration."""


Message = Heartbeat | MetricsRequest | WorkerMetrics | SiblingMetrics | ReloadFailed
_decoder = msgspec.msgpack.Decoder(Message)


class SiblingLink:
    """One end of the pair: sends whole messages in order. Messages to an end that does not read are dropped after a while."""

    def __init__(self, sock: socket.socket, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: deque[bytes] = deque()
        self._nbytes = 0
        self._given = anyio.Event()

    def send(self, message: Message) -> None:
        """Send it when the other end has room; never waits."""
        data = msgspec.msgpack.encode(message)
        if self._nbytes + len(data) <= self._max_waiting_bytes:
            self._nbytes += len(data) + LENGTH_BYTES
            self._waiting.append(len(data).to_bytes(LENGTH_BYTES, "big") + data)
            self._given.set()

    async def run(self, heard: Callable[[Message], None]) -> None:
        """Send and hear until the other end is closed."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send)
            # where the other process has died, its supervisor sees that, or the lifeline's reader
            with suppress(OSError, msgspec.DecodeError):
                await self._receive(heard)
            tasks.cancel_scope.cancel()

    def close(self) -> None:
        """Give the descriptor back."""
        self._sock.close()

    async def _send(self) -> None:
        while True:
            while self._waiting:
                rest = memoryview(self._waiting.popleft())
                self._nbytes -= len(rest)
                while rest:
                    try:
                        rest = rest[self._sock.send(rest) :]
                    except BlockingIOError:
                        await anyio.wait_writable(self._sock)
                    except OSError:
                        return
            self._given = anyio.Event()
            await self._given.wait()

    async def _receive(self, heard: Callable[[Message], None]) -> None:
        kept = bytearray()
        while True:
            await anyio.wait_readable(self._sock)
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            if not data:
                return
            kept += data
            while len(kept) >= LENGTH_BYTES:
                end = LENGTH_BYTES + int.from_bytes(kept[:LENGTH_BYTES], "big")
                if end > MAX_MESSAGE_BYTES:
                    return
                if len(kept) < end:
                    break
                message = _decoder.decode(kept[LENGTH_BYTES:end])
                del kept[:end]
                heard(message)


class WorkerSlot:
    """A worker's place: `number` of `count`, counted from 0, its line to the supervisor, and whose process id ends all.

    `patience_secs`: in which the supervisor brings the metrics of the others.
    """

    def __init__(
        self,
        number: int,
        count: int,
        supervisor: int,
        line: SiblingLink,
        patience_secs: float = SIBLING_SECS + RETURN_SECS,
    ) -> None:
        self.number = number
        self.count = count
        self.supervisor = supervisor
        self._line = line
        self._patience_secs = patience_secs
        self._asked = 0
        self._answers: dict[int, dict[int, bytes]] = {}
        self._answered = anyio.Event()

    async def serve(
        self,
        own: Callable[[], Awaitable[bytes]],
        heartbeat: Callable[[], Heartbeat],
        reloaded: Callable[[bool], None],
    ) -> None:
        """Send heartbeats and answer with `own` metrics, until the supervisor is gone. `reloaded` is told of a failed reload."""

        def heard(message: Message) -> None:
            if isinstance(message, MetricsRequest):
                start_background_task(tasks, self._answer, message.number, own)
            elif isinstance(message, SiblingMetrics) and message.number == self._asked:
                self._answers[message.number] = message.texts
                self._answered.set()
            elif isinstance(message, ReloadFailed):
                reloaded(False)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_heartbeats, heartbeat)
            await self._line.run(heard)
            tasks.cancel_scope.cancel()

    async def others(self) -> dict[int, bytes]:
        """The metrics of the other workers; one question at a time."""
        self._asked += 1
        self._answers.clear()
        self._answered = anyio.Event()
        self._line.send(MetricsRequest(self._asked))
        with anyio.move_on_after(self._patience_secs):
            await self._answered.wait()
        return self._answers.pop(self._asked, {})

    async def _answer(self, number: int, own: Callable[[], Awaitable[bytes]]) -> None:
        self._line.send(WorkerMetrics(number, await own()))

    async def _send_heartbeats(self, heartbeat: Callable[[], Heartbeat]) -> None:
        while True:
            listening = False
            with log_exceptions("the heartbeat"):
                beat = heartbeat()
                self._line.send(beat)
                listening = beat.listening
            await anyio.sleep(HEARTBEAT_SECS if listening else STARTING_HEARTBEAT_SECS)


async def gather(slot: WorkerSlot, render: Callable[[], Awaitable[bytes]]) -> bytes:
    """The exposition of all workers; who does not answer in time is missing, and down."""
    texts = {slot.number: await render()} | await slot.others()
    return merge({number: texts.get(number) or None for number in range(slot.count)})


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
