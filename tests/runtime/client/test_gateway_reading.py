"""Programs that take no events for a while, and logs that are followed again: nothing is lost, repeated or cut."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from openguild_proto import Response
from openguild_proto.client import Session
from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway.frames import Post, Typing
from openguild_proto.limits import MAX_GATEWAY_LOGS, MAX_PENDING_COMMANDS
from openguild_proto.ws.frames import text_frame
from openguild_runtime.client import (
    Client,
    Connected,
    Gateway,
    Interrupted,
    LogFollowed,
    MessagePosted,
    OutcomeUnknown,
    RateLimited,
    ResumePosition,
    StreamEnded,
    Unauthorized,
)
from openguild_runtime.client.gateway import MAX_WAITING_EVENTS
from tests.support.gateway import log_name
from tests.support.scripted import Scripted, scripted
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

LOG = "channel:0198c0de-0000-4000-8000-000000000001"
MY_LOG = "user:0198c0de-0000-4000-8000-000000000002"
HEARTBEAT_MS = 60_000  # longer than a test takes on a busy machine: silence of two ends a connection
SHORT_MS = 800
READY = {
    "user": {"user_id": "u", "username": "u"},
    "session": {"session_id": "s", "expires_at": ""},
    "guilds": [],
    "heads": [],
}
HELLO = {
    "auth_ms": 1_000, "server_time": "", "capabilities": [],
    "limits": {"logs": 1_000, "frame_bytes": 65_536, "frames_per_minute": 0, "held_frames": 64},
}  # fmt: skip


class Server:
    """Says what a gateway does about one log, to each connection; `beats` counts its heartbeats."""

    def __init__(self, server: Scripted, heartbeat_ms: int) -> None:
        self.server = server
        self.heartbeat_ms = heartbeat_ms
        self.beats = 0

    async def say(self, kind: str, /, **members: Any) -> None:
        await self.server.sockets[-1].send(text_frame(json.dumps({"type": kind, **members}).encode()))

    async def begin(self, ref: int, after: int) -> None:
        """A connection is there: what it is told until it follows the log."""
        await self.say("hello", **HELLO | {"heartbeat_ms": self.heartbeat_ms})
        await self.say("ready", **READY)
        await self.sub_ok(ref, after)

    async def sub_ok(self, ref: int, after: int) -> None:
        line = {"log": LOG, "epoch": 1, "after": after, "head": after, "recovered": True}
        await self.say("sub_ok", ref=ref, logs=[line])

    async def events(self, first: int, last: int) -> None:
        for sequence in range(first, last + 1):
            event = {
                "schema_version": 1, "event_id": f"${sequence}", "origin_server": "s", "room_id": LOG[8:], "sender": "u",
                "event_type": "message", "origin_ts": 1, "prev_events": [], "auth_events": [], "signatures": {},
                "content": {"author": {"id": "u", "username": "u"}, "content": "hi", "nonce": "n"},
            }  # fmt: skip
            await self.say("ev", log=LOG, epoch=1, seq=sequence, event=event)

    async def beat(self) -> None:
        while True:
            await self.say("hb")
            self.beats += 1
            await anyio.sleep(self.heartbeat_ms / 1_000)


@asynccontextmanager
async def following(heartbeat_ms: int = HEARTBEAT_MS) -> AsyncIterator[tuple[Server, Gateway]]:
    """A program that follows the log, on its first connection."""
    async with (
        scripted(lambda request: None) as scripts,
        Client(scripts.url, session=Session("t", "r"), jitter=lambda: 0.0) as client,
        client.gateway(everything=False) as events,
    ):
        server = Server(scripts, heartbeat_ms)
        events.follow(LOG)
        await eventually(lambda: len(scripts.sockets) == 1)
        await server.begin(ref=1, after=0)
        yield server, events


async def sequences(events: Gateway, last: int) -> list[int]:
    found: list[int] = []
    with anyio.fail_after(20):
        async for event in events:
            assert not isinstance(event, Interrupted), event.reason
            if isinstance(event, MessagePosted):
                found.append(event.sequence)
                if event.sequence == last:
                    break
    return found


async def test_a_program_that_leaves_at_once_gets_its_own_failure() -> None:
    async with (
        scripted(lambda request: None) as scripts,
        Client(scripts.url, session=Session("t", "r"), jitter=lambda: 0.0) as client,
    ):
        async with client.gateway():
            pass
        with pytest.raises(LookupError, match="on purpose"):
            async with client.gateway():
                raise LookupError("on purpose")
        assert scripts.connections == 0


async def test_positions_that_cannot_be_followed_do_not_keep_the_gateway_closed() -> None:
    positions = {log_name(number): ResumePosition(1, 1) for number in range(MAX_GATEWAY_LOGS + 1)} | {
        "user:x": ResumePosition(1, 1),
        MY_LOG: ResumePosition(1, 1),
    }
    async with (
        scripted(lambda request: None) as scripts,
        Client(scripts.url, session=Session("t", "r", positions=positions)) as client,
        client.gateway() as events,
    ):
        assert len(events._machine.places) == MAX_GATEWAY_LOGS
        assert MY_LOG in events._machine.places, "it tells of new guilds"
        with pytest.raises(LocalProtocolError, match="at most 1000 logs"):
            events.follow(log_name(MAX_GATEWAY_LOGS))


async def test_a_program_that_takes_nothing_keeps_its_connection() -> None:
    count = MAX_WAITING_EVENTS + 50
    async with following(SHORT_MS) as (server, events), anyio.create_task_group() as tasks:
        assert isinstance(await anext(events), Connected)
        assert isinstance(await anext(events), LogFollowed)
        await server.events(1, count)
        tasks.start_soon(server.beat)
        await eventually(lambda: server.beats > 3)  # silence of two heartbeats would end it
        assert len(server.server.sockets) == 1
        assert await sequences(events, count) == list(range(1, count + 1))
        tasks.cancel_scope.cancel()


async def test_a_server_that_is_silent_while_it_is_read_is_left() -> None:
    async with following(SHORT_MS) as (server, events):
        with anyio.fail_after(20):
            reasons = [event.reason async for event in _until_interrupted(events)]
        assert reasons == ["the server does not respond"]
        assert len(server.server.sockets) >= 1


async def test_a_log_that_is_followed_again_repeats_and_loses_nothing() -> None:
    async with following() as (server, events):
        await server.events(1, 9)
        assert await sequences(events, 2) == [1, 2]
        events.follow(LOG)  # goes on
        assert await sequences(events, 4) == [3, 4]
        events.unfollow(LOG)
        events.follow(LOG)  # behind the event that the program is busy with
        assert events._machine.places == {LOG: ResumePosition(1, 4)}
        await server.sub_ok(ref=2, after=4)
        await server.events(5, 9)
        assert await sequences(events, 9) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("taken", [0, 1])
async def test_a_log_that_is_left_before_its_first_event_is_taken_loses_nothing(taken: int) -> None:
    """It was followed from now on: no event tells yet from where to go on."""
    async with following() as (server, events):
        assert isinstance(await anext(events), Connected)
        await server.events(1, 3)
        await eventually(lambda: len(events._waiting) == 4)
        for _ in range(taken):
            assert isinstance(await anext(events), LogFollowed)
        events.unfollow(LOG)
        events.follow(LOG)
        assert events._machine.places == {LOG: ResumePosition(1, 0)}
        await server.sub_ok(ref=2, after=0)
        await server.events(1, 4)
        assert await sequences(events, 4) == [1, 2, 3, 4]


async def test_a_log_that_is_left_as_it_begins_goes_on_from_there() -> None:
    async with following() as (_, events):
        assert isinstance(await anext(events), Connected)
        assert isinstance(await anext(events), LogFollowed)
        events.unfollow(LOG)
        events.follow(LOG)  # what comes between is not had
        assert events._machine.places == {LOG: ResumePosition(1, 0)}


async def test_a_token_that_is_wanted_after_a_logout_ends_it_with_401() -> None:
    async with following() as (server, events):
        assert isinstance(events._client, Client)
        events._client.session = None
        await server.say("auth_expiring", expires_in_ms=1_000)
        with pytest.raises(Unauthorized, match="log in"):
            await sequences(events, 1)
        with pytest.raises(Unauthorized, match="log in"):
            await events.attempt(Typing(0, LOG[8:]))


async def test_more_commands_than_may_be_unanswered_wait_for_their_turn() -> None:
    async with following() as (server, events):
        events._retry_secs = 0.5
        ends = list[str]()

        async def post() -> None:
            try:
                await events.execute(Post(0, LOG[8:], content="hi"))
            except OutcomeUnknown as end:
                ends.append(str(end))

        assert isinstance(await anext(events), Connected)
        async with anyio.create_task_group() as tasks:
            for _ in range(MAX_PENDING_COMMANDS + 1):
                tasks.start_soon(post)
        assert len(ends) == MAX_PENDING_COMMANDS + 1
        assert events._machine.pending == 0
        await server.events(1, 1)
        assert await sequences(events, 1) == [1]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("presence", {"user_id": "0198c0de-0000-7000-8000-000000000001", "status": "busy"}),
        ("typing", {"user_id": "0198c0de-0000-7000-8000-000000000001", "preview": 7}),
        ("weather", "sunny"),
    ],
)
async def test_a_hint_of_a_newer_server_is_passed_over(kind: str, data: Any) -> None:
    async with following() as (server, events):
        await server.say("eph", log=LOG, kind=kind, data=data)
        await server.events(1, 1)
        assert await sequences(events, 1) == [1]


async def test_a_program_that_is_behind_sends_its_commands_over_http() -> None:
    """Over the gateway each would read on for its answer, which stands behind events."""
    async with following() as (server, events):
        await server.events(1, MAX_WAITING_EVENTS + 50)
        await eventually(lambda: events.is_behind)
        posted = b'{"event_id": "$e", "sequence": 7, "created_at": "2026-01-01T00:00:00Z"}'
        server.server.answer = lambda request: Response(201, posted, content_type="application/json")
        assert (await events._client.post(LOG[8:], "hi")).sequence == 7
        assert server.server.paths()[-1] == f"/channels/{LOG[8:]}/messages"
        assert events._machine.pending == 0
        assert await sequences(events, MAX_WAITING_EVENTS) == list(range(1, MAX_WAITING_EVENTS + 1))
        assert not events.is_behind


async def test_hints_that_are_not_taken_are_dropped() -> None:
    """They are read beyond the bound while a command waits for its answer."""
    async with following() as (server, events), anyio.create_task_group() as tasks:
        tasks.start_soon(events.execute, Post(0, LOG[8:], content="hi"))
        for _ in range(MAX_WAITING_EVENTS + 50):
            await server.say("eph", log=LOG, kind="typing", data={"user_id": MY_LOG[5:]})
        await server.events(1, 1)
        await eventually(lambda: events._machine.places == {LOG: ResumePosition(1, 1)})
        assert len(events._waiting) == MAX_WAITING_EVENTS + 1
        assert await sequences(events, 1) == [1]
        tasks.cancel_scope.cancel()


async def test_a_refused_sign_of_typing_is_not_sent_later() -> None:
    """It would say that one is writing when the message has come."""
    async with following() as (server, events):
        assert isinstance(await anext(events), Connected)
        ends = list[RateLimited]()

        async def tell() -> None:
            with pytest.raises(RateLimited) as end:
                await events.execute(Typing(0, LOG[8:]))
            ends.append(end.value)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tell)
                await eventually(lambda: events._answers)
                await server.say(
                    "err", ref=max(events._answers), code="typing_rate_limit", message="m", retry_after_ms=0
                )
        assert [end.code for end in ends] == ["typing_rate_limit"]


async def test_a_sign_of_typing_that_meets_an_ended_token_is_missed() -> None:
    async with following() as (server, events):
        assert isinstance(await anext(events), Connected)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(events.execute, Typing(0, LOG[8:]))
                await eventually(lambda: events._answers)
                await server.say("err", ref=max(events._answers), code="unauthorized", message="m")


async def test_an_event_that_cannot_be_read_ends_it() -> None:
    """It would come again after a reconnection."""
    async with following() as (server, events):
        await server.events(1, 1)
        await server.say("ev", log=LOG, epoch=1, seq=2, event={"schema_version": 1})
        assert await sequences(events, 1) == [1]
        with pytest.raises(StreamEnded, match="cannot be read") as ended:
            await sequences(events, 2)
        assert ended.value.code == 1007
        with pytest.raises(OutcomeUnknown, match="cannot be read"):
            await events.execute(Typing(0, LOG[8:]))


async def _until_interrupted(events: Gateway) -> AsyncIterator[Interrupted]:
    async for event in events:
        if isinstance(event, Interrupted):
            yield event
            return
