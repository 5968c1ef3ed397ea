"""Decides what a creation with an idempotency key is: the first request, its repeat, or another one (PROTOCOL 3.8).

Both stores call it with the key locked, in the transaction of the creation.
"""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import KEPT_ANSWER_SECS
from openguild_proto.records import Record


class Once(Record, frozen=True):
    """Asks for a creation exactly once: the author's key, and a hash of the content that a repeat must have in common."""

    key: str
    fingerprint: bytes  # 32 bytes


class KeptAnswer(NamedTuple):
    """The result of a creation, under the key of its author. `answer`: the record that its effect returned, as JSON."""

    fingerprint: bytes
    answer: bytes
    at_ms: int


def decide_repeat(kept: KeptAnswer | None, once: Once, *, now_ms: int) -> bytes | None:
    """Return the answer to the first request, or None if this is the first. Raises Refusal 409 for a different request."""
    if kept is None or kept.at_ms <= forgotten_until(now_ms):
        return None
    if kept.fingerprint != once.fingerprint:
        raise Refusal(ErrorCode.NONCE_REUSED)
    return kept.answer


def forgotten_until(now_ms: int) -> int:
    """Return the time up to which kept answers are forgotten, ms."""
    return now_ms - KEPT_ANSWER_SECS * 1_000
