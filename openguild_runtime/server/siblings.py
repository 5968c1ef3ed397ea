"""Messages between a worker and its supervisor, over a socket pair that the worker inherits.

The pair has no name in the file system, so it needs no writable directory, and no cleaner of temporary files removes it.
Every worker sends a heartbeat, by which the supervisor notices workers that hang. Any worker can be scraped for the
metrics of all: it asks the supervisor, which asks the other workers. Each sample gets the label `worker`;
`openguild_worker_up` tells which workers answered.
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
from openguild_runtime.system.turns import Pauses

HEARTBEAT_SECS = 2.0  # between two heartbeats
STARTING_HEARTBEAT_SECS = 0.2  # until the worker accepts connections
SIBLING_SECS = 1.0  # for a worker to send its metrics
RETURN_SECS = 0.5  # for the way to the supervisor and back
RECEIVE_BYTES = 65_536
LENGTH_BYTES = 4  # the length before each message, big-endian
MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # the metrics of all workers
LINES_AT_ONCE = 200  # of metrics, between two checks of the clock
MAX_WAITING_BYTES = MAX_MESSAGE_BYTES  # queued for an end that does not read


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """A worker reports that its loop runs."""

    listening: bool  # it accepts connections
    changes: dict[str, Any]  # settings changed by `admin set`, for the worker that replaces it


class MetricsRequest(msgspec.Struct, frozen=True, tag="metrics_request"):
    """A request for metrics: of one worker, or from a worker for those of all others. The answer has the same number."""

    number: int


class WorkerMetrics(msgspec.Struct, frozen=True, tag="worker_metrics"):
    """The metrics of one worker."""

    number: int
    text: bytes


class SiblingMetrics(msgspec.Struct, frozen=True, tag="sibling_metrics"):
    """The metrics of the other workers by number, without those that did not answer in time."""

    number: int
    texts: dict[int, bytes]


class ReloadFailed(msgspec.Struct, frozen=True, tag="reload_failed"):
    """The supervisor reports that the last reload was refused, and that workers keep their configuration."""


Message = Heartbeat | MetricsRequest | WorkerMetrics | SiblingMetrics | ReloadFailed
_decoder = msgspec.msgpack.Decoder(Message)


class SiblingLink:
    """One end of the pair. It sends whole messages in order, and drops new ones while too many bytes wait to be sent."""

    def __init__(self, sock: socket.socket, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: deque[bytes] = deque()
        self._nbytes = 0
        self._given = anyio.Event()

    def send(self, message: Message) -> None:
        """Queue a message, or drop it if the queue is full; never waits."""
        data = msgspec.msgpack.encode(message)
        if self._nbytes + len(data) <= self._max_waiting_bytes:
            self._nbytes += len(data) + LENGTH_BYTES
            self._waiting.append(len(data).to_bytes(LENGTH_BYTES, "big") + data)
            self._given.set()

    async def run(self, heard: Callable[[Message], None]) -> None:
        """Send queued messages and pass received ones to `heard`, until the other end is closed."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send)
            # the supervisor, or the reader of the lifeline, reacts to the death of the other process
            with suppress(OSError, msgspec.DecodeError):
                await self._receive(heard)
            tasks.cancel_scope.cancel()

    def close(self) -> None:
        """Close the socket."""
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
    """A worker's place: its `number`, from 0, of `count`, and its line to the supervisor.

    `supervisor` is the supervisor's process ID, `patience_secs` the time to wait for the metrics of the others.
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
        """Send heartbeats and answer requests with the `own` metrics, until the supervisor is gone.

        `reloaded(False)` is called after a failed reload.
        """

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
        """Return the metrics of the other workers by number. Not to be called concurrently."""
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
    """Return the exposition of all workers. Workers that do not answer in time are left out and shown as down."""
    texts = {slot.number: await render()} | await slot.others()
    return await merge({number: texts.get(number) or None for number in range(slot.count)})


async def merge(texts: dict[int, bytes | None]) -> bytes:
    """Merge the texts (Prometheus 0.0.4) of all workers, so that each family occurs once. None marks a worker as down.

    The texts may have very many lines, so the loop runs other tasks in between.
    """
    pauses = Pauses()
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, text in texts.items():
        family, lines = "", (text or b"").decode().splitlines()
        for begin in range(0, len(lines), LINES_AT_ONCE):
            for line in lines[begin : begin + LINES_AT_ONCE]:
                if line.startswith("# "):
                    _, kind, family, _ = line.split(" ", 3)
                    if kind == "HELP":
                        heads.setdefault(family, []).clear()
                    heads[family].append(line)
                elif line:
                    samples.setdefault(family, []).append(_labelled(line, number))
            await pauses.pause_if_due()
    merged = ["# HELP openguild_worker_up 1 when the worker answered this scrape", "# TYPE openguild_worker_up gauge"]
    merged += [f'openguild_worker_up{{worker="{number}"}} {int(text is not None)}' for number, text in texts.items()]
    for family, head in heads.items():
        merged += head
        merged += samples.get(family, [])
    whole = bytearray()
    for begin in range(0, len(merged), LINES_AT_ONCE):
        whole += "".join(f"{line}\n" for line in merged[begin : begin + LINES_AT_ONCE]).encode()
        await pauses.pause_if_due()
    return bytes(whole)


def _labelled(line: str, number: int) -> str:
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{worker="{number}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{worker="{number}"}} {value}'
