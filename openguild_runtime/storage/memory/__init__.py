"""The memory store: for tests and simulations, and for a server that was told `--storage memory` (PROTOCOL 11.4.4).

`MemoryTables` is synchronous, so that operations are tested without an event loop; `MemoryStorage` puts it behind
the `Storage` interface. Everything is lost when the process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from openguild_proto import effects
from openguild_proto.effects import ReadControlHead, ReadControls, ReadHeads, ReadVisible, StorageEffect
from openguild_proto.records import ControlRecord, Visible
from openguild_runtime.storage.base import Storage, StorageHealth, StorageStats
from openguild_runtime.storage.memory import accounts, attempts, channels, guilds, replica, retention
from openguild_runtime.storage.memory.state import State

__all__ = ["MemoryStorage", "MemoryTables"]

T = TypeVar("T")

HANDLERS: dict[type[StorageEffect[Any]], Callable[[State, Any], Any]] = {
    effects.InsertUser: accounts.insert_user,
    effects.FindUserByName: accounts.find_user_by_name,
    effects.DescribeUser: accounts.describe_user,
    effects.GrantServerRole: accounts.grant_server_role,
    effects.RevokeServerRole: accounts.revoke_server_role,
    effects.OpenSession: accounts.open_session,
    effects.FindRefreshFamily: accounts.find_refresh_family,
    effects.FindSession: accounts.find_session,
    effects.RotateRefresh: accounts.rotate_refresh,
    effects.RevokeRefresh: accounts.revoke_refresh,
    effects.ListDevices: accounts.list_devices,
    effects.ListSessionAddresses: accounts.list_session_addresses,
    effects.RevokeDevice: accounts.revoke_device,
    effects.InsertGuild: guilds.insert_guild,
    effects.ListGuilds: guilds.list_guilds,
    effects.FindGuildAccess: guilds.find_guild_access,
    effects.RenameGuild: guilds.rename_guild,
    effects.DeleteGuild: guilds.delete_guild,
    effects.ListMembers: guilds.list_members,
    effects.FindMember: guilds.find_member,
    effects.SetMemberRole: guilds.set_member_role,
    effects.RemoveMember: guilds.remove_member,
    effects.GrantGuildRole: guilds.grant_guild_role,
    effects.InsertInvite: guilds.insert_invite,
    effects.ListInvites: guilds.list_invites,
    effects.FindInvite: guilds.find_invite,
    effects.AcceptInvite: guilds.accept_invite,
    effects.DeleteInvite: guilds.delete_invite,
    effects.InsertChannel: channels.insert_channel,
    effects.ListChannels: channels.list_channels,
    effects.FindChannelAccess: channels.find_channel_access,
    effects.RenameChannel: channels.rename_channel,
    effects.DeleteChannel: channels.delete_channel,
    effects.GrantChannelRole: channels.grant_channel_role,
    effects.AppendEvent: channels.append_event,
    effects.FindPosted: channels.find_posted,
    effects.ReadEvents: channels.read_events,
    effects.MarkRead: channels.mark_read,
    effects.ListUnread: channels.list_unread,
    effects.CountAttempt: attempts.count_attempt,
    effects.PruneExpired: retention.prune_expired,
    effects.ReadHeads: replica.read_heads,
    effects.ReadVisible: replica.read_visible,
    effects.ReadControlHead: replica.read_control_head,
    effects.ReadControls: replica.read_controls,
    effects.ReadHistory: replica.read_history,
    effects.RecordLineage: replica.record_lineage,
    effects.RenewEpochs: replica.renew_epochs,
}


class MemoryTables:
    """Performs storage effects at once. Not thread-safe; two replicas of a simulation may share one."""

    def __init__(self) -> None:
        self._state = State()

    def perform(self, effect: StorageEffect[T]) -> T:
        """Raises TypeError for an effect that is not storage's, LocalProtocolError where PostgreSQL would refuse."""
        handler = HANDLERS.get(type(effect))
        if handler is None:
            raise TypeError(f"not a storage effect: {type(effect).__name__}")
        return cast("T", handler(self._state, effect))

    def heads(self, channel_ids: Sequence[str]) -> dict[str, int]:
        return self.perform(ReadHeads(channel_ids=tuple(channel_ids)))

    def control_head(self) -> int:
        return self.perform(ReadControlHead())

    def control_since(self, sequence: int, limit: int) -> list[ControlRecord]:
        records = self.perform(ReadControls(after=sequence, limit=limit))
        return list(records)

    def visible(self, user_id: str) -> Visible:
        return self.perform(ReadVisible(user_id=user_id))


class MemoryStorage(Storage):
    """`Storage` over `MemoryTables`; give several of them the same tables to have replicas without PostgreSQL."""

    def __init__(self, tables: MemoryTables | None = None) -> None:
        super().__init__()
        self.tables = tables if tables is not None else MemoryTables()

    async def start(self) -> None:
        return None

    async def aclose(self) -> None:
        return None

    async def perform(self, effect: StorageEffect[T]) -> T:
        before = self.tables.control_head()
        result = self.tables.perform(effect)
        written = self.tables.control_head() - before
        for record in self.tables.control_since(before, written):
            self.on_control(record)
        return result

    async def check(self) -> StorageHealth:
        return StorageHealth(database=True, migrations=True)

    def stats(self) -> StorageStats:
        return StorageStats()
