"""Workers' slots within one process, joined by an exchange as a supervisor joins them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import anyio

from openguild_runtime.server.siblings import SIBLING_SECS, Heartbeat, Message, SiblingLink, WorkerSlot
from openguild_runtime.workers.metrics_relay import MetricsRelay
from tests.support.waiting import PATIENCE_SECS


def starting() -> Heartbeat:
    """Return the heartbeat of a worker that does not accept connections yet."""
    return Heartbeat(listening=False, changes={})


@asynccontextmanager
async def workers(
    count: int,
    received: list[tuple[int, Message]] | None = None,
    *,
    relays: bool = True,
    relay_secs: float = SIBLING_SECS,
    patience_secs: float = PATIENCE_SECS,
) -> AsyncIterator[list[WorkerSlot]]:
    """Yield the slots; `received` has their messages, in order of arrival.

    `relays`: the supervisor relays. `relay_secs`: its patience with the workers; `patience_secs`: theirs with it.
    """
    with ExitStack() as ends:
        async with anyio.create_task_group() as tasks:
            relay = MetricsRelay(tasks, {}, relay_secs)
            seats = []
            for number in range(count):
                ours, theirs = socket.socketpair()
                for end in (ours, theirs):
                    ends.enter_context(end)
                line = relay.links[number] = SiblingLink(ours)

                def hear(message: Message, number: int = number) -> None:
                    if received is not None:
                        received.append((number, message))
                    if relays:
                        relay.received(number, message)

                tasks.start_soon(line.run, hear)
                seats.append(WorkerSlot(number, count, os.getppid(), SiblingLink(theirs), patience_secs))
            yield seats
            tasks.cancel_scope.cancel()
