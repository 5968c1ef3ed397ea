"""Timeouts of members in memory. The store's clock is the newest time of an effect."""

from __future__ import annotations

from openguild_proto.effects.performs import performs
from openguild_proto.effects.timeouts import EndTimeout, TimeOutMember
from openguild_proto.memory.authority import require_in_guild
from openguild_proto.memory.state import State
from openguild_proto.policy.permissions import Permission
from openguild_proto.policy.timeouts import decide_timeout
from openguild_proto.records import ControlKind, MemberChange
from openguild_proto.schemas.log_entries import timed_out


@performs(TimeOutMember)
def time_out_member(state: State, effect: TimeOutMember) -> MemberChange:
    change = _decide(state, effect)
    if change is MemberChange.DONE:
        known = state.timeouts.get(effect.guild_id, {})
        lasting = {user_id: ends_ms for user_id, ends_ms in known.items() if ends_ms > state.now_ms}
        state.timeouts[effect.guild_id] = {**lasting, effect.user_id: effect.ends_ms}
        _tell(state, effect, effect.ends_ms)
    return change


@performs(EndTimeout)
def end_timeout(state: State, effect: EndTimeout) -> bool:
    if (
        _decide(state, effect) is not MemberChange.DONE
        or state.timed_out_until(effect.guild_id, effect.user_id) is None
    ):
        return False
    del state.timeouts[effect.guild_id][effect.user_id]
    _tell(state, effect, None)
    return True


def _decide(state: State, effect: TimeOutMember | EndTimeout) -> MemberChange:
    author_role = require_in_guild(state, effect.author, effect.guild_id, Permission.MANAGE_MEMBERS)
    return decide_timeout(author_role=author_role, held=state.guild_role(effect.guild_id, effect.user_id))


def _tell(state: State, effect: TimeOutMember | EndTimeout, until_ms: int | None) -> None:
    entries = timed_out(effect.guild_id, effect.user_id, until_ms, effect.reason)
    state.append(entries, sender=effect.author.user_id, now_ms=effect.now_ms)
    state.log(ControlKind.MEMBER_CHANGED, guild_id=effect.guild_id, user_id=effect.user_id)
