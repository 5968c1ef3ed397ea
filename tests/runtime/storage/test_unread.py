"""What is unread, on both stores: messages of others behind the position, counted without reading them (PROTOCOL 7.7)."""

from __future__ import annotations

from random import Random

import anyio
import pytest

from openguild_proto.effects.channels import Appended, AppendEvent, ListUnread, MarkRead
from openguild_proto.effects.guilds import AcceptInvite, InsertInvite
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.errors import Refusal
from openguild_proto.policy.channels import decide_read_position
from openguild_proto.records import Author, Edit, React, ReadState, Redact
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append, new_id
from tests.support.messages import changing, post, stored

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


class Oracle:
    """A channel's log as its senders, "" where the event is no message; unread ones are counted one by one."""

    def __init__(self) -> None:
        self.senders: list[str] = []
        self.positions: dict[str, int] = {}

    def mark(self, user_id: str, asked: int | None) -> None:
        self.positions[user_id] = decide_read_position(
            asked, head=len(self.senders), stored=self.positions.get(user_id, 0)
        )

    def line(self, user_id: str) -> tuple[int, int, int]:
        position = self.positions.get(user_id, 0)
        unread = sum(sender not in {"", user_id} for sender in self.senders[position:])
        return position, len(self.senders), unread


def seen(state: ReadState) -> tuple[int, int, int]:
    return state.last_read_sequence, state.latest_sequence, state.unread


@pytest.fixture(params=range(3))
def rng(request: pytest.FixtureRequest) -> Random:
    return Random(request.param)


async def test_unread_is_what_counting_finds(storage: Storage, rng: Random) -> None:
    owner, member = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=member, role="member", now_ms=NOW))
    channels = [await add_channel(storage, guild, owner, now_ms=NOW + number) for number in range(2)]
    logs = {channel_id: Oracle() for channel_id in channels}
    mine: dict[str, list[str]] = {channel_id: [] for channel_id in channels}
    for _ in range(70):
        user_id, channel_id = rng.choice([owner, member]), rng.choice(channels)
        log = logs[channel_id]
        match rng.choice(["post", "post", "post", "foreign", "change", "reply", "mark", "redact"]):
            case "post":
                event = await stored(storage, post(channel_id, user_id, "x"))
                log.senders.append(user_id)
                mine[channel_id].append(event.event_id)
            case "foreign":
                await stored(storage, append(channel_id, "@somebody:elsewhere"))
                log.senders.append("@somebody:elsewhere")
            case "change" if mine[channel_id]:
                react = React(rng.choice(mine[channel_id]), new_id(), adds=True)
                if await is_stored(storage, changing(channel_id, user_id, react)):
                    log.senders.append("")
            case "reply" if mine[channel_id]:
                effect = post(channel_id, user_id, "x", reply_to=rng.choice(mine[channel_id]))
                if await is_stored(storage, effect):
                    log.senders.append(user_id)
            case "redact" if len(mine[channel_id]) > 5:
                redact = Redact(mine[channel_id].pop(rng.randrange(len(mine[channel_id]))), "why")
                await stored(storage, changing(channel_id, owner, redact))
                log.senders.append("")
            case "mark":
                asked = rng.choice([None, rng.randrange(len(log.senders) + 2), rng.randrange(len(log.senders) + 2)])
                mark = MarkRead(author=Author(user_id), channel_id=channel_id, sequence=asked, now_ms=NOW)
                log.mark(user_id, asked)
                assert seen(await storage.perform(mark)) == log.line(user_id)
        for reader in (owner, member):
            lines = await storage.perform(ListUnread(user_id=reader))
            assert [seen(line) for line in lines] == [logs[channel_id].line(reader) for channel_id in channels]


async def is_stored(storage: Storage, effect: AppendEvent) -> bool:
    """Whether it was: of a redacted message it is refused."""
    try:
        return isinstance(await storage.perform(effect), Appended)
    except Refusal:
        return False


async def test_posts_and_marks_at_once_lose_no_count(storage: Storage) -> None:
    """A user posts and reads in the same moment, many times over."""
    owner, member = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=member, role="member", now_ms=NOW))
    channel_id = await add_channel(storage, guild, owner)
    senders: dict[int, str] = {}

    async def write(user_id: str) -> None:
        for _ in range(15):
            senders[(await stored(storage, post(channel_id, user_id, "x"))).sequence] = user_id

    async def read() -> None:
        for number in range(15):
            asked = None if number % 2 else number
            await storage.perform(MarkRead(author=Author(owner), channel_id=channel_id, sequence=asked, now_ms=NOW))

    async with anyio.create_task_group() as tasks:
        for user_id in (owner, owner, member):
            tasks.start_soon(write, user_id)
        tasks.start_soon(read)
    for reader in (owner, member):
        (line,) = await storage.perform(ListUnread(user_id=reader))
        behind = [sender for sequence, sender in senders.items() if sequence > line.last_read_sequence]
        assert line.unread == sum(sender != reader for sender in behind)


async def test_who_joins_has_read_everything(storage: Storage) -> None:
    owner, newcomer = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    channel_id, empty = [await add_channel(storage, guild, owner, now_ms=NOW + number) for number in range(2)]
    target = (await stored(storage, post(channel_id, owner, "x"))).event_id
    await stored(storage, changing(channel_id, owner, Edit(target, "y")))
    invite = InsertInvite(
        author=Author(owner), code=new_id(), guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=NOW
    )
    await storage.perform(invite)
    await storage.perform(AcceptInvite(author=Author(newcomer), code=invite.code, role="member", now_ms=NOW))
    lines = await storage.perform(ListUnread(user_id=newcomer))
    assert [(line.channel_id, *seen(line)) for line in lines] == [(channel_id, 2, 2, 0), (empty, 0, 0, 0)]
    await stored(storage, post(channel_id, newcomer, "x"))
    await stored(storage, post(channel_id, owner, "x"))
    lines = await storage.perform(ListUnread(user_id=newcomer))
    assert [seen(line) for line in lines] == [(2, 4, 1), (0, 0, 0)]
