"""Stored results of creations with an idempotency key, as in PostgreSQL."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from openguild_proto.limits import MAX_KEPT_ANSWERS
from openguild_proto.memory.state import State
from openguild_proto.policy.repeats import IdempotencyKey, KeptAnswer, decide_repeat
from openguild_proto.records import Author, Record

R = TypeVar("R", bound=Record)


def find_repeat(state: State, author: Author, once: IdempotencyKey | None, kind: type[R], now_ms: int) -> R | None:
    """Return the result of the first request with this key, or None if this is the first. Raises Refusal 409 for another one."""
    if once is None:
        return None
    answer = decide_repeat(state.answers.get(author.user_id, {}).get(once.key), once, now_ms=now_ms)
    return msgspec.json.decode(answer, type=kind) if answer is not None else None


def keep_answer(state: State, author: Author, once: IdempotencyKey | None, answer: Record, now_ms: int) -> None:
    """Store the result for repeats of the request."""
    if once is None:
        return
    kept = state.answers.setdefault(author.user_id, {})
    kept.pop(once.key, None)
    kept[once.key] = KeptAnswer(once.fingerprint, msgspec.json.encode(answer), now_ms)
    newest_first = sorted(kept, key=lambda key: (-kept[key].at_ms, key))
    for key in newest_first[MAX_KEPT_ANSWERS:]:
        del kept[key]
