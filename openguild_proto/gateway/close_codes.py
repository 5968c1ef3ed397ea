"""The close codes of the gateway: their meanings, and whether a client reconnects (PROTOCOL 15.8)."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple


class GatewayClose(IntEnum):
    """Close codes. 1000 to 1015: RFC 6455 7.4.1 and the IANA registry. 4000 and above: the gateway's own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    WRONG_KIND = 1003
    INVALID_TEXT = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_LATER = 1013
    MALFORMED_FRAME = 4000
    OUT_OF_ORDER = 4001
    NO_AUTH = 4002
    TOKEN_REFUSED = 4003
    TOKEN_EXPIRED = 4004
    SESSION_ENDED = 4005
    KEY_WITHDRAWN = 4006
    FRAME_RATE = 4007
    SLOW_FRAME = 4008
    SILENT = 4009
    TOO_MANY_SOCKETS = 4010
    CLOSED_BY_OPERATOR = 4011


class AfterClose(Enum):
    """What a client does after a close."""

    RECONNECT = "reconnect"  # with backoff, and from its places
    RENEWED = "reconnect, with another token"
    FINAL = "final"  # reconnecting without a change would end the same way


class GatewayCloseRow(NamedTuple):
    """The row of a close code. `reason`: the text in the close frame, for people."""

    action: AfterClose
    reason: str
    meaning: str


_AGAIN, _TOKEN, _FINAL = AfterClose
_C, _Row = GatewayClose, GatewayCloseRow

GATEWAY_CLOSES: dict[GatewayClose, GatewayCloseRow] = {
    _C.NORMAL: _Row(_FINAL, "", "the client asked to close"),
    _C.GOING_AWAY: _Row(_AGAIN, "", "the client is going away: not sent by this server"),
    _C.PROTOCOL_ERROR: _Row(_FINAL, "", "the client broke RFC 6455"),
    _C.WRONG_KIND: _Row(_FINAL, "wrong kind of message", "a binary message where the subprotocol requires text, or the reverse"),
    _C.INVALID_TEXT: _Row(_FINAL, "", "a text message was not valid UTF-8"),
    _C.TOO_BIG: _Row(_FINAL, "", "a message was larger than websocket.max_message_bytes"),
    _C.INTERNAL_ERROR: _Row(_AGAIN, "internal error", "the server failed"),
    _C.RESTART: _Row(_AGAIN, "server restarting", "the server is stopping; `drain` contained the delay"),
    _C.TRY_LATER: _Row(_AGAIN, "cannot authenticate now", "the token cannot be checked: the database is unavailable or overloaded"),
    _C.MALFORMED_FRAME: _Row(_FINAL, "malformed frame", "a message is not a valid frame, and has no `ref` for a response"),
    _C.OUT_OF_ORDER: _Row(_FINAL, "out of order", "a frame before `auth`, or an `auth` before the response to the previous one"),
    _C.NO_AUTH: _Row(_AGAIN, "no auth in time", "no `auth` arrived within 10 seconds"),
    _C.TOKEN_REFUSED: _Row(_TOKEN, "token not accepted", "the token of the first `auth` is invalid"),
    _C.TOKEN_EXPIRED: _Row(_TOKEN, "token expired", "the token expired and was not renewed"),
    _C.SESSION_ENDED: _Row(_FINAL, "session ended", "the session was revoked: log in again"),
    _C.KEY_WITHDRAWN: _Row(_TOKEN, "the key of this token was withdrawn", "the key that signed the token is no longer trusted"),
    _C.FRAME_RATE: _Row(_AGAIN, "too many frames", "the client sent more than websocket.max_frames_per_minute frames"),
    _C.SLOW_FRAME: _Row(_AGAIN, "a frame took too long", "a frame was not complete within 30 seconds"),
    _C.SILENT: _Row(_AGAIN, "silent", "the client sent no frame for three heartbeats"),
    _C.TOO_MANY_SOCKETS: _Row(_AGAIN, "connection limit reached", "the user has the maximum number of sockets"),
    _C.CLOSED_BY_OPERATOR: _Row(_AGAIN, "closed by the operator", "an operator closed the socket"),
}  # fmt: skip
"""code -> its row."""


def after_close(code: int | None) -> AfterClose:
    """Return what a client does after `code`. None: the connection ended without a code.

    After an unknown code the client reconnects.
    """
    try:
        return GATEWAY_CLOSES[GatewayClose(code)].action if code is not None else AfterClose.RECONNECT
    except ValueError:
        return AfterClose.RECONNECT
