"""Applies the events of another server's guild log to the mirror of the guild, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openguild_proto.limits import MAX_NOTED_UNKNOWN
from openguild_proto.mirror_records import MirroredChannel, MirroredEvent, MirroredMember
from openguild_proto.policy.channels import creator_role
from openguild_proto.policy.invites import invite_id
from openguild_proto.records import ChannelRecord, ControlKind
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.event_effects import ban_told
from openguild_proto.schemas.log_contents import (
    ChannelCreatedContent,
    ChannelDeletedContent,
    ChannelRoleSetContent,
    ChannelUpdatedContent,
    GuildSuccessorSetContent,
    GuildUpdatedContent,
    InviteDeletedContent,
    MemberBannedContent,
    MemberJoinedContent,
    MemberLeftContent,
    MemberRemovedContent,
    MemberRoleSetContent,
    MemberTimedOutContent,
    MemberUnbannedContent,
)
from openguild_proto.schemas.log_entries import left_guild
from openguild_proto.schemas.payloads import channel_body
from openguild_proto.timestamps import to_millis
from openguild_runtime.storage.postgres.ban_checks import end_ban, mirror_ban
from openguild_runtime.storage.postgres.deleted_logs import HOLD_LOGS, end_logs
from openguild_runtime.storage.postgres.guilds import end_lost_rights
from openguild_runtime.storage.postgres.mirrors import ADD_ROLES, add_channels, add_roles, home_of, know_users
from openguild_runtime.storage.postgres.timeouts import drop_timeout, keep_timeout, keep_timeouts
from openguild_runtime.storage.postgres.transaction import Change, GuildControl, Transaction
from openguild_runtime.storage.postgres.values import moment, rows_changed

HAS_OWN_MEMBERS = """
SELECT EXISTS (
    SELECT FROM guild_memberships AS m JOIN users AS u USING (user_id) WHERE m.guild_id = $1 AND u.origin IS NULL
)
"""
RAISE_SERIAL = "UPDATE guilds SET serial = greatest(serial, $2) WHERE guild_id = $1"
ROLE = "SELECT role FROM guild_memberships WHERE guild_id = $1 AND user_id = $2"
JOIN = """
INSERT INTO guild_memberships (guild_id, user_id, role, joined_at)
SELECT $1, user_id, $3, $4 FROM users WHERE user_id = $2 AND origin = $5 ON CONFLICT DO NOTHING
"""
SET_ROLE = "UPDATE guild_memberships SET role = $3 WHERE guild_id = $1 AND user_id = $2"
LEAVE = "DELETE FROM guild_memberships WHERE guild_id = $1 AND user_id = $2 RETURNING role"
# Existing notes get a new time, since a process that has reported a note to the owner deletes only the version it has reported.
# Users with deleted accounts look the same as users that the owner makes up, so their number is limited.
NOTE_MISTAKEN = f"""
WITH given AS (
    SELECT DISTINCT ON (user_id) user_id, due_at FROM unnest($3::uuid[], $4::timestamptz[]) AS row (user_id, due_at)
), noted AS (
    SELECT count(*) AS count FROM (SELECT FROM federation_partings WHERE origin = $1 LIMIT {MAX_NOTED_UNKNOWN}) AS counted
), mistaken AS (
    SELECT user_id, due_at FROM given JOIN users AS u USING (user_id) WHERE u.origin IS NULL AND NOT EXISTS (
        SELECT FROM guild_memberships AS m WHERE m.guild_id = $2 AND m.user_id = u.user_id
    )
    UNION ALL (
        SELECT user_id, due_at FROM given WHERE NOT EXISTS (SELECT FROM users AS u WHERE u.user_id = given.user_id)
        ORDER BY user_id LIMIT (SELECT {MAX_NOTED_UNKNOWN} - count FROM noted)
    )
)
INSERT INTO federation_partings AS p (origin, guild_id, user_id, due_at)
SELECT $1, $2, user_id, due_at FROM mistaken ORDER BY user_id
ON CONFLICT (origin, guild_id, user_id)
DO UPDATE SET due_at = greatest(p.due_at, EXCLUDED.due_at) + interval '1 millisecond'
"""
UPDATE_CHANNEL = "UPDATE channels SET name = $3, topic = $4, position = $5 WHERE channel_id = $1 AND guild_id = $2"
# Invites of a guild that this server has handed over, which lead to the new owner.
INVITES = "SELECT code FROM invites WHERE guild_id = $1"
END_INVITE = "DELETE FROM invites WHERE code = $1"
OF_GUILD = "SELECT EXISTS (SELECT FROM channels WHERE channel_id = $1 AND guild_id = $2)"
EXISTS = "SELECT EXISTS (SELECT FROM logs WHERE log_id = $1)"


class GuildMirror:
    """The mirror of a guild. `know_members` comes first, then `apply` for each event in order, then `tell`."""

    def __init__(self, tx: Transaction, origin: str, guild_id: str) -> None:
        self._tx = tx
        self._connection = tx.connection
        self._origin = origin
        self._guild_id = guild_id
        self._changes: list[Change] = []  # for the logs of users
        self._records: list[GuildControl] = []
        self._mistaken: dict[
            str, int
        ] = {}  # users of this server that the owner lists as members although they are not, with the event's time
        self.lost_members = False  # whether a member has left or was removed

    async def know_members(self, told: Iterable[tuple[MirroredEvent, object]]) -> None:
        """Store the names of all joining users, in one statement, so that deliveries of several guilds lock users in one order."""
        joining = {
            content.user_id: (event.at_ms, member_of(event, content))
            for event, content in told
            if isinstance(content, MemberJoinedContent)
        }
        if joining:
            now_ms = max(at_ms for at_ms, _ in joining.values())
            await know_users(self._tx, self._origin, [member for _, member in joining.values()], now_ms)

    async def apply(self, event: MirroredEvent, content: object) -> None:
        """Apply one event. Unknown content changes nothing."""
        connection, guild_id = self._connection, self._guild_id
        match content:
            case GuildUpdatedContent(name=name):
                await connection.execute("UPDATE guilds SET name = $2 WHERE guild_id = $1", guild_id, name)
            case GuildSuccessorSetContent(serial=serial):
                await connection.execute(RAISE_SERIAL, guild_id, serial)
            case ChannelCreatedContent():
                await self._add_channel(event, content)
            case ChannelUpdatedContent() as now:
                await connection.execute(UPDATE_CHANNEL, now.channel_id, guild_id, now.name, now.topic, now.position)
            case ChannelDeletedContent(channel_id=channel_id):
                await self._drop_channel(channel_id)
            case ChannelRoleSetContent(channel_id=channel_id, user_id=user_id, role=role):
                if await connection.fetchval(OF_GUILD, channel_id, guild_id):
                    await connection.execute(ADD_ROLES, [channel_id], [user_id], [role], moment(event.at_ms))
                    self._record(ControlKind.ACCESS_CHANGED, channel_id=channel_id, user_id=user_id)
            case MemberJoinedContent():
                await self._join(event, content)
            case MemberRoleSetContent(user_id=user_id, role=role):
                held = await connection.fetchval(ROLE, guild_id, user_id)
                if held is not None:
                    await connection.execute(SET_ROLE, guild_id, user_id, role)
                    await end_lost_rights(self._tx, guild_id, user_id, held, role)
                    self._record(ControlKind.MEMBER_CHANGED, user_id=user_id)
            case InviteDeletedContent(invite_id=ended):
                for row in await connection.fetch(INVITES, guild_id):
                    if invite_id(row["code"]) == ended:
                        await connection.execute(END_INVITE, row["code"])
            case MemberTimedOutContent(user_id=user_id, until=until):
                await self._time_out(user_id, until)
            case MemberLeftContent(user_id=user_id):
                await self._leave(event, user_id, removed=False, reason=None)
            case MemberRemovedContent(user_id=user_id, reason=reason):
                await self._leave(event, user_id, removed=True, reason=reason)
            case MemberBannedContent():
                await self._ban(event, content)
            case MemberUnbannedContent(user_id=user_id):
                await end_ban(connection, guild_id, user_id)

    async def _time_out(self, user_id: str, until: str | None) -> None:
        if await self._connection.fetchval(ROLE, self._guild_id, user_id) is None:  # the owner may name any user
            return
        if until is None:
            await drop_timeout(self._connection, self._guild_id, user_id)
        else:
            await keep_timeout(self._connection, self._guild_id, user_id, to_millis(until) or 0)
        self._record(ControlKind.MEMBER_CHANGED, user_id=user_id)

    async def _add_channel(self, event: MirroredEvent, made: ChannelCreatedContent) -> None:
        if await self._connection.fetchval(EXISTS, made.channel_id):
            return
        is_user = parse_uuid(event.sender_id) == event.sender_id
        held = await self._connection.fetchval(ROLE, self._guild_id, event.sender_id) if is_user else None
        role = creator_role(held)
        roles = {event.sender_id: role} if role is not None else {}
        line = MirroredChannel(made.channel_id, made.name, event.at_ms, 1, 0, 0, made.topic, made.position, roles)
        await add_channels(self._tx, self._origin, self._guild_id, [line])
        await add_roles(self._tx, [line])
        record = ChannelRecord(
            made.channel_id, self._guild_id, made.name, event.at_ms, made.topic, made.position, 1, self._origin, 0
        )
        self._record(ControlKind.CHANNEL_CREATED, channel_id=made.channel_id, body=channel_body(record))

    async def _drop_channel(self, channel_id: str) -> None:
        if not await self._connection.fetchval(OF_GUILD, channel_id, self._guild_id):
            return
        await self._connection.execute(HOLD_LOGS, [channel_id])
        await self._connection.execute("DELETE FROM channels WHERE channel_id = $1", channel_id)
        await self._connection.execute("DELETE FROM federation_mirrors WHERE log_id = $1", channel_id)
        await end_logs(self._tx, [channel_id])
        self._record(ControlKind.CHANNEL_DELETED, channel_id=channel_id)

    async def _join(self, event: MirroredEvent, joined: MemberJoinedContent) -> None:
        """Add a remote member.

        Users of this server join by their own request only (`StoreMirror`). If the guild names others, the owner is informed.
        """
        home = home_of(self._tx.server_name, self._origin, joined.origin)
        if home is None:
            if await self._connection.fetchval(ROLE, self._guild_id, joined.user_id) is None:
                self._mistaken[joined.user_id] = event.at_ms
            return
        status = await self._connection.execute(
            JOIN, self._guild_id, joined.user_id, joined.role, moment(event.at_ms), home
        )
        if rows_changed(status):
            await keep_timeouts(self._connection, self._guild_id, [member_of(event, joined)])
            self._record(ControlKind.MEMBER_JOINED, user_id=joined.user_id)

    async def _leave(self, event: MirroredEvent, user_id: str, *, removed: bool, reason: str | None) -> None:
        held = await self._connection.fetchval(LEAVE, self._guild_id, user_id)
        if held is None:
            return
        self.lost_members = True
        await end_lost_rights(self._tx, self._guild_id, user_id, held, None)
        if await self._connection.fetchval("SELECT origin IS NULL FROM users WHERE user_id = $1", user_id):
            entries = left_guild(self._guild_id, user_id, removed=removed, reason=reason)
            self._changes.append((entries, event.sender_id, event.at_ms))
        self._record(ControlKind.MEMBER_REMOVED, user_id=user_id)

    async def _ban(self, event: MirroredEvent, content: MemberBannedContent) -> None:
        ban = ban_told(event, content)
        if ban is not None:
            await mirror_ban(self._connection, self._guild_id, ban)
            held = await self._connection.fetchval(ROLE, self._guild_id, ban.user_id)
            if held is None:
                await end_lost_rights(self._tx, self._guild_id, ban.user_id, None, None)
                self._record(ControlKind.ACCESS_CHANGED, user_id=ban.user_id)

    async def has_own_members(self) -> bool:
        """Return whether a user of this server is a member."""
        found: bool = await self._connection.fetchval(HAS_OWN_MEMBERS, self._guild_id)
        return found

    async def tell(self) -> None:
        """Note mistaken members, append to the logs of this server's users, then to the control log."""
        if self._mistaken:
            due = [moment(at_ms) for at_ms in self._mistaken.values()]
            await self._connection.execute(NOTE_MISTAKEN, self._origin, self._guild_id, list(self._mistaken), due)
        await self._tx.append_each(self._changes)
        await self._tx.log_of_guild(self._guild_id, self._records)

    def _record(self, kind: ControlKind, **members: Any) -> None:
        self._records.append(GuildControl(kind, **members))


def member_of(event: MirroredEvent, joined: MemberJoinedContent) -> MirroredMember:
    """Return the member who joined with the event."""
    until_ms = to_millis(joined.timed_out_until) if joined.timed_out_until is not None else None
    return MirroredMember(
        joined.user_id, joined.username, joined.role, event.at_ms, joined.display_name, joined.origin, until_ms
    )
