"""Pending leaves in memory: users who are not members of a mirrored guild, while its owner may count them as such."""

from __future__ import annotations

from openguild_proto.effects.mirrors import (
    KEPT_MS,
    TOLD_MS,
    ClaimPendingLeave,
    EndPendingLeave,
    FindNextMirror,
    FindPendingLeaves,
    LeaveMirror,
    NoteMistaken,
    NotePendingLeave,
    PendingLeave,
)
from openguild_proto.effects.performs import performs
from openguild_proto.memory.guilds import end_lost_rights
from openguild_proto.memory.mirrors import drop, note_mistaken
from openguild_proto.memory.state import State
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.policy.account_deletion import DELETED_USERNAME
from openguild_proto.policy.members import OWNER, decide_removal
from openguild_proto.records import ControlKind, MemberChange
from openguild_proto.schemas.log_entries import left_guild


@performs(LeaveMirror)
def leave_mirror(state: State, effect: LeaveMirror) -> MemberChange:
    guild_id, user_id = effect.guild_id, effect.user_id
    guild = state.guilds.get(guild_id)
    if guild is None or guild.origin != effect.origin:
        return MemberChange.NOT_MEMBER
    members = state.members[guild_id]
    owners = sum(member.role == OWNER for member in members.values())
    held = members[user_id].role if user_id in members else None
    change = decide_removal(author_role=None, held=held, owners=owners, even_last=effect.even_last)
    if change is not MemberChange.DONE:
        return change
    end_lost_rights(state, guild_id, user_id, held, None)
    del members[user_id]
    _forget(state, effect.now_ms)
    state.pending_leaves[effect.origin, guild_id, user_id] = effect.now_ms
    state.append(left_guild(guild_id, user_id, removed=False, reason=None), sender=user_id, now_ms=effect.now_ms)
    if any(state.users[member].origin is None for member in members):
        state.log(ControlKind.MEMBER_REMOVED, guild_id=guild_id, user_id=user_id)
    else:
        drop(state, guild_id)
    return MemberChange.DONE


def _forget(state: State, due_ms: int) -> None:
    """Delete the pending leaves of owners that have been silent for too long."""
    state.pending_leaves = {
        key: known_ms for key, known_ms in state.pending_leaves.items() if known_ms >= due_ms - KEPT_MS
    }


@performs(NotePendingLeave)
def note_pending_leave(state: State, effect: NotePendingLeave) -> bool | None:
    key = effect.origin, effect.guild_id, effect.user_id
    known_ms = state.pending_leaves.get(key)
    if known_ms is not None and effect.now_ms is not None and 0 < known_ms - effect.now_ms <= TOLD_MS:
        return None
    _forget(state, effect.due_ms)
    state.pending_leaves[key] = effect.due_ms
    return known_ms is None


@performs(ClaimPendingLeave)
def claim_pending_leave(state: State, effect: ClaimPendingLeave) -> bool:
    key = effect.origin, effect.pending.guild_id, effect.pending.user.user_id
    if state.pending_leaves.get(key) != effect.pending.due_ms:
        return False
    state.pending_leaves[key] = effect.now_ms + TOLD_MS
    return True


@performs(NoteMistaken)
def note_each_mistaken(state: State, effect: NoteMistaken) -> None:
    for user_id in sorted(set(effect.user_ids)):
        note_mistaken(state, effect.origin, effect.guild_id, user_id, effect.now_ms)


@performs(FindPendingLeaves)
def find_pending_leaves(state: State, effect: FindPendingLeaves) -> tuple[PendingLeave, ...]:
    due = [
        PendingLeave(guild_id, _known_as(state, user_id), due_ms)
        for (origin, guild_id, user_id), due_ms in sorted(state.pending_leaves.items())
        if origin == effect.origin and due_ms <= effect.now_ms and user_id not in state.members.get(guild_id, {})
    ]
    return tuple(due[: effect.limit])


def _known_as(state: State, user_id: str) -> RemoteUser:
    user = state.users.get(user_id)
    return (
        RemoteUser(user_id, user.username, user.display_name)
        if user is not None
        else RemoteUser(user_id, DELETED_USERNAME)
    )


@performs(EndPendingLeave)
def end_pending_leave(state: State, effect: EndPendingLeave) -> None:
    key = effect.origin, effect.pending.guild_id, effect.pending.user.user_id
    if state.pending_leaves.get(key) == effect.pending.due_ms:
        del state.pending_leaves[key]


@performs(FindNextMirror)
def find_next_mirror(state: State, effect: FindNextMirror) -> str | None:
    ids = (guild_id for guild_id, guild in state.guilds.items() if guild.origin == effect.origin)
    return min((guild_id for guild_id in ids if effect.past is None or guild_id > effect.past), default=None)
