"""The values of metric labels, and the names of a bus's series."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.errors import ErrorCode
from openguild_proto.federation.faults import Fault
from openguild_proto.sessions.tokens import TokenProblem

OUTCOMES = ("delivered", "no_subscribers", "dropped")
REASONS = frozenset(code.spec.reason for code in ErrorCode if code.spec.reason is not None) | {
    "channel_name_empty", "channel_name_length", "guild_name_empty", "guild_name_length", "message_empty", "message_length",
    "refresh_token_reused", "connection_limit", "malformed_frame", "frame_rate_limit", "slow_reader", "slow_body", "ping_timeout",
    "write_timeout", "frame_timeout", *(f"signature_{fault.value}" for fault in Fault),
}  # exported as 0 from the start, because `increase()` misses the first value of a series  # fmt: skip

NOT_AUTHENTICATED = (*(problem.value for problem in TokenProblem), "unknown_user", "wrong_password")
"""The causes of a 401, for log and metrics. They are not shown to the caller."""


class BusSeries(NamedTuple):
    """The prefix of a bus's series: `openguild_<prefix>_...`."""

    prefix: str
    title: str  # in texts for operators
    setting: str  # the configuration key that chooses the bus
    faults: tuple[str, ...]  # kinds


NATS_FAULTS = (
    "unreachable", "silent", "garbage", "closed", "refused", "credentials_file", "tls", "subscriptions", "payload", "behind",
    "shutdown", "expired", "late", "connections", "slow", "denied", "moved",
)  # the kinds of openguild_proto/bus/nats.py  # fmt: skip
NATS_SERIES = BusSeries("nats", "NATS", "nats.url", NATS_FAULTS)
