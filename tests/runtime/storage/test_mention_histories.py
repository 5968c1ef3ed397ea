"""Random histories of mentions end the same in both stores: inboxes, counts, and the logs of the users."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from openguild_proto.effects.accounts import InsertUser
from openguild_proto.effects.channels import AppendEvent, InsertChannel, ListUnread, MarkRead, ReadEvents
from openguild_proto.effects.guilds import InsertGuild, RemoveMember
from openguild_proto.effects.mentions import ListMentions
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole, RevokeServerRole
from openguild_proto.records import Author, Mentions, PageCursor, Redact
from openguild_runtime.storage.memory import MemoryStorage
from tests.runtime.storage.test_message_histories import Both, opened
from tests.support.deeds import NOW, new_id
from tests.support.messages import changing, post

USERS = tuple(f"00000000-0000-4000-8000-00000000000{number}" for number in range(4))
ROLES = ("guest", "member", "moderator", "owner")

MENTIONS = st.builds(
    Mentions,
    users=st.lists(st.sampled_from(USERS), unique=True, max_size=4).map(tuple),
    roles=st.lists(st.sampled_from(ROLES), unique=True, max_size=2).map(tuple),
    everyone=st.booleans(),
)
STEP = st.tuples(
    st.sampled_from(["post", "post", "post", "redact", "read", "role", "leave", "channel role", "server role", "no server role"]),
    st.integers(0, 3), st.integers(0, 9), st.sampled_from(ROLES), MENTIONS,
)  # fmt: skip


@pytest.fixture(scope="module")
def both(module_database: str) -> Iterator[Both]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened(module_database)) as store:
        stores = Both(portal, (MemoryStorage(), store))
        for user in USERS:
            stores.alike(InsertUser(user_id=user, username=user, username_key=user, password_hash="", now_ms=NOW))
        yield stores


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(st.lists(STEP, min_size=1, max_size=4), min_size=1, max_size=8))
def test_a_history_ends_the_same_in_both_stores(
    both: Both, history: list[list[tuple[str, int, int, str, Mentions]]]
) -> None:
    guild, channels = new_id(), (new_id(), new_id())
    owner = Author(USERS[0])
    both.alike(InsertGuild(author=owner, guild_id=guild, name="g", now_ms=NOW))
    for channel in channels:
        both.alike(InsertChannel(author=owner, channel_id=channel, guild_id=guild, name="c", now_ms=NOW))
    posted: list[AppendEvent] = []
    for moment, batch in enumerate(history):
        now_ms, at_once = NOW + moment, []
        for kind, user, place, role, mentions in batch:
            one, author, channel = USERS[user], Author(USERS[user]), channels[place % 2]
            match kind:
                case "post":
                    effect = post(channel, one, f"text {len(posted)}")
                    at_once.append(replace(effect, mentions=mentions, now_ms=now_ms))
                case "redact" if posted:
                    target = posted[place % len(posted)]
                    change = Redact(target=target.event_id, reason="x")
                    at_once.append(changing(target.channel_id, USERS[0], change, now_ms=now_ms))
                case "read":
                    both.alike(MarkRead(author=author, channel_id=channel, sequence=place, now_ms=now_ms))
                case "role":
                    both.alike(GrantGuildRole(guild_id=guild, user_id=one, role=role, now_ms=now_ms))
                case "leave":
                    both.alike(RemoveMember(author=author, guild_id=guild, user_id=one, now_ms=now_ms))
                case "channel role":
                    both.alike(GrantChannelRole(channel_id=channel, user_id=one, role=role, now_ms=now_ms))
                case "server role":
                    both.alike(GrantServerRole(user_id=one, role=role, now_ms=now_ms))
                case "no server role":
                    both.alike(RevokeServerRole(user_id=one, role=role, now_ms=now_ms))
        for channel in channels:  # of posts in two channels at once nobody knows whose mention comes first
            both.alike(*[effect for effect in at_once if effect.channel_id == channel])
        posted += [effect for effect in at_once if effect.change is None]
    for user in USERS:
        (inbox,) = both.alike(ListMentions(user_id=user))
        both.alike(ListMentions(user_id=user, unread=True), ListMentions(user_id=user, limit=2))
        if inbox:
            after = PageCursor(inbox[0].created_at_ms, inbox[0].event_id)
            assert both.alike(ListMentions(user_id=user, after=after))[0] == inbox[1:]
        both.alike(ListUnread(user_id=user), ReadEvents(log_id=user, limit=200))
    both.alike(*[RevokeServerRole(user_id=user, role=role, now_ms=NOW) for user in USERS for role in ROLES])
