"""The state machine of a gateway socket on the server, as data: two tables (PROTOCOL 15.2).

`TRANSITIONS` has an entry for every input that may come in a phase. Frames of the client and deadlines may always come. An
answer of the caller that is no longer awaited changes nothing. The close code of a step to CLOSED is passed with the input.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Phase(StrEnum):
    """The phases of a socket; `PHASES` gives their meanings."""

    OPENING = "opening"
    CHECKING = "checking"
    OPEN = "open"
    RENEWING = "renewing"
    DRAINING = "draining"
    CLOSED = "closed"


class Input(StrEnum):
    """The inputs of the state machine."""

    # from the client
    AUTH = "auth"
    REQUEST = "request"  # any other frame except heartbeats
    HEARTBEAT = "heartbeat"
    VIOLATION = "violation"  # a message that is not a valid frame and cannot be answered
    # from the caller
    AUTHENTICATED = "authenticated"
    REFUSED = "refused"  # the token is not valid
    UNCHECKED = "unchecked"  # the token cannot be checked now
    DRAIN = "drain"
    CLOSE = "close"
    # deadlines
    AUTH_TIMEOUT = "auth_timeout"
    EXPIRED = "expired"  # the token has expired
    SILENCE = "silence"
    SLOT_PASSED = "slot_passed"


class Deadline(StrEnum):
    """The deadlines of a gateway socket. Each comment says what happens, or must have happened, by then."""

    AUTH = "auth"  # `auth` has arrived
    HEARTBEAT = "heartbeat"  # the next heartbeat is sent
    SILENCE = "silence"  # the client has sent something
    NOTICE = "notice"  # `auth_expiring` is sent
    EXPIRY = "expiry"  # the token expires
    READS = "reads"  # the user may make more reads, which a `sub` waits for
    REST = "rest"  # a log that could not be read is read again
    SLOT = "slot"  # the client of a draining server has left


class PhaseRow(NamedTuple):
    """The properties of a phase. `others`: deadlines that may run in addition to its `own`."""

    meaning: str
    own: Deadline | None = None
    others: tuple[Deadline, ...] = ()


_P, _I, _D = Phase, Input, Deadline
_RUNNING = (_D.HEARTBEAT, _D.SILENCE, _D.NOTICE, _D.EXPIRY, _D.READS, _D.REST)

PHASES: dict[Phase, PhaseRow] = {
    _P.OPENING: PhaseRow("the server has sent `hello` and waits for `auth`", _D.AUTH),
    _P.CHECKING: PhaseRow("the server checks the first token; requests wait"),
    _P.OPEN: PhaseRow("authenticated", None, _RUNNING),
    _P.RENEWING: PhaseRow("authenticated; the server checks another token", None, _RUNNING),
    _P.DRAINING: PhaseRow("the server has sent `drain`, and serves the client until its slot", None, (*_RUNNING, _D.SLOT)),
    _P.CLOSED: PhaseRow("the server has chosen a close code, and ignores the client's frames"),
}  # fmt: skip
"""phase -> its properties."""

MAY_RUN: dict[Phase, frozenset[Deadline]] = {
    phase: frozenset(row.others if row.own is None else (row.own, *row.others)) for phase, row in PHASES.items()
}
"""phase -> the deadlines that may run in it."""

TRANSITIONS: dict[Phase, dict[Input, Phase]] = {
    _P.OPENING: {
        _I.AUTH: _P.CHECKING, _I.REQUEST: _P.CLOSED, _I.HEARTBEAT: _P.OPENING, _I.VIOLATION: _P.CLOSED,
        _I.DRAIN: _P.CLOSED, _I.CLOSE: _P.CLOSED,
        _I.AUTH_TIMEOUT: _P.CLOSED,
    },
    _P.CHECKING: {
        _I.AUTH: _P.CLOSED, _I.REQUEST: _P.CHECKING, _I.HEARTBEAT: _P.CHECKING, _I.VIOLATION: _P.CLOSED,
        _I.AUTHENTICATED: _P.OPEN, _I.REFUSED: _P.CLOSED, _I.UNCHECKED: _P.CLOSED, _I.DRAIN: _P.CLOSED, _I.CLOSE: _P.CLOSED,
    },
    _P.OPEN: {
        _I.AUTH: _P.RENEWING, _I.REQUEST: _P.OPEN, _I.HEARTBEAT: _P.OPEN, _I.VIOLATION: _P.CLOSED,
        _I.DRAIN: _P.DRAINING, _I.CLOSE: _P.CLOSED,
        _I.EXPIRED: _P.CLOSED, _I.SILENCE: _P.CLOSED,
    },
    _P.RENEWING: {
        _I.AUTH: _P.CLOSED, _I.REQUEST: _P.RENEWING, _I.HEARTBEAT: _P.RENEWING, _I.VIOLATION: _P.CLOSED,
        _I.AUTHENTICATED: _P.OPEN, _I.REFUSED: _P.OPEN, _I.UNCHECKED: _P.OPEN, _I.DRAIN: _P.DRAINING, _I.CLOSE: _P.CLOSED,
        _I.EXPIRED: _P.CLOSED, _I.SILENCE: _P.CLOSED,
    },
    _P.DRAINING: {
        _I.AUTH: _P.DRAINING, _I.REQUEST: _P.DRAINING, _I.HEARTBEAT: _P.DRAINING, _I.VIOLATION: _P.CLOSED,
        _I.AUTHENTICATED: _P.DRAINING, _I.REFUSED: _P.DRAINING, _I.UNCHECKED: _P.DRAINING,  # of an `auth` before the drain
        _I.DRAIN: _P.DRAINING, _I.CLOSE: _P.CLOSED,
        _I.EXPIRED: _P.CLOSED, _I.SILENCE: _P.CLOSED, _I.SLOT_PASSED: _P.CLOSED,
    },
    _P.CLOSED: {
        _I.AUTH: _P.CLOSED, _I.REQUEST: _P.CLOSED, _I.HEARTBEAT: _P.CLOSED, _I.VIOLATION: _P.CLOSED,
        _I.DRAIN: _P.CLOSED, _I.CLOSE: _P.CLOSED,
    },
}  # fmt: skip
"""phase -> input -> phase, with the client's frames, the caller's inputs, and deadlines on separate lines."""
