"""The guilds of one server, in memory, and peers that mirror them."""

from __future__ import annotations

from itertools import count

from openguild_proto.effects.accounts import InsertUser
from openguild_proto.effects.channels import DeleteChannel, InsertChannel, ReadEvents
from openguild_proto.effects.guilds import DeleteGuild, InsertGuild, InsertInvite, RemoveMember, RenameGuild
from openguild_proto.effects.mirrors import JoinFromServer, RemoteJoin
from openguild_proto.memory import MemoryTables
from openguild_proto.mirror_records import RemoteUser, Snapshot
from openguild_proto.records import Author, MemberChange
from tests.support.deeds import NOW, append, new_id
from tests.support.driven_deliveries import ModelLog, ModelPeer


class Owner:
    """`tables` with one user, who owns all guilds."""

    def __init__(self) -> None:
        self.tables = MemoryTables()
        self.user = new_id()
        self.guilds: dict[str, list[str]] = {}  # guild -> channels
        self._names = count(1)
        self.tables.perform(
            InsertUser(user_id=self.user, username="owner", username_key="owner", password_hash="", now_ms=NOW)
        )

    def guild(self) -> str:
        guild_id = new_id()
        self.tables.perform(InsertGuild(author=Author(self.user), guild_id=guild_id, name="g", now_ms=NOW, limit=1_000))
        self.guilds[guild_id] = []
        return guild_id

    def channel(self, guild_id: str) -> str:
        channel_id = new_id()
        self.tables.perform(
            InsertChannel(
                author=Author(self.user), channel_id=channel_id, guild_id=guild_id, name="c", now_ms=NOW, limit=1_000
            )
        )
        self.guilds[guild_id].append(channel_id)
        return channel_id

    def post(self, channel_id: str, times: int = 1, text: str = "hi") -> None:
        for _ in range(times):
            self.tables.perform(append(channel_id, text=text))

    def rename(self, guild_id: str) -> None:
        name = f"name {next(self._names)}"
        self.tables.perform(RenameGuild(author=Author(self.user), guild_id=guild_id, name=name, now_ms=NOW))

    def drop_channel(self, guild_id: str, channel_id: str) -> None:
        self.guilds[guild_id].remove(channel_id)
        self.tables.perform(DeleteChannel(author=Author(self.user), channel_id=channel_id, now_ms=NOW))

    def drop_guild(self, guild_id: str) -> None:
        del self.guilds[guild_id]
        self.tables.perform(DeleteGuild(author=Author(self.user), guild_id=guild_id))

    def join(self, guild_id: str, peer: ModelPeer, now_ms: int = NOW) -> str:
        """Let a user of the peer join; the peer stores the snapshot, if there is one."""
        user_id, code = new_id(), new_id()[:12]
        self.tables.perform(
            InsertInvite(
                author=Author(self.user), code=code, guild_id=guild_id, max_uses=None, expires_at_ms=None, now_ms=now_ms,
                limit=10_000,
            )
        )  # fmt: skip
        joined = self.tables.perform(
            JoinFromServer(
                peer=peer.server, user=RemoteUser(user_id, "u"), code=code, role="member", now_ms=now_ms, limit=1_000,
                wants_snapshot=guild_id not in peer.logs,
            )
        )  # fmt: skip
        assert isinstance(joined, RemoteJoin)
        if joined.snapshot is not None and guild_id not in peer.logs:
            store(peer, joined.snapshot)
        return user_id

    def leave(self, guild_id: str, user_id: str, now_ms: int = NOW) -> int:
        """Let a member leave. Return the sequence of the event."""
        log = self.events(guild_id)
        change = RemoveMember(author=Author(user_id), guild_id=guild_id, user_id=user_id, now_ms=now_ms)
        assert self.tables.perform(change) is MemberChange.DONE
        return len(log) + 1

    def events(self, log_id: str) -> list[bytes]:
        found = self.tables.perform(ReadEvents(log_id=log_id, limit=1_000_000, after=0))
        assert found is not None
        return [event.wire for event in found]


def store(peer: ModelPeer, snapshot: Snapshot) -> None:
    """Begin the peer's mirror at the snapshot's heads."""
    peer.logs[snapshot.guild_id] = ModelLog(snapshot.guild_id, snapshot.epoch, snapshot.sequence)
    for channel in snapshot.channels:
        peer.logs[channel.channel_id] = ModelLog(snapshot.guild_id, channel.epoch, channel.sequence)
