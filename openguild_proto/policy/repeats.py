"""Decides whether a creation with an idempotency key is the first request, a repeat, or another request (PROTOCOL 3.8).

Both stores call it with the key locked, in the transaction of the creation.
"""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import KEPT_ANSWER_SECS
from openguild_proto.records import Record


class IdempotencyKey(Record, frozen=True):
    """An idempotency key of the author, and a hash of the values that a repeat must share with the first request."""

    key: str
    fingerprint: bytes  # 32 bytes


class KeptAnswer(NamedTuple):
    """The stored result of a creation. `answer`: the record that its effect returned, as JSON."""

    fingerprint: bytes
    answer: bytes
    at_ms: int


def decide_repeat(kept: KeptAnswer | None, once: IdempotencyKey, *, now_ms: int) -> bytes | None:
    """Return the result of the first request, or None if this is the first. Raises Refusal 409 for another request."""
    if kept is None or kept.at_ms <= forgotten_until(now_ms):
        return None
    if kept.fingerprint != once.fingerprint:
        raise Refusal(ErrorCode.NONCE_REUSED)
    return kept.answer


def forgotten_until(now_ms: int) -> int:
    """Return the time up to which stored results have expired, in ms."""
    return now_ms - KEPT_ANSWER_SECS * 1_000
