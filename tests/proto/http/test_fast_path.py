"""The quick way and the long way are one grammar: what PatternHeads takes, h11 takes too and reads the same."""

from __future__ import annotations

from collections.abc import Callable

import h11
import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import event, given, settings

from openguild_proto.connection.phases import Phase
from openguild_proto.connection.server import ServerConnection
from openguild_proto.errors import LocalProtocolError
from openguild_proto.events import Event, RequestReceived, WebSocketRequested
from openguild_proto.http.fast_path import (
    HANDSHAKE,
    MAX_REMEMBERED_BYTES,
    MAX_REMEMBERED_FIELDS,
    PLAIN,
    PatternHeads,
)
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import Limits
from openguild_proto.ws.handshake import bearer_subprotocol
from tests.support.wire import connection, drive, masked

PIECES = [
    b"GET", b"POST", b"DELETE", b"get", b"G@T", b"CONNECT", b" ", b"  ", b"\t", b"/", b"/api/v1/me?x=1&y=%20", b"*", b"http://x/",
    b"/#f", b"/\xc3\xa9", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"\r\n", b"\n", b"\r", b"Host: x", b"host:[::1]:80", b"Host: a b",
    b"Host:", b"Content-Length: 2", b"content-length:\t02", b"Content-Length: +2", b"Content-Length: 2, 2", b"Content-Length: ",
    b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: keep-alive", b"Connection: Keep-Alive, x",
    b"Expect: 100-continue",
    b"A: b", b"A : b", b" folded", b"A:", b"A: \x80\xff", b"A: \x00", b": x", b"Upgrade: websocket", b"TE: trailers",
    b"ab", b"GET / HTTP/1.1\r\n",
]  # fmt: skip
COMMON_LINES = [b"A: b", b"content-length:\t2 ", b"Connection: keep-alive", b"A:", b"A: \x80\xff", b"Accept: */*"]
LINES = st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join)
COMMON = st.builds(
    lambda method, target, lines, body: b"\r\n".join(
        [b"%b %b HTTP/1.1" % (method, target), b"Host: x", *lines, b"", body]
    ),
    st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"!x", b"M" * 32, b"M" * 33]),
    st.sampled_from([b"/", b"/a/b?c=d", b"/%zz", b"//", b"/?", b"/a?b?c"]),
    st.lists(st.one_of(st.sampled_from(COMMON_LINES), st.sampled_from(PIECES), LINES), max_size=3),
    st.sampled_from([b"", b"ab", b"abGET / HTTP/1.1\r\n"]),
)

VALUES = st.text(alphabet="ab 1;=", max_size=8).map(str.strip)


def by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]] | None:
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    try:
        head = peer.next_event()
    except h11.RemoteProtocolError:
        return None
    return (head.method, head.target, list(head.headers)) if isinstance(head, h11.Request) else None


@given(st.one_of(COMMON, st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join), st.binary(max_size=200)))
@settings(deadline=None, max_examples=600)
def test_what_it_reads_h11_reads_alike(data: bytes) -> None:
    buffer = bytearray(data)
    quick = PatternHeads(Limits()).read_head(buffer)
    event("taken" if quick is not None else "left to the long way")
    if quick is None:
        assert buffer == data
        return
    assert by_h11(data) == (
        quick.method.encode(),
        (quick.path + ("?" + quick.query if quick.query or data.split(b" ")[1].endswith(b"?") else "")).encode(),
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in quick.headers],
    )
    assert data.partition(b"\r\n\r\n")[2] == buffer, "the head, and no more, was taken"


@given(st.lists(COMMON, min_size=2, max_size=3), st.lists(st.integers(0, 2), min_size=2, max_size=6))
@settings(deadline=None, max_examples=300)
def test_what_a_connection_remembers_changes_nothing(heads: list[bytes], order: list[int]) -> None:
    remembering, taken = PatternHeads(Limits(max_head_bytes=80)), set()
    for place in order:
        data = heads[place % len(heads)]
        buffer, fresh = bytearray(data), bytearray(data)
        head = PatternHeads(Limits(max_head_bytes=80)).read_head(fresh)
        assert (remembering.read_head(buffer), buffer) == (head, fresh)
        repeated = head is not None and head.headers in taken
        event("remembered" if repeated else "new" if head is not None else "left to the long way")
        taken.add(head.headers if head is not None else ())


@pytest.mark.parametrize(
    ("lines", "is_kept"),
    [
        ([b"A: b"] * (MAX_REMEMBERED_FIELDS - 1), True),
        ([b"A: b"] * MAX_REMEMBERED_FIELDS, False),
        ([b"A: " + b"b" * (MAX_REMEMBERED_BYTES - 16)], True),
        ([b"A: " + b"b" * (MAX_REMEMBERED_BYTES - 15)], False),
    ],
)
def test_an_idle_connection_keeps_little(lines: list[bytes], is_kept: bool) -> None:
    heads = PatternHeads(Limits())
    assert heads.read_head(bytearray(b"\r\n".join([b"GET / HTTP/1.1", b"Host: x", *lines, b"", b""]))) is not None
    assert bool(heads._last.lines) is is_kept


@pytest.mark.parametrize(("method", "target"), [(b"POST", b"/ws"), (b"GET", b"/" + b"a" * 90)])
def test_remembered_fields_do_not_suit_every_request_line(method: bytes, target: bytes) -> None:
    lines = b"\r\n".join([b"Host: x", *VALID_LINES, b"", b""])
    limits = Limits(max_head_bytes=len(lines) + 80)
    heads = PatternHeads(limits)
    first = bytearray(b"GET /ws HTTP/1.1\r\n" + lines)
    assert heads.read_head(first) is not None
    data = method + b" " + target + b" HTTP/1.1\r\n" + lines
    buffer = bytearray(data)
    assert heads.read_head(buffer) is None
    assert buffer == data


@given(COMMON)
@settings(deadline=None, max_examples=300)
def test_byte_by_byte_which_is_the_long_way_gives_the_same_requests_and_answers(data: bytes) -> None:
    facts, sent = drive(connection(), [data])
    event("a request" if any(isinstance(fact, RequestReceived) for fact in facts) else "none")
    slowly, sent_slowly = drive(connection(), [data[place : place + 1] for place in range(len(data))])
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"  # only sent while the body has not begun to come
    assert (slowly, sent_slowly.replace(interim, b"")) == (facts, sent.replace(interim, b""))


HANDSHAKE_LINES = [
    b"Upgrade: websocket", b"upgrade: WebSocket", b"Upgrade: websocket, x", b"Upgrade: h2c", b"Connection: Upgrade",
    b"Connection: keep-alive, Upgrade", b"Connection: upgrade, close", b"Connection: keep-alive", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Version: 12", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Key: short",
    b"Sec-WebSocket-Protocol: openguild.v1, bearer.x", b"Content-Length: 0", b"Content-Length: 2", b"Origin: null", b"A: b",
    b"X-Request-Id: r1",
]  # fmt: skip
VALID_LINES = [HANDSHAKE_LINES[place] for place in (0, 5, 8, 10)]
HANDSHAKES = st.builds(
    lambda method, lines, rest: b"\r\n".join([method + b" /ws?a=b HTTP/1.1", b"Host: x", *lines, b"", rest]),
    st.sampled_from([b"GET", b"GET", b"GET", b"POST", b"HEAD"]),
    st.one_of(
        st.permutations(VALID_LINES),
        st.tuples(st.permutations(VALID_LINES), st.lists(st.sampled_from(HANDSHAKE_LINES), max_size=3)).map(
            lambda both: [*both[0], *both[1]]
        ),
        st.lists(st.sampled_from(HANDSHAKE_LINES), max_size=7),
    ),
    st.sampled_from([b"", b"ab", masked(0x81, b"hello"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]),
)
ANSWERS: dict[str, Callable[[ServerConnection, Request], None]] = {
    "accept": lambda conn, request: conn.accept(
        0.0, subprotocol=bearer_subprotocol(request)[1], headers=(("x-a", "b"), ("x-frame-options", "c"))
    ),
    "accept plainly": lambda conn, request: conn.accept(0.0),
    "refuse": lambda conn, request: conn.respond(Response.text("no", status=403), 0.0),
    "refuse and close": lambda conn, request: conn.respond(
        msgspec.structs.replace(Response.text("no", status=403), close=True), 0.0
    ),
}


def answered(chunks: list[bytes], answer: str) -> tuple[list[Event], bytes, Phase]:
    """Feed the chunks, and answer upgrades so; events, bytes to send and the phase at the end."""
    conn = connection()
    events: list[Event] = []
    for chunk in chunks:
        new = conn.receive_data(chunk, 0.0)
        while new:
            for each in new:
                if isinstance(each, WebSocketRequested):
                    ANSWERS[answer](conn, each.request)
                elif isinstance(each, RequestReceived):
                    conn.respond(Response.text("ok"), 0.0)
            events += new
            new = conn.next_events(0.0)
    return events, b"".join(conn.data_to_send()), conn.phase


@given(HANDSHAKES, st.sampled_from(sorted(ANSWERS)))
@settings(deadline=None, max_examples=500)
def test_a_handshake_byte_by_byte_gives_the_same_events_and_answers(data: bytes, answer: str) -> None:
    quick = PatternHeads(Limits()).read_head(bytearray(data))
    taken = quick is not None and quick.exchange is HANDSHAKE
    found = answered([data], answer)
    opens = any(isinstance(each, WebSocketRequested) for each in found[0])
    event(f"{'taken' if taken else 'left to the long way'}, {'a handshake' if opens else 'none'}")
    events, sent, phase = answered([data[place : place + 1] for place in range(len(data))], answer)
    assert (events, sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), phase) == found


@pytest.mark.parametrize("connection_line", [b"Upgrade", b"keep-alive, Upgrade", b"Keep-Alive, upgrade"])
def test_what_browsers_and_clients_send_is_taken(connection_line: bytes) -> None:
    lines = [b"Host: x", b"Upgrade: websocket", b"Connection: " + connection_line, *VALID_LINES[2:]]
    head = PatternHeads(Limits()).read_head(bytearray(b"\r\n".join([b"GET /ws HTTP/1.1", *lines, b"", b""])))
    assert head is not None
    assert head.exchange is HANDSHAKE


HEADER_VALUES = st.text(st.sampled_from("\0\n\r\t az;,\x80\xff"), max_size=20).map(lambda text: text.encode("latin-1"))


@given(
    st.sampled_from([(200, "OK"), (201, "Created"), (404, "Not Found"), (503, "")]),
    st.lists(st.tuples(st.sampled_from([b"x-request-id", b"retry-after", b"vary"]), HEADER_VALUES), max_size=4),
    st.binary(max_size=50),
)
@settings(deadline=None, max_examples=300)
def test_it_writes_what_h11_writes_or_refuses_what_h11_refuses(
    status: tuple[int, str], headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    whole = [*headers, (b"content-length", str(len(body)).encode())]
    writer = h11.Connection(h11.SERVER)
    writer.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.next_event()
    try:
        head = h11.Response(status_code=status[0], headers=whole, reason=status[1])
    except h11.LocalProtocolError:
        event("refused by h11")
        with pytest.raises(LocalProtocolError):
            PLAIN.response(*status, whole, body)
        return
    written = (writer.send(head) or b"") + (writer.send(h11.Data(data=body)) or b"")
    event("written")
    assert PLAIN.response(*status, whole, body) == written


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: x", b"a\nb", b"a\0b"])
def test_a_value_that_would_end_its_line_is_never_written(value: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        PLAIN.response(200, "OK", [(b"x-request-id", value)], b"")


@given(
    st.lists(
        st.tuples(st.sampled_from(["x-a", "retry-after", "referrer-policy", "x-frame-options"]), VALUES), max_size=4
    ),
    st.sampled_from([None, "application/json", "text/plain; charset=utf-8"]),
    st.sampled_from([(), ("https://chat.example.org",)]),
    st.sampled_from([None, "https://chat.example.org", "https://other.example.org"]),
    st.sampled_from(["GET", "OPTIONS"]),
)
def test_prepared_lines_are_those_of_the_list_of_headers(
    headers: list[tuple[str, str]], kind: str | None, allowed: tuple[str, ...], origin: str | None, method: str
) -> None:
    policy = HeaderPolicy.create(cors_allowed_origins=allowed)
    response = Response(status=200, headers=tuple(headers), content_type=kind)
    sent = () if origin is None else (("origin", origin),)
    asked = Request(method=method, path="/", query="", headers=sent, request_id="r1")
    listed = policy.apply(response, asked, "r1")
    assert policy.lines(response, asked, "r1") == b"".join(b"%b: %b\r\n" % header for header in listed)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a ", " a", "a\0"])
def test_prepared_lines_take_no_invalid_value(value: str) -> None:
    policy = HeaderPolicy()
    with pytest.raises(LocalProtocolError):
        policy.lines(Response(status=200, headers=(("x-a", value),)), None, "r1")
    with pytest.raises(LocalProtocolError):
        policy.lines(Response(status=200), None, value)
