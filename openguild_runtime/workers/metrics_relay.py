"""Relays metrics between workers: the supervisor asks all other workers and returns their combined answers."""

from __future__ import annotations

import anyio
from anyio.abc import TaskGroup

from openguild_runtime.server.siblings import (
    SIBLING_SECS,
    Message,
    MetricsRequest,
    SiblingLink,
    SiblingMetrics,
    WorkerMetrics,
)


class _Question:
    """One question: the workers whose answers are missing, and the answers so far."""

    def __init__(self, asked: set[int]) -> None:
        self.missing = asked
        self.texts: dict[int, bytes] = {}
        self.done = anyio.Event()


class MetricsRelay:
    """The supervisor's part. `links` are those of the running workers by number, kept up to date by the supervisor.

    `patience_secs` is how long to wait for the workers' metrics.
    """

    def __init__(self, tasks: TaskGroup, links: dict[int, SiblingLink], patience_secs: float = SIBLING_SECS) -> None:
        self.links = links
        self._tasks = tasks
        self._patience_secs = patience_secs
        self._questions: dict[int, _Question] = {}
        self._asking: set[int] = set()
        self._count = 0

    def received(self, number: int, message: Message) -> None:
        """Handle a message of worker `number`. A request is ignored while a former one of the same worker is not answered."""
        match message:
            case MetricsRequest(number=question) if number not in self._asking:
                self._asking.add(number)
                self._tasks.start_soon(self._ask, number, question)
            case WorkerMetrics(number=asked, text=text) if asked in self._questions:
                pending = self._questions[asked]
                pending.texts[number] = text
                pending.missing.discard(number)
                if not pending.missing:
                    pending.done.set()

    async def _ask(self, asker: int, question: int) -> None:
        self._count += 1
        number, others = self._count, {other: link for other, link in self.links.items() if other != asker}
        pending = self._questions[number] = _Question(set(others))
        try:
            for link in others.values():
                link.send(MetricsRequest(number))
            if others:
                with anyio.move_on_after(self._patience_secs):
                    await pending.done.wait()
            if asker in self.links:
                self.links[asker].send(SiblingMetrics(question, pending.texts))
        finally:
            del self._questions[number]
            self._asking.discard(asker)
