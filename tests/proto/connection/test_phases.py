"""The machine's two tables: they agree with each other, and the connection does what they say for every pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openguild_proto.connection.deadlines import Deadline
from openguild_proto.connection.phases import PHASES, TRANSITIONS, Input, Phase, Reading, Wants
from openguild_proto.connection.server import ServerConnection
from openguild_proto.errors import LocalProtocolError
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Response
from openguild_proto.limits import Limits
from tests.support.wire import HANDSHAKE, HEAD, connection, drive, masked

REQUEST = HEAD + b"\r\n"
POST = HEAD + b"Content-Length: 3\r\n\r\na"
BODIES = {Input.BODY: b"b", Input.REQUEST: b"bc"}  # behind POST
BYTES = {
    Input.BLANK: b"\r\n", Input.HEAD: b"GET /", Input.BODY: POST, Input.REQUEST: REQUEST, Input.HANDSHAKE: HANDSHAKE,
    Input.VIOLATION: b"nonsense\r\n",
}  # fmt: skip
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FRAMES = {Input.VIOLATION: b"\xff\xff", Input.PEER_CLOSE: masked(0x88, b"\x03\xe8")}
TIMEOUTS = {
    Deadline.HEAD: Input.HEAD_TIMEOUT, Deadline.BODY: Input.BODY_TIMEOUT, Deadline.IDLE: Input.IDLE_TIMEOUT,
    Deadline.WRITE: Input.WRITE_TIMEOUT, Deadline.PING: Input.PING_TIMEOUT, Deadline.FRAME: Input.FRAME_TIMEOUT,
    Deadline.CLOSE: Input.CLOSE_TIMEOUT, Deadline.LINGER: Input.LINGER_TIMEOUT,
}  # fmt: skip
FOUND_IN_BYTES = {*BYTES, Input.PEER_CLOSE}
LIMITS = Limits(max_pipelined_bytes=200, max_outbox_bytes=20_000, write_timeout_secs=4.0)  # before all others pass


# --- the tables ------------------------------------------------------------------------------------


def test_both_tables_name_every_phase_and_every_input() -> None:
    assert set(TRANSITIONS) == set(PHASES) == set(Phase)
    assert {step for row in TRANSITIONS.values() for step in row} == set(Input)


@pytest.mark.parametrize("phase", Phase)
def test_a_deadline_that_may_run_has_a_line_and_no_other_one_has(phase: Phase) -> None:
    row = PHASES[phase]
    running = {row.own, *row.others} - {None, Deadline.LIFETIME}  # at LIFETIME the connection is closed as by its owner
    assert {step for step in TRANSITIONS[phase] if step in TIMEOUTS.values()} == {TIMEOUTS[name] for name in running}


def test_every_phase_is_reached_and_every_phase_can_end() -> None:
    def reached(begin: Phase) -> set[Phase]:
        seen, new = set(), {begin}
        while new:
            seen |= new
            new = {target for phase in new for target in TRANSITIONS[phase].values()} - seen
        return seen

    assert reached(Phase.NEW) == set(Phase)
    assert all(reached(phase) & {Phase.CLOSED, Phase.ABORTED} for phase in Phase)


@pytest.mark.parametrize("phase", [phase for phase in Phase if PHASES[phase].reading is Reading.DROPPED])
def test_a_connection_that_is_over_stays_over(phase: Phase) -> None:
    assert {PHASES[target].reading for target in TRANSITIONS[phase].values()} == {Reading.DROPPED}


@pytest.mark.parametrize("phase", Phase)
def test_the_peer_s_bytes_are_never_out_of_turn(phase: Phase) -> None:
    expected = {
        Reading.REQUESTS: {Input.REQUEST, Input.VIOLATION, Input.BODY},
        Reading.FRAMES: {Input.VIOLATION, Input.PEER_CLOSE},
        Reading.KEPT: set() if phase is Phase.HALF_CLOSED_RESPONSE else {Input.VIOLATION},
        Reading.DROPPED: set(),
    }[PHASES[phase].reading]
    assert expected <= set(TRANSITIONS[phase])
    if PHASES[phase].own is not Deadline.BODY and Reading.REQUESTS is PHASES[phase].reading:
        assert {Input.HEAD, Input.HANDSHAKE} <= set(TRANSITIONS[phase])
        assert (Input.BLANK in TRANSITIONS[phase]) is (phase is not Phase.HEAD), "half of an empty line is no head"


# --- the connection does what they say -------------------------------------------------------------


def answered(unread: bytes, *, eof: bool = False) -> ServerConnection:
    """A request with its answer, and `unread` behind it."""
    conn = connection(LIMITS)
    conn.receive_data(REQUEST + unread, 0.0)
    if eof:
        conn.receive_eof(0.0)
    conn.respond(Response.text("ok"), 0.0)
    return conn


def fed(*pieces: bytes, limits: Limits = LIMITS) -> ServerConnection:
    conn = connection(limits)
    for piece in pieces:
        conn.receive_data(piece, 0.0)
    return conn


def opened() -> ServerConnection:
    conn = connection(LIMITS)
    drive(conn, [HANDSHAKE])
    return conn


def closed(conn: ServerConnection) -> ServerConnection:
    conn.close(1012, "", 0.0)
    return conn


def ended(conn: ServerConnection) -> ServerConnection:
    conn.receive_eof(0.0)
    return conn


def lingering() -> ServerConnection:
    conn = closed(connection(LIMITS))
    conn.write_ended(0.0)
    return conn


def aborted() -> ServerConnection:
    conn = opened()
    conn.write_blocked(0.0)
    conn.handle_deadline(LIMITS.write_timeout_secs)
    return conn


def in_phase(phase: Phase, step: Input) -> ServerConnection:
    """A connection in `phase` whose next bytes can be `step`."""
    coming = BYTES.get(step, REQUEST)
    post = CHUNKED if step in {Input.VIOLATION, Input.CALLBACK_FAILED} else POST
    behind = REQUEST if step is Input.RESPOND_UNREAD else b""
    match phase:
        case Phase.NEW:
            return connection(LIMITS)
        case Phase.IDLE:
            return answered(b"")
        case Phase.UNREAD:
            return answered(coming)
        case Phase.HEAD:
            return fed(REQUEST[:1] if step is Input.BLANK else coming[:1])
        case Phase.BODY:
            return fed(post)
        case Phase.RESPONDING:
            return fed(REQUEST + behind)
        case Phase.UPGRADING:
            return fed(HANDSHAKE + behind)
        case Phase.LAST_HEAD:
            return closed(answered(coming[:1]))
        case Phase.LAST_BODY:
            return closed(fed(post))
        case Phase.LAST_RESPONSE:
            return closed(fed(REQUEST))
        case Phase.LAST_UPGRADE:
            return closed(fed(HANDSHAKE))
        case Phase.HALF_CLOSED:
            return answered(coming, eof=True)
        case Phase.HALF_CLOSED_RESPONSE:
            return ended(fed(REQUEST + behind))
        case Phase.OPEN:
            return opened()
        case Phase.CLOSING:
            return closed(opened())
        case Phase.FLUSHING:
            return closed(connection(LIMITS))
        case Phase.LINGERING:
            return lingering()
        case Phase.CLOSED:
            return ended(connection(LIMITS))
        case Phase.ABORTED:
            return aborted()


def bytes_of(phase: Phase, step: Input) -> bytes | None:
    """What is to come next in `phase` to be `step`; None: nothing could be."""
    match PHASES[phase].reading:
        case Reading.FRAMES:
            return FRAMES.get(step)
        case Reading.KEPT:
            kept = step is Input.VIOLATION and phase is not Phase.HALF_CLOSED_RESPONSE
            return b"x" * 201 if kept else None
        case Reading.DROPPED:
            return None
    if step not in BYTES or (phase, step) == (Phase.HEAD, Input.BLANK):
        return None
    if PHASES[phase].own is Deadline.BODY:
        return b"no size\r\n" if step is Input.VIOLATION else BODIES.get(step)
    begun = phase in {Phase.HEAD, Phase.LAST_HEAD}
    waits = phase in {Phase.UNREAD, Phase.HALF_CLOSED}
    return b"" if waits else BYTES[step][begun:]


def pass_deadline(conn: ServerConnection, name: Deadline) -> None:
    """Let `name` pass; KeyError: it cannot run here."""
    now = 0.0
    if name is Deadline.WRITE:
        conn.write_blocked(now)
    elif name is Deadline.FRAME and conn.is_open:
        conn.receive_data(b"\x81", now)
        now = 20.0  # before the ping
    elif name is Deadline.PING and conn.is_open:
        for _ in range(LIMITS.max_missed_pongs):
            conn.handle_deadline(conn.next_deadline() or 0.0)
    conn.handle_deadline(conn._deadlines[name])


def fail_in_callback(conn: ServerConnection, phase: Phase) -> None:
    def fail(*_: object) -> bytes:
        raise OSError("no entropy")

    assert conn._http is not None
    conn._http.reader.random_bytes = conn._http.reader._max_body_of = fail  # type: ignore[assignment]  # it never returns
    conn._http._policy = HeaderPolicy(wall=fail)  # type: ignore[arg-type]  # it never returns
    rest = REQUEST[1:] if phase in {Phase.HEAD, Phase.LAST_HEAD} else REQUEST
    rest = b"9000\r\n" if PHASES[phase].own is Deadline.BODY else rest
    rest = b"x" * 201 if PHASES[phase].reading is Reading.KEPT else rest
    with pytest.raises(OSError, match="no entropy"):
        if phase in {Phase.UNREAD, Phase.HALF_CLOSED}:
            conn.next_events(0.0)
        else:
            conn.receive_data(rest, 0.0)


COMMANDS: dict[Input, Callable[[ServerConnection], None]] = {
    Input.RESPOND: lambda conn: conn.respond(Response.text("ok"), 0.0),
    Input.RESPOND_UNREAD: lambda conn: conn.respond(Response.text("ok"), 0.0),
    Input.RESPOND_LAST: lambda conn: conn.respond(Response(200, close=True), 0.0),
    Input.ACCEPT: lambda conn: conn.accept(0.0),
    Input.SEND: lambda conn: conn.send_text("x", 0.0),
    Input.EXPIRE_AT: lambda conn: conn.expire_at(5.0, 4401, "x"),
    Input.CLOSE: lambda conn: conn.close(1012, "", 0.0),
    Input.WRITE_ENDED: lambda conn: conn.write_ended(0.0),
    Input.OVERFLOW: lambda conn: conn.send_bytes(b"x" * 20_001, 0.0),
}


def state(conn: ServerConnection) -> tuple[object, ...]:
    """All that can be seen of it."""
    waiting = bytes(conn.outbox.peek(1 << 20))
    return conn.phase, waiting, conn.next_deadline(), conn.wants, conn.is_write_blocked, conn.is_websocket


PAIRS = [(phase, step) for phase in Phase for step in Input]
pairs = pytest.mark.parametrize(("phase", "step"), PAIRS, ids=[f"{phase.value}-{step.value}" for phase, step in PAIRS])


@pairs
def test_each_input_leads_to_the_phase_of_the_table_or_nowhere(phase: Phase, step: Input) -> None:
    conn = in_phase(phase, step)
    assert conn.phase is phase
    target = TRANSITIONS[phase].get(step)
    before = state(conn)
    if step in FOUND_IN_BYTES:
        data = bytes_of(phase, step)
        if data is None:
            assert target is None, "there are no such bytes"
            return
        if phase in {Phase.UNREAD, Phase.HALF_CLOSED}:
            conn.next_events(0.0)
        else:
            conn.receive_data(data, 0.0)
        assert target is not None
    elif step in TIMEOUTS.values():
        name = next(name for name, timeout in TIMEOUTS.items() if timeout is step)
        if target is None:
            with pytest.raises(KeyError):
                pass_deadline(conn, name)
            return
        pass_deadline(conn, name)
    elif step is Input.CALLBACK_FAILED:
        reads = PHASES[phase].reading in {Reading.REQUESTS, Reading.KEPT} and phase is not Phase.HALF_CLOSED_RESPONSE
        assert (target is None) is not reads, "no callback is called"
        if target is None:
            return
        fail_in_callback(conn, phase)
    elif step is Input.EOF:
        conn.receive_eof(0.0)
        if target is None:  # what waits to be read is read first
            assert phase in {Phase.UNREAD, Phase.HALF_CLOSED}
            target = Phase.HALF_CLOSED_RESPONSE
    elif target is None and step in {Input.RESPOND, Input.RESPOND_UNREAD, Input.RESPOND_LAST}:
        assert_answered_otherwise(conn, step)
        return
    elif target is None:
        with pytest.raises(LocalProtocolError):
            COMMANDS[step](conn)
        assert state(conn) == before
        return
    else:
        COMMANDS[step](conn)
    assert conn.phase is target


def assert_answered_otherwise(conn: ServerConnection, step: Input) -> None:
    """An answer is possible where there is a request, is dropped at the end, and is misuse elsewhere."""
    phase, before = conn.phase, state(conn)
    if PHASES[phase].reading is Reading.DROPPED:
        COMMANDS[step](conn)
        assert state(conn) == before
    elif PHASES[phase].reading is Reading.KEPT:
        COMMANDS[step](conn)
        assert conn.phase is TRANSITIONS[phase][Input.RESPOND_LAST], "it is the last one in any case"
    else:
        with pytest.raises(LocalProtocolError):
            COMMANDS[step](conn)
        assert state(conn) == before


@pytest.mark.parametrize("phase", Phase)
def test_bytes_in_any_phase_are_read_kept_dropped_or_refused(phase: Phase) -> None:
    conn = in_phase(phase, Input.REQUEST)
    before = state(conn)
    if phase in {Phase.HALF_CLOSED, Phase.HALF_CLOSED_RESPONSE}:
        with pytest.raises(LocalProtocolError):
            conn.receive_data(b"G", 0.0)
        assert state(conn) == before
        return
    events = conn.receive_data(b"\x81" if conn.is_websocket else b"G", 0.0)
    if PHASES[phase].reading in {Reading.KEPT, Reading.DROPPED}:
        assert (events, state(conn)) == ([], before)


@pytest.mark.parametrize("phase", Phase)
def test_what_is_wanted_waits_for_what_is_to_be_sent(phase: Phase) -> None:
    conn = in_phase(phase, Input.REQUEST)
    conn.data_to_send()
    assert conn.wants is PHASES[phase].wants
    conn.outbox.append(b"x")
    assert conn.wants is (Wants.ABORT if phase is Phase.ABORTED else Wants.KEEP)
