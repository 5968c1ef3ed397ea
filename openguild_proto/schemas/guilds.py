"""Bodies of guilds, members, invites and channels (CONTRACT 6, A1)."""

from __future__ import annotations

from openguild_proto.records import ChannelRecord, GuildRecord, InviteRecord, MemberRecord
from openguild_proto.schemas.accounts import Body
from openguild_proto.timestamps import from_millis


class Name(Body, frozen=True):
    name: str


class Guild(Body, frozen=True):
    guild_id: str
    name: str
    created_at: str

    @classmethod
    def of(cls, record: GuildRecord) -> Guild:
        return cls(record.guild_id, record.name, from_millis(record.created_at_ms))


class Channel(Body, frozen=True):
    channel_id: str
    guild_id: str
    name: str
    created_at: str

    @classmethod
    def of(cls, record: ChannelRecord) -> Channel:
        return cls(record.channel_id, record.guild_id, record.name, from_millis(record.created_at_ms))


class RoleBody(Body, frozen=True):
    role: str


class Member(Body, frozen=True):
    guild_id: str
    user_id: str
    username: str
    role: str
    joined_at: str

    @classmethod
    def of(cls, record: MemberRecord) -> Member:
        return cls(record.guild_id, record.user_id, record.username, record.role, from_millis(record.joined_at_ms))


class NewInvite(Body, frozen=True):
    max_uses: int | None = None
    expires_in_secs: int | None = None


class Invite(Body, frozen=True, omit_defaults=False):
    code: str
    guild_id: str
    max_uses: int | None
    uses: int
    expires_at: str | None
    created_by: str

    @classmethod
    def of(cls, record: InviteRecord) -> Invite:
        expires_at = from_millis(record.expires_at_ms) if record.expires_at_ms is not None else None
        return cls(record.code, record.guild_id, record.max_uses, record.uses, expires_at, record.created_by)


class InvitePreview(Body, frozen=True, omit_defaults=False):
    code: str
    guild_id: str
    guild_name: str
    member_count: int
    max_uses: int | None
    uses: int
    expires_at: str | None
    created_by: str

    @classmethod
    def of(cls, record: InviteRecord) -> InvitePreview:
        line = Invite.of(record)
        return cls(
            line.code,
            line.guild_id,
            record.guild_name,
            record.member_count,
            line.max_uses,
            line.uses,
            line.expires_at,
            line.created_by,
        )
