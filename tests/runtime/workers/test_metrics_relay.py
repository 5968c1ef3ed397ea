"""The link between a worker and its supervisor, and scrapes through it."""

from __future__ import annotations

import socket

import anyio
import anyio.lowlevel
import pytest

from openguild_runtime.server.siblings import Heartbeat, Message, SiblingLink, WorkerMetrics, gather, merge
from tests.support.waiting import eventually
from tests.support.worker_slots import starting, workers

TEXT = b"# HELP x y\n# TYPE x gauge\nx 1\n"


async def text() -> bytes:
    return TEXT


def reloaded(successful: bool) -> None:
    """A worker is told of a reload."""


@pytest.mark.anyio
async def test_a_scrape_shows_all_workers() -> None:
    async with workers(3) as slots, anyio.create_task_group() as tasks:
        for slot in slots:
            tasks.start_soon(slot.serve, text, starting, reloaded)
        shown = (await gather(slots[1], text)).decode()
        tasks.cancel_scope.cancel()
    assert [f'openguild_worker_up{{worker="{number}"}} 1' in shown for number in range(3)] == [True] * 3
    assert [f'x{{worker="{number}"}} 1' in shown for number in range(3)] == [True] * 3


@pytest.mark.anyio
async def test_a_hung_worker_is_down_and_delays_no_scrape() -> None:
    async with workers(3, relay_secs=0.1) as slots, anyio.create_task_group() as tasks:
        for slot in slots[:2]:  # the third one does not serve
            tasks.start_soon(slot.serve, text, starting, reloaded)
        shown = (await gather(slots[0], text)).decode()
        tasks.cancel_scope.cancel()
    assert [f'openguild_worker_up{{worker="{number}"}} 1' in shown for number in range(3)] == [True, True, False]


@pytest.mark.anyio
async def test_a_worker_shows_itself_if_the_supervisor_is_silent() -> None:
    async with workers(2, relays=False, patience_secs=0.1) as slots, anyio.create_task_group() as tasks:
        tasks.start_soon(slots[0].serve, text, starting, reloaded)
        shown = (await gather(slots[0], text)).decode()
        tasks.cancel_scope.cancel()
    assert 'openguild_worker_up{worker="0"} 1' in shown
    assert 'openguild_worker_up{worker="1"} 0' in shown


@pytest.mark.anyio
async def test_families_of_all_workers_are_joined() -> None:
    one = b'# HELP a_total text here\n# TYPE a_total counter\na_total{x="1"} 2.0\n# HELP b b\n# TYPE b gauge\nb 3.0\n'
    joined = (await merge({0: one, 1: one, 2: None})).decode()
    assert joined.count("# TYPE a_total counter") == 1
    assert 'a_total{worker="0",x="1"} 2.0' in joined
    assert 'b{worker="1"} 3.0' in joined
    assert 'openguild_worker_up{worker="2"} 0' in joined


@pytest.mark.anyio
async def test_other_tasks_run_while_many_large_texts_are_joined() -> None:
    text = b"# HELP x y\n# TYPE x gauge\n" + b"".join(b'x{at="%d"} 1\n' % number for number in range(2_000))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        joined = await merge(dict.fromkeys(range(64), text))
        tasks.cancel_scope.cancel()
    assert joined.count(b"\n") == 2 + 64 + 2 + 64 * 2_000
    assert turns > 5


@pytest.mark.anyio
async def test_heartbeats_continue_after_a_failed_rendering() -> None:
    received: list[tuple[int, Message]] = []

    async def broken() -> bytes:
        raise RuntimeError("a defect")

    async with workers(2, received, relay_secs=0.1) as slots, anyio.create_task_group() as tasks:
        tasks.start_soon(slots[0].serve, text, starting, reloaded)
        tasks.start_soon(slots[1].serve, broken, starting, reloaded)
        await gather(slots[0], text)
        before = len(received)
        await eventually(
            lambda: any(number == 1 and isinstance(message, Heartbeat) for number, message in received[before:]),
            what="a heartbeat",
        )
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_large_messages_arrive_and_unread_ones_are_dropped() -> None:
    ours, theirs = socket.socketpair()
    large = b"x" * 3_000_000
    received: list[Message] = []
    with ours, theirs:
        sender, receiver = SiblingLink(ours, max_waiting_bytes=8_000_000), SiblingLink(theirs)
        for number in range(50):
            sender.send(WorkerMetrics(number, large))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.run, received.append)
            tasks.start_soon(receiver.run, received.append)
            await eventually(lambda: len(received) == 2, what="two of them")
            sender.send(WorkerMetrics(50, b""))
            await eventually(lambda: len(received) == 3, what="the next one")
            tasks.cancel_scope.cancel()
    assert [(message.number, len(message.text)) for message in received if isinstance(message, WorkerMetrics)] == [
        (0, len(large)), (1, len(large)), (50, 0),
    ]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x02\xc1\xc1", b"\0\0\0\x0a"])
async def test_an_invalid_message_ends_the_link(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, anyio.fail_after(5):
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        await SiblingLink(ours).run(lambda message: None)
