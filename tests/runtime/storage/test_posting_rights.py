"""Who may post, by roles of the server, the guild and the channel."""

from __future__ import annotations

from itertools import product

import anyio
import pytest

from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.policy.permissions import Permission, require_role
from openguild_proto.records import Author
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def test_posts_are_decided_by_the_same_rule_everywhere(storage: Storage) -> None:
    """What the statement of a batch admits is what `require_role` admits, for roles of all three scopes."""
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    some = (None, "guest", "viewer", "contributor", "moderator")
    cases = {await add_user(storage): roles for roles in product(some, some, (*some, "maintainer"))}

    async def grant(user_id: str, in_guild: str | None, in_channel: str | None, server: str | None) -> None:
        if in_guild is not None:
            await storage.perform(GrantGuildRole(guild_id=guild, user_id=user_id, role=in_guild, now_ms=NOW))
        if in_channel is not None:
            await storage.perform(GrantChannelRole(channel_id=channel, user_id=user_id, role=in_channel, now_ms=NOW))
        if server is not None:
            await storage.perform(GrantServerRole(user_id=user_id, role=server, now_ms=NOW))

    found: dict[str, ErrorCode | None] = {}

    async def post(user_id: str) -> None:
        try:
            await storage.perform(append(channel, user_id, author=Author(user_id)))
            found[user_id] = None
        except Refusal as refusal:
            found[user_id] = refusal.code

    for user_id, roles in cases.items():
        await grant(user_id, *roles)
    async with anyio.create_task_group() as tasks:
        for user_id in cases:
            tasks.start_soon(post, user_id)

    def rule(in_guild: str | None, in_channel: str | None, server: str | None) -> ErrorCode | None:
        try:
            require_role([server] if server is not None else [], (in_guild, in_channel), Permission.SEND_MESSAGES)
        except Refusal as refusal:
            return refusal.code
        return None

    assert found == {user_id: rule(*roles) for user_id, roles in cases.items()}
    assert set(found.values()) == {None, ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND}


# --- what a lower role takes along -------------------------------------------------------------------
