"""What a stream is given while the rights of its user are read again."""

from __future__ import annotations

import pytest

from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.effects.roles import GrantChannelRole
from openguild_proto.memory.state import Membership
from openguild_proto.records import Author
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from tests.proto.replica.test_controls import Chat, chat, closed
from tests.support.deeds import NOW
from tests.support.driven_replica import Socket

__all__ = ["chat"]


@pytest.mark.parametrize("since", [None, 0])
def test_nothing_that_came_behind_a_removal_is_given_to_a_stream(chat: Chat, since: int | None) -> None:
    """A replica that was held up finds the removal and many posts behind it together. `since` 0: the log is being replayed."""
    bob = chat.elsewhere.user()
    chat.elsewhere.tables._state.members[chat.guild][bob] = Membership("member", NOW)
    chat.catch_up()
    reader, other = (
        chat.driven.open(user, chat.channel, since=since, socket=Socket(away=since == 0)) for user in (bob, chat.user)
    )
    chat.driven.hold(FindChannelAccess)
    chat.elsewhere.perform(RemoveMember(author=Author(chat.user), guild_id=chat.guild, user_id=bob, now_ms=NOW))
    chat.catch_up()
    for socket in (reader, other):
        socket.away = False
    chat.driven.commit(chat.channel)
    for socket in (reader, other):
        chat.driven.read_pages(socket)
    chat.driven.flush()
    assert (reader.sequences, other.sequences) == ([], [1])
    chat.driven.let_pass(FindChannelAccess)
    chat.driven.flush()
    assert closed(reader) == (CloseCode.MEMBERSHIP_LOST, reasons.ACCESS_ENDED)
    assert reader.sequences == []


def test_the_events_of_streams_wait_until_a_changed_right_is_known(chat: Chat) -> None:
    bob = chat.elsewhere.user()
    chat.elsewhere.tables._state.members[chat.guild][bob] = Membership("member", NOW)
    chat.catch_up()
    reader = chat.driven.open(bob, chat.channel)
    held = chat.driven.hold(FindChannelAccess)
    for role in ("viewer", "member"):
        grant = GrantChannelRole(channel_id=chat.channel, user_id=bob, role=role, now_ms=NOW)
        chat.elsewhere.perform(grant)
    chat.catch_up()
    chat.driven.commit(chat.channel)
    held.release(1)
    assert reader.sequences == []
    held.release()
    chat.driven.commit(chat.channel)
    assert reader.sequences == [1, 2]
