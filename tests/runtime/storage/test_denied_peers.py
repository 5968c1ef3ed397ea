"""A peer that is denied in one guild gets nothing of it (PROTOCOL 16.4.9)."""

from __future__ import annotations

import pytest

from openguild_proto.effects.deliveries import (
    BehindLog,
    CursorMove,
    FindAffectedPeers,
    FindBehind,
    FindEnded,
    MoveCursors,
    TakeLeases,
)
from openguild_proto.effects.federation import FindReadable, RuleServer, Standing
from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.records import Author
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append, new_id
from tests.support.peers import join

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def test_a_peer_that_is_denied_in_a_guild_lacks_nothing_of_it(storage: Storage) -> None:
    peer, holder = f"{new_id()}.test", new_id()
    owner = await add_user(storage)
    guild, other = await add_guild(storage, owner), await add_guild(storage, owner)
    channels = {each: await add_channel(storage, each, owner) for each in (guild, other)}
    user = await join(storage, guild, owner, peer)
    await join(storage, other, owner, peer)
    await storage.perform(TakeLeases(peers=(peer,), holder=holder, now_ms=NOW, until_ms=NOW + 1))

    async def behind() -> tuple[BehindLog, ...]:
        return await storage.perform(FindBehind(peer=peer, limit=9))

    async def lacking() -> list[set[str]]:
        for channel in channels.values():
            await storage.perform(append(channel))
        woken = await storage.perform(FindAffectedPeers(tuple(channels.values()), holder))
        whole = await storage.perform(FindBehind(peer=peer, limit=9, level=True))
        found = (await behind(), whole, [log for _, log in woken.behind])
        return [{log.guild_id for log in logs} for logs in found]

    def ruled(standing: Standing | None) -> RuleServer:
        return RuleServer(server=peer, guild_id=guild, standing=standing, reason="spam", now_ms=NOW)

    for standing in (Standing.DENY, Standing.QUARANTINE, None):
        await storage.perform(ruled(standing))
        expected = {other} if standing is Standing.DENY else {guild, other}
        assert await lacking() == [expected] * 3, standing
    await storage.perform(ruled(Standing.DENY))
    await storage.perform(RemoveMember(author=Author(user), guild_id=guild, user_id=user, now_ms=NOW))
    for log in await behind():
        await storage.perform(MoveCursors((CursorMove(peer, log.head),)))
    assert await behind() == ()
    assert await storage.perform(FindEnded(peer=peer)) == (), "it has not got the removal"
    await storage.perform(ruled(None))
    assert [log.ends for log in await behind()] == [True]


async def test_a_channel_tells_its_guild_to_the_servers_of_its_readers(storage: Storage) -> None:
    peer, owner = f"{new_id()}.test", await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    readable = FindReadable(server=peer, channel_id=channel)
    assert await storage.perform(readable) is None
    user = await join(storage, guild, owner, peer)
    assert await storage.perform(readable) == guild
    assert await storage.perform(FindReadable(server=f"{new_id()}.test", channel_id=channel)) is None
    assert await storage.perform(FindReadable(server=peer, channel_id=guild)) is None
    await storage.perform(RemoveMember(author=Author(user), guild_id=guild, user_id=user, now_ms=NOW))
    assert await storage.perform(readable) is None
