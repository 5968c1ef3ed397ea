"""The close codes of a stream, their meanings, and whether a client should reconnect (PROTOCOL 8.9)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class CloseCode(IntEnum):
    """Close codes of RFC 6455 7.4.1; 1012 from the IANA registry; 44xx are OpenGuild's own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TOKEN_ENDED = 4401
    MEMBERSHIP_LOST = 4403
    CHANNEL_DELETED = 4404


class CloseRow(NamedTuple):
    """The row of a close code.

    `action`: "reconnect" (with backoff and `since`) or "terminal" (do not retry unchanged).
    """

    action: str
    meaning: str


CLOSE_CODES: dict[CloseCode, CloseRow] = {
    CloseCode.NORMAL: CloseRow("terminal", "the client asked to close"),
    CloseCode.GOING_AWAY: CloseRow("reconnect", "the peer is going away"),
    CloseCode.PROTOCOL_ERROR: CloseRow("terminal", "the client broke RFC 6455"),
    CloseCode.UNSUPPORTED_DATA: CloseRow(
        "terminal", "a kind of data that the peer does not accept: not sent by this server"
    ),
    CloseCode.INVALID_PAYLOAD: CloseRow("terminal", "a text message was not valid UTF-8"),
    CloseCode.POLICY_VIOLATION: CloseRow(
        "reconnect",
        "lagged: read too slowly, the reason names the sequence to resume from; or too many frames were sent, or one too slowly",
    ),
    CloseCode.MESSAGE_TOO_BIG: CloseRow("terminal", "a message was larger than websocket.max_message_bytes"),
    CloseCode.INTERNAL_ERROR: CloseRow("reconnect", "the server failed, or two pings went unanswered"),
    CloseCode.SERVICE_RESTART: CloseRow("reconnect", "the server restarts; the reason names the delay in ms"),
    CloseCode.TOKEN_ENDED: CloseRow("terminal", "the token expired or was revoked: log in or refresh first"),
    CloseCode.MEMBERSHIP_LOST: CloseRow("terminal", "the user may no longer see the channel"),
    CloseCode.CHANNEL_DELETED: CloseRow("terminal", "the channel or its guild was deleted"),
}
"""close code -> its row."""


def is_sendable(code: int) -> bool:
    """Return whether `code` may be sent in a close frame (RFC 6455 7.4)."""
    return code in _SENDABLE or 3000 <= code <= 4999


_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
