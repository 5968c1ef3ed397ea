"""Deletes accounts in memory."""

from __future__ import annotations

from itertools import islice

from openguild_proto.effects.accounts import DeleteAccount, ListOwnedAlone
from openguild_proto.effects.performs import performs
from openguild_proto.limits import MAX_SESSIONS_PER_RECORD
from openguild_proto.memory.accounts import end_invites_of
from openguild_proto.memory.authority import require_author
from openguild_proto.memory.state import State
from openguild_proto.policy.account_deletion import AccountDeletion, decide_account_deletion
from openguild_proto.policy.members import OWNER
from openguild_proto.records import ControlKind, GuildRecord


@performs(ListOwnedAlone)
def list_owned_alone(state: State, effect: ListOwnedAlone) -> tuple[GuildRecord, ...]:
    alone = [
        state.guilds[guild_id]
        for guild_id, members in state.members.items()
        if (effect.with_mirrored or state.guilds[guild_id].origin is None)
        and [user_id for user_id, member in members.items() if member.role == OWNER] == [effect.user_id]
    ]
    return tuple(islice(sorted(alone, key=lambda guild: (guild.created_at_ms, guild.guild_id)), effect.limit))


@performs(DeleteAccount)
def delete_account(state: State, effect: DeleteAccount) -> AccountDeletion:
    require_author(state, effect.author)
    user = state.users[effect.author.user_id]
    user_id = user.user_id
    guilds = sum(user_id in members for members in state.members.values())
    outcome = decide_account_deletion(stored_hash=user.password_hash, checked_hash=effect.checked_hash, guilds=guilds)
    if outcome is not AccountDeletion.DONE:
        return outcome
    end_invites_of(state, user_id, (), effect.now_ms, sender=user_id)
    session_ids = _end_sessions(state, user_id, effect.now_ms)
    for channel in state.channels.values():
        channel.roles.pop(user_id, None)
        channel.reads.pop(user_id, None)
    for timeouts in state.timeouts.values():
        timeouts.pop(user_id, None)
    for named in (state.server_roles, state.answers, state.logs, state.epochs, state.users):
        named.pop(user_id, None)
    state.user_ids = {key: known for key, known in state.user_ids.items() if known != user_id}
    for start in range(0, len(session_ids), MAX_SESSIONS_PER_RECORD):
        some = session_ids[start : start + MAX_SESSIONS_PER_RECORD]
        state.log(ControlKind.SESSIONS_REVOKED, user_id=user_id, session_ids=some)
    return outcome


def _end_sessions(state: State, user_id: str, now_ms: int) -> list[str]:
    """Delete the user's families with their tokens and sessions. Return the sessions with an unexpired access token."""
    ended = {family_id for family_id, family in state.families.items() if family.user_id == user_id}
    sessions = [session for session in state.sessions.values() if session.family_id in ended]
    for session in sessions:
        del state.sessions[session.session_id]
    state.refresh_tokens = {key: token for key, token in state.refresh_tokens.items() if token[0] not in ended}
    for family_id in ended:
        del state.families[family_id]
    return sorted(session.session_id for session in sessions if session.expires_at_ms > now_ms)
