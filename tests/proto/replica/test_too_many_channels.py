"""A notification stream follows a bounded number of channels (PROTOCOL 8.10.10)."""

from __future__ import annotations

import pytest

from openguild_proto.effects.guilds import AcceptInvite, InsertInvite
from openguild_proto.errors import ErrorCode
from openguild_proto.records import Author
from openguild_proto.replica import notifications
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from tests.support.deeds import NOW
from tests.support.driven_replica import Driven, Socket

TOO_MANY = CloseCode.POLICY_VIOLATION, reasons.TOO_MANY_CHANNELS


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    """Where a stream follows two channels."""
    monkeypatch.setattr(notifications, "MAX_NOTIFIED_CHANNELS", 2)
    return Driven()


def guild_of(driven: Driven, owner: str, channels: int) -> str:
    guild = driven.elsewhere.guild(owner)
    for _ in range(channels):
        driven.elsewhere.channel(owner, guild)
    deliver(driven)
    return guild


def deliver(driven: Driven) -> None:
    for record in driven.elsewhere.records:
        driven.deliver_control(record)


def closed(socket: Socket) -> tuple[CloseCode, str] | None:
    return None if socket.closed is None else (socket.closed.code, socket.closed.reason)


def test_who_sees_more_is_refused_and_nothing_is_left(driven: Driven) -> None:
    user = driven.elsewhere.user()
    guild_of(driven, user, 3)
    ticket = driven.prepare(driven.stream(user))
    assert driven.prepared == {ticket: ErrorCode.LIMIT_REACHED}
    assert driven.leftovers() == {}
    assert driven.defects == []


def test_a_new_channel_too_many_ends_the_streams_of_those_who_see_it(driven: Driven) -> None:
    user, other = driven.elsewhere.user(), driven.elsewhere.user()
    guild = guild_of(driven, user, 2)
    guild_of(driven, other, 2)
    sockets = [driven.open(user), driven.open(user)]
    bystander = driven.open(other)
    driven.elsewhere.channel(user, guild)
    deliver(driven)
    assert [closed(socket) for socket in sockets] == [TOO_MANY, TOO_MANY]
    assert closed(bystander) is None
    driven.leave(bystander)
    assert driven.leftovers() == {}


def test_a_guild_too_many_ends_the_streams_of_its_new_member(driven: Driven) -> None:
    owner, user = driven.elsewhere.user(), driven.elsewhere.user()
    guild = guild_of(driven, owner, 1)
    guild_of(driven, user, 2)
    invite = InsertInvite(
        author=Author(owner), code="code", guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=NOW
    )
    driven.elsewhere.perform(invite)
    deliver(driven)
    socket, bystander = driven.open(user), driven.open(owner)
    joined = AcceptInvite(author=Author(user), code="code", role="member", now_ms=NOW)
    assert driven.elsewhere.perform(joined) is not None
    deliver(driven)
    assert closed(socket) == TOO_MANY
    assert closed(bystander) is None
    driven.leave(bystander)
    assert driven.leftovers() == {}
    assert driven.defects == []
