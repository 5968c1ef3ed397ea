"""Deletes expired rows in small batches, as PostgreSQL does."""

from __future__ import annotations

from itertools import islice

from openguild_proto.effects.performs import performs
from openguild_proto.effects.retention import PruneExpired, PurgeDeleted
from openguild_proto.memory.accounts import prune_user
from openguild_proto.memory.state import State


@performs(PruneExpired)
def prune_expired(state: State, effect: PruneExpired) -> bool:
    for user_id in sorted(user_id for user_id in state.users if user_id >= effect.from_user)[: effect.limit]:
        prune_user(state, user_id, effect.now_ms)
    return any([_prune_control(state, effect), _prune_attempts(state, effect), _prune_answers(state, effect)])


def _prune_control(state: State, effect: PruneExpired) -> bool:
    """Delete old control records. Records have no time here, but each is at least as old as a run that found it."""
    old = [head for at_ms, head in state.control_marks if at_ms < effect.control_before_ms]
    dropped = min(effect.limit, max(old, default=0) - state.control_pruned)
    if dropped > 0:
        del state.control[:dropped]
        state.control_pruned += dropped
    state.control_marks = [mark for mark in state.control_marks if mark[1] > state.control_pruned]
    state.control_marks.append((effect.now_ms, state.control_head))
    return dropped == effect.limit


def _prune_attempts(state: State, effect: PruneExpired) -> bool:
    old = (digest for digest, bins in state.attempts.items() if max(bins, default=0) < effect.attempts_before_ms)
    digests = list(islice(old, effect.limit))
    for digest in digests:
        del state.attempts[digest]
    return len(digests) == effect.limit


def _prune_answers(state: State, effect: PruneExpired) -> bool:
    old = (
        (user_id, key)
        for user_id, kept in state.answers.items()
        for key, answer in kept.items()
        if answer.at_ms < effect.answers_before_ms
    )
    dropped = list(islice(old, effect.limit))
    for user_id, key in dropped:
        del state.answers[user_id][key]
    return len(dropped) == effect.limit


@performs(PurgeDeleted)
def purge_deleted(state: State, effect: PurgeDeleted) -> bool:
    del state, effect
    return False  # deleted logs are removed at once here
