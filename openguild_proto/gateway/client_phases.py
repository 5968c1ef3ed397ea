"""The state machine of a gateway client, as data: two tables (PROTOCOL 15.9)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ClientPhase(StrEnum):
    """The phases of a client; `CLIENT_PHASES` gives their meaning."""

    IDLE = "idle"
    CONNECTING = "connecting"
    GREETING = "greeting"
    AUTHENTICATING = "authenticating"
    OPEN = "open"
    DRAINING = "draining"
    WAITING = "waiting"
    TOKENLESS = "tokenless"
    ENDED = "ended"

    @property
    def has_socket(self) -> bool:
        """Whether a WebSocket is open or being opened."""
        return self in _WITH_SOCKET

    @property
    def has_sent_auth(self) -> bool:
        """Whether `auth` was sent, so that answers of the server are processed."""
        return self in _SENT_AUTH

    @property
    def brings_events(self) -> bool:
        """Whether events of logs may arrive."""
        return self in _WITH_EVENTS

    @property
    def is_asking(self) -> bool:
        """Whether new requests may be sent."""
        return self in _ASKING


class ClientInput(StrEnum):
    """The inputs of the state machine."""

    START = "start"
    CONNECTED = "connected"  # the upgrade was accepted
    HELLO = "hello"
    READY = "ready"
    DRAIN = "drain"
    LOST = "lost"  # the connection ended, or the client gave it up
    TOKEN_REFUSED = "token_refused"  # the server wants another token # noqa: S105 - the name of an input
    TOKEN = "token"  # the caller has another token # noqa: S105 - the name of an input
    FINAL = "final"  # a close code after which the client does not reconnect
    DUE = "due"  # the delay before the next connection has passed
    CLOSE = "close"  # the caller ends the client


class ClientDeadline(StrEnum):
    """The deadlines of a gateway client. Each comment says what happens, or must have happened, by then."""

    ANSWER = "answer"  # the server has accepted the upgrade, sent `hello` or authenticated the client
    HEARTBEAT = "heartbeat"  # the next heartbeat is sent
    SILENCE = "silence"  # the server has sent something
    SLOT = "slot"  # the client of a draining server reconnects
    RECONNECT = "reconnect"  # the next connection is opened
    RETRY = "retry"  # logs that could not be followed are requested again


class ClientPhaseRow(NamedTuple):
    """The properties of a phase."""

    meaning: str
    deadlines: tuple[ClientDeadline, ...] = ()


_P, _I, _D = ClientPhase, ClientInput, ClientDeadline
_LIVE = (_D.HEARTBEAT, _D.SILENCE, _D.RETRY)

CLIENT_PHASES: dict[ClientPhase, ClientPhaseRow] = {
    _P.IDLE: ClientPhaseRow("not started"),
    _P.CONNECTING: ClientPhaseRow("the caller opens a WebSocket", (_D.ANSWER,)),
    _P.GREETING: ClientPhaseRow("the client waits for `hello`", (_D.ANSWER,)),
    _P.AUTHENTICATING: ClientPhaseRow("the client has sent `auth`, its `sub` frames and its commands", (_D.ANSWER,)),
    _P.OPEN: ClientPhaseRow("authenticated", _LIVE),
    _P.DRAINING: ClientPhaseRow(
        "the server is stopping; the client sends no new commands until its slot", (*_LIVE, _D.SLOT)
    ),
    _P.WAITING: ClientPhaseRow("the client waits for the next connection", (_D.RECONNECT,)),
    _P.TOKENLESS: ClientPhaseRow("after a delay, the client requests another token and waits for it", (_D.RECONNECT,)),
    _P.ENDED: ClientPhaseRow("the client is closed"),
}
"""phase -> its properties."""

_ENDS = {_I.LOST: _P.WAITING, _I.TOKEN_REFUSED: _P.TOKENLESS, _I.FINAL: _P.ENDED, _I.CLOSE: _P.ENDED}

CLIENT_TRANSITIONS: dict[ClientPhase, dict[ClientInput, ClientPhase]] = {
    _P.IDLE: {_I.START: _P.CONNECTING, _I.CLOSE: _P.ENDED},
    _P.CONNECTING: {_I.CONNECTED: _P.GREETING, **_ENDS},
    _P.GREETING: {_I.HELLO: _P.AUTHENTICATING, **_ENDS},
    _P.AUTHENTICATING: {_I.READY: _P.OPEN, **_ENDS},
    _P.OPEN: {_I.DRAIN: _P.DRAINING, **_ENDS},
    _P.DRAINING: {_I.DRAIN: _P.DRAINING, **_ENDS},
    _P.WAITING: {_I.DUE: _P.CONNECTING, _I.CLOSE: _P.ENDED},
    _P.TOKENLESS: {_I.TOKEN: _P.WAITING, _I.CLOSE: _P.ENDED},
    _P.ENDED: {_I.CLOSE: _P.ENDED},
}
"""phase -> input -> phase."""

_ASKING = frozenset({_P.AUTHENTICATING, _P.OPEN})
_WITH_EVENTS = frozenset({_P.OPEN, _P.DRAINING})
_SENT_AUTH = _ASKING | {_P.DRAINING}
_WITH_SOCKET = _SENT_AUTH | {_P.CONNECTING, _P.GREETING}
