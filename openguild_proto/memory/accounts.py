"""Users, server roles, sessions and refresh families in memory."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from openguild_proto.effects.accounts import (
    ChangePassword,
    DescribeUser,
    FindRefreshFamily,
    FindSession,
    FindUser,
    FindUserByName,
    FindUsernames,
    InsertUser,
    ListDevices,
    ListSessionAddresses,
    OpenSession,
    RevokeDevice,
    RevokeRefresh,
    RotateRefresh,
    SetDisplayName,
    SetPassword,
)
from openguild_proto.effects.performs import performs
from openguild_proto.effects.roles import GrantServerRole, RevokeServerRole
from openguild_proto.limits import MAX_SESSIONS_PER_RECORD
from openguild_proto.memory.authority import require_author
from openguild_proto.memory.state import Channel, Family, Membership, Session, State
from openguild_proto.policy.logins import Login, decide_login, is_alive
from openguild_proto.policy.permissions import Permission, sufficient_guild_roles
from openguild_proto.records import (
    ChannelMembership,
    ControlKind,
    DeviceRecord,
    GuildMembership,
    RefreshFamily,
    ReusedRefresh,
    RotatedRefresh,
    SessionRecord,
    UserProfile,
    UserRecord,
)
from openguild_proto.schemas.log_entries import invites_ended, logged_in, logged_out, profile_updated
from openguild_proto.sessions.refresh import Rotation, decide_rotation


@performs(InsertUser)
def insert_user(state: State, effect: InsertUser) -> bool:
    if effect.username_key in state.user_ids:
        return False
    state.user_ids[effect.username_key] = effect.user_id
    state.users[effect.user_id] = UserRecord(
        user_id=effect.user_id,
        username=effect.username,
        password_hash=effect.password_hash,
        created_at_ms=effect.now_ms,
        updated_at_ms=effect.now_ms,
    )
    state.logs[effect.user_id] = []
    return True


@performs(SetDisplayName)
def set_display_name(state: State, effect: SetDisplayName) -> UserRecord:
    require_author(state, effect.author)
    before = state.users[effect.author.user_id]
    if before.display_name == effect.display_name:
        return before
    after = replace(before, display_name=effect.display_name, updated_at_ms=effect.now_ms)
    state.users[after.user_id] = after
    state.append(profile_updated(after), sender=after.user_id, now_ms=effect.now_ms)
    return after


@performs(FindUser)
def find_user(state: State, effect: FindUser) -> UserRecord | None:
    return state.users.get(effect.user_id)


@performs(FindUserByName)
def find_user_by_name(state: State, effect: FindUserByName) -> UserRecord | None:
    user_id = state.user_ids.get(effect.username_key)
    return state.users[user_id] if user_id is not None else None


@performs(FindUsernames)
def find_usernames(state: State, effect: FindUsernames) -> dict[str, str]:
    return {user_id: state.users[user_id].username for user_id in effect.user_ids if user_id in state.users}


@performs(DescribeUser)
def describe_user(state: State, effect: DescribeUser) -> UserProfile | None:
    user = state.users.get(effect.user_id)
    if user is None:
        return None
    guilds = sorted(
        (guild for guild in state.guilds.values() if effect.user_id in state.members[guild.guild_id]),
        key=lambda guild: (guild.created_at_ms, guild.guild_id),
    )
    channels = sorted(
        (_membership(state, channel, effect.user_id) for channel in state.channels_seen_by(effect.user_id)),
        key=lambda line: (line.joined_at_ms, line.channel_id),
    )
    return UserProfile(
        user=user,
        server_roles=state.roles_of(effect.user_id),
        guilds=tuple(
            GuildMembership(
                guild_id=guild.guild_id,
                name=guild.name,
                role=state.members[guild.guild_id][effect.user_id].role,
                joined_at_ms=state.members[guild.guild_id][effect.user_id].joined_at_ms,
            )
            for guild in guilds
        ),
        channels=tuple(channels[: effect.limit]),
        place=state.place_of(effect.user_id),
    )


def _membership(state: State, channel: Channel, user_id: str) -> ChannelMembership:
    """Return the membership in a channel: by a role in it, else by the guild since both existed."""
    record = channel.record
    own = channel.roles.get(user_id)
    if own is None:
        member = state.members[record.guild_id][user_id]
        own = Membership(member.role, max(member.joined_at_ms, record.created_at_ms))
    return ChannelMembership(
        channel_id=record.channel_id,
        guild_id=record.guild_id,
        name=record.name,
        role=own.role,
        joined_at_ms=own.joined_at_ms,
    )


@performs(GrantServerRole)
def grant_server_role(state: State, effect: GrantServerRole) -> None:
    if effect.user_id in state.users:
        state.server_roles.setdefault(effect.user_id, {}).setdefault(effect.role, effect.now_ms)
        state.log(ControlKind.ACCESS_CHANGED, user_id=effect.user_id)


@performs(RevokeServerRole)
def revoke_server_role(state: State, effect: RevokeServerRole) -> bool:
    if state.server_roles.get(effect.user_id, {}).pop(effect.role, None) is None:
        return False
    enough = sufficient_guild_roles(state.roles_of(effect.user_id), Permission.CREATE_INVITES)
    if enough is not None:
        end_invites_of(state, effect.user_id, enough, effect.now_ms, sender=None)
    state.log(ControlKind.ACCESS_CHANGED, user_id=effect.user_id)
    return True


def end_invites_of(state: State, user_id: str, enough: Sequence[str], now_ms: int, *, sender: str | None) -> None:
    """Delete the user's invites to guilds in which they have none of the roles `enough`."""
    for code, invite in list(state.invites.items()):
        if invite.created_by == user_id and state.guild_role(invite.guild_id, user_id) not in enough:
            del state.invites[code]
            if state.guilds[invite.guild_id].origin is None:  # the log of a mirrored guild is its owner's
                state.append(invites_ended(invite.guild_id, [code]), sender=sender, now_ms=now_ms)


# --- sessions ------------------------------------------------------------------------------------


@performs(OpenSession)
def open_session(state: State, effect: OpenSession) -> bool:
    user = state.users.get(effect.user_id)
    if user is None or user.password_hash != effect.checked_hash:
        return False
    prune_user(state, effect.user_id, effect.now_ms)
    logins = [
        Login(family.family_id, family.device_id, family.last_seen_at_ms, family.expires_at_ms)
        for family in state.families.values()
        if family.user_id == effect.user_id and not family.revoked
    ]
    ended = decide_login(logins, device_id=effect.device_id, now_ms=effect.now_ms, limit=effect.limit)
    former = [state.families[family_id] for family_id in ended]
    _revoke(state, effect.user_id, former, effect.now_ms, kept=effect.device_id, sender=effect.user_id)
    entries = logged_in(effect.user_id, effect.device_id, effect.device_name)
    state.append(entries, sender=effect.user_id, now_ms=effect.now_ms)
    state.families[effect.family_id] = Family(
        family_id=effect.family_id,
        user_id=effect.user_id,
        device_id=effect.device_id,
        device_name=effect.device_name,
        user_agent=effect.user_agent,
        ip_address=effect.ip_address,
        last_seen_at_ms=effect.now_ms,
        expires_at_ms=effect.refresh_expires_ms,
        current_hash=effect.refresh_hash,
        secret=effect.refresh_secret,
    )
    state.refresh_tokens[effect.refresh_hash] = (effect.family_id, effect.refresh_expires_ms)
    state.sessions[effect.session_id] = Session(
        effect.session_id, effect.family_id, effect.user_id, effect.access_expires_ms
    )
    return True


@performs(ChangePassword)
def change_password(state: State, effect: ChangePassword) -> bool:
    author = effect.author
    require_author(state, author)
    user = state.users[author.user_id]
    if user.password_hash != effect.checked_hash:
        return False
    session = state.sessions.get(author.session_id or "")
    _store_password(state, user, effect.password_hash, effect.now_ms)
    others = _living(state, author.user_id, effect.now_ms, kept=session.family_id if session is not None else None)
    _revoke(state, author.user_id, others, effect.now_ms, sender=author.user_id)
    return True


@performs(SetPassword)
def set_password(state: State, effect: SetPassword) -> int | None:
    user = state.users.get(effect.user_id)
    if user is None or user.origin is not None:
        return None
    _store_password(state, user, effect.password_hash, effect.now_ms)
    families = _living(state, effect.user_id, effect.now_ms)
    _revoke(state, effect.user_id, families, effect.now_ms, sender=None)
    return len(families)


def _store_password(state: State, user: UserRecord, password_hash: str, now_ms: int) -> None:
    state.users[user.user_id] = replace(user, password_hash=password_hash, updated_at_ms=now_ms)


def _living(state: State, user_id: str, now_ms: int, kept: str | None = None) -> list[Family]:
    """Return the user's active families except `kept`."""
    living = [family for family in state.families.values() if _is_alive(family, user_id, now_ms)]
    return [family for family in living if family.family_id != kept]


@performs(FindSession)
def find_session(state: State, effect: FindSession) -> SessionRecord | None:
    session = state.sessions.get(effect.session_id)
    if session is None:
        return None
    user = state.users.get(session.user_id)
    return SessionRecord(
        session_id=session.session_id,
        user_id=session.user_id,
        username=user.username if user is not None else None,
        revoked=state.families[session.family_id].revoked,
    )


@performs(FindRefreshFamily)
def find_refresh_family(state: State, effect: FindRefreshFamily) -> RefreshFamily | None:
    family = _family_of(state, effect.refresh_hash, effect.now_ms)
    if family is None or not _is_alive(family, family.user_id, effect.now_ms):
        return None
    return RefreshFamily(user_id=family.user_id, secret=family.secret)


@performs(RotateRefresh)
def rotate_refresh(state: State, effect: RotateRefresh) -> RotatedRefresh | ReusedRefresh | None:
    family = _family_of(state, effect.refresh_hash, effect.now_ms)
    if family is None:
        return None
    decision = decide_rotation(
        presented=effect.refresh_hash,
        current=family.current_hash,
        previous=family.previous_hash,
        rotated_at_ms=family.rotated_at_ms,
        revoked=family.revoked,
        expires_at_ms=family.expires_at_ms,
        now_ms=effect.now_ms,
        grace_ms=effect.grace_ms,
    )
    match decision:
        case Rotation.DEAD:
            return None
        case Rotation.REUSED:
            _revoke(state, family.user_id, [family], effect.now_ms, sender=family.user_id)
            return ReusedRefresh(user_id=family.user_id, family_id=family.family_id)
        case Rotation.ROTATE | Rotation.GRACE:
            prune_user(state, family.user_id, effect.now_ms)
            family.previous_hash = effect.refresh_hash
            family.current_hash = effect.new_refresh_hash
            if decision is Rotation.ROTATE:
                family.rotated_at_ms = effect.now_ms
            family.last_seen_at_ms = effect.now_ms
            family.expires_at_ms = effect.refresh_expires_ms
            state.refresh_tokens[effect.new_refresh_hash] = (family.family_id, effect.refresh_expires_ms)
            state.sessions[effect.new_session_id] = Session(
                effect.new_session_id, family.family_id, family.user_id, effect.access_expires_ms
            )
            return RotatedRefresh(user_id=family.user_id, username=state.users[family.user_id].username)


@performs(RevokeRefresh)
def revoke_refresh(state: State, effect: RevokeRefresh) -> bool:
    family = _family_of(state, effect.refresh_hash, effect.now_ms)
    if family is None or not _is_alive(family, family.user_id, effect.now_ms):
        return False
    _revoke(state, family.user_id, [family], effect.now_ms, sender=family.user_id)
    return True


@performs(ListDevices)
def list_devices(state: State, effect: ListDevices) -> tuple[DeviceRecord, ...]:
    alive = _living(state, effect.user_id, effect.now_ms)
    alive.sort(key=lambda family: (-family.last_seen_at_ms, family.device_id))
    return tuple(
        DeviceRecord(
            device_id=family.device_id,
            device_name=family.device_name,
            last_seen_at_ms=family.last_seen_at_ms,
            ip_address=family.ip_address,
            user_agent=family.user_agent,
        )
        for family in alive[: effect.limit]
    )


@performs(ListSessionAddresses)
def list_session_addresses(state: State, effect: ListSessionAddresses) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    for family in state.families.values():
        if _is_alive(family, effect.user_id, effect.now_ms) and family.ip_address is not None:
            seen[family.ip_address] = max(family.last_seen_at_ms, seen.get(family.ip_address, 0))
    return tuple(sorted(seen, key=lambda address: (-seen[address], address))[: effect.limit])


@performs(RevokeDevice)
def revoke_device(state: State, effect: RevokeDevice) -> bool:
    user_id = effect.author.user_id
    require_author(state, effect.author)
    families = [family for family in _living(state, user_id, effect.now_ms) if family.device_id == effect.device_id]
    _revoke(state, user_id, families, effect.now_ms, sender=user_id)
    return bool(families)


def _is_alive(family: Family, user_id: str, now_ms: int) -> bool:
    living = is_alive(revoked=family.revoked, expires_at_ms=family.expires_at_ms, now_ms=now_ms)
    return living and family.user_id == user_id


def _family_of(state: State, refresh_hash: bytes, now_ms: int) -> Family | None:
    family_id, expires_at_ms = state.refresh_tokens.get(refresh_hash, ("", 0))
    return state.families.get(family_id) if expires_at_ms > now_ms else None


def _revoke(
    state: State, user_id: str, families: list[Family], now_ms: int, *, sender: str | None, kept: str | None = None
) -> None:
    """Revoke the families, and log their sessions with an unexpired access token for the replicas.

    `sender`: the user who ended them; None: the operator. `kept`: a device that has another family.
    """
    ended = set()
    for family in families:
        family.revoked = True
        ended.add(family.family_id)
    gone = {family.device_id for family in families if family.device_id != kept}
    state.append(logged_out(user_id, gone), sender=sender, now_ms=now_ms)
    session_ids = sorted(
        session.session_id
        for session in state.sessions.values()
        if session.family_id in ended and session.expires_at_ms > now_ms
    )
    for start in range(0, len(session_ids), MAX_SESSIONS_PER_RECORD):
        some = session_ids[start : start + MAX_SESSIONS_PER_RECORD]
        state.log(ControlKind.SESSIONS_REVOKED, user_id=user_id, session_ids=some)


def prune_user(state: State, user_id: str, now_ms: int) -> None:
    """Delete the expired sessions, tokens and families of one user (PROTOCOL 11.6.3)."""
    for session in [s for s in state.sessions.values() if s.user_id == user_id and s.expires_at_ms <= now_ms]:
        del state.sessions[session.session_id]
    for refresh_hash, (family_id, expires_at_ms) in list(state.refresh_tokens.items()):
        if state.families[family_id].user_id == user_id and expires_at_ms <= now_ms:
            del state.refresh_tokens[refresh_hash]
    for family in [f for f in state.families.values() if f.user_id == user_id and f.expires_at_ms <= now_ms]:
        if not any(session.family_id == family.family_id for session in state.sessions.values()):
            del state.families[family.family_id]
