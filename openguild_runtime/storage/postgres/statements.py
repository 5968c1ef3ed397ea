"""Which function carries out which effect, and whether it is one statement or a transaction of several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from openguild_proto import effects
from openguild_proto.effects import StorageEffect
from openguild_runtime.storage.postgres import (
    access,
    accounts,
    attempts,
    channels,
    guilds,
    history,
    invites,
    replica,
    retention,
    sessions,
)
from openguild_runtime.storage.postgres.transaction import Transaction

# One statement, which is a transaction by itself: no BEGIN and COMMIT around it.
QUESTIONS: dict[type[StorageEffect[Any]], Callable[[Any, Any], Awaitable[Any]]] = {
    effects.FindUserByName: accounts.find_user_by_name,
    effects.FindRefreshFamily: sessions.find_refresh_family,
    effects.FindSession: sessions.find_session,
    effects.ListDevices: sessions.list_devices,
    effects.ListSessionAddresses: sessions.list_session_addresses,
    effects.ListGuilds: guilds.list_guilds,
    effects.FindGuildAccess: access.find_guild_access,
    effects.ListMembers: guilds.list_members,
    effects.FindMember: guilds.find_member,
    effects.ListInvites: invites.list_invites,
    effects.FindInvite: invites.find_invite,
    effects.ListChannels: channels.list_channels,
    effects.FindPosted: channels.find_posted,
    effects.ReadEvents: channels.read_events,
    effects.ListUnread: channels.list_unread,
    effects.ReadHeads: replica.read_heads,
    effects.ReadVisible: replica.read_visible,
}
CHANGES: dict[type[StorageEffect[Any]], Callable[[Any, Any], Awaitable[Any]]] = {
    effects.InsertUser: accounts.insert_user,
    effects.CountAttempt: attempts.count_attempt,
}
STATEMENTS = QUESTIONS | CHANGES
# On a connection that is kept for what a replica asks to keep up.
WATCHES: dict[type[StorageEffect[Any]], Callable[[Any, Any], Awaitable[Any]]] = {
    effects.ReadControlHead: replica.read_control_head,
    effects.ReadControls: replica.read_controls,
    effects.RecordLineage: history.record_lineage,
    effects.RenewEpochs: history.renew_epochs,
}
# Several statements, perhaps with a control record.
TRANSACTIONS: dict[type[StorageEffect[Any]], Callable[[Transaction, Any], Awaitable[Any]]] = {
    effects.DescribeUser: accounts.describe_user,
    effects.GrantServerRole: accounts.grant_server_role,
    effects.RevokeServerRole: accounts.revoke_server_role,
    effects.OpenSession: sessions.open_session,
    effects.RotateRefresh: sessions.rotate_refresh,
    effects.RevokeRefresh: sessions.revoke_refresh,
    effects.RevokeDevice: sessions.revoke_device,
    effects.InsertGuild: guilds.insert_guild,
    effects.RenameGuild: guilds.rename_guild,
    effects.DeleteGuild: guilds.delete_guild,
    effects.SetMemberRole: guilds.set_member_role,
    effects.RemoveMember: guilds.remove_member,
    effects.GrantGuildRole: guilds.grant_guild_role,
    effects.InsertInvite: invites.insert_invite,
    effects.AcceptInvite: invites.accept_invite,
    effects.DeleteInvite: invites.delete_invite,
    effects.InsertChannel: channels.insert_channel,
    effects.RenameChannel: channels.rename_channel,
    effects.DeleteChannel: channels.delete_channel,
    effects.MarkRead: channels.mark_read,
    effects.GrantChannelRole: channels.grant_channel_role,
    effects.PruneExpired: retention.prune_expired,
}
SNAPSHOTS = frozenset({effects.DescribeUser})  # read several tables as of one moment
