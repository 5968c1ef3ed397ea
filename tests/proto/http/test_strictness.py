"""Each rule that h11 does not keep, whole and byte by byte and with trailing data: the answer never differs."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from openguild_proto.events import PeerViolated, RequestReceived
from openguild_proto.http import strictness
from openguild_proto.http.strictness import Rule
from openguild_proto.limits import Limits
from tests.support.wire import connection, cut, drive

HOST = b"Host: localhost\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED: dict[str, tuple[bytes, Rule]] = {
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n\n", strictness.BARE_LF),
    "bare CR": (GET + b"Host: x\ry\r\n\r\n", strictness.BARE_CR),
    "NUL": (GET + b"Host: x\r\nA: b\0c\r\n\r\n", strictness.CONTROL),
    "two empty lines": (b"\r\n\r\n" + GET + HOST + b"\r\n", strictness.LEADING_EMPTY_LINES),
    "long target": (b"GET /" + b"x" * 8_192 + b" HTTP/1.1\r\n", strictness.TARGET_TOO_LONG),
    "endless request line": (b"G" * 9_000, strictness.TARGET_TOO_LONG),
    "no request line": (b"hello\r\n", strictness.REQUEST_LINE),
    "two spaces": (b"GET  / HTTP/1.1\r\n", strictness.REQUEST_LINE),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n", strictness.VERSION),
    "HTTP/9.9": (b"GET / HTTP/9.9\r\n", strictness.VERSION),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n", strictness.VERSION),
    "absolute form without a host": (b"GET http:///a HTTP/1.1\r\n", strictness.TARGET_FORM),
    "authority form": (b"CONNECT x:1 HTTP/1.1\r\n", strictness.TARGET_FORM),
    "asterisk": (b"GET * HTTP/1.1\r\n", strictness.TARGET_FORM),
    "fragment": (b"GET /#a HTTP/1.1\r\n", strictness.TARGET_CHARACTERS),
    "non-ASCII target": (b"GET /\xc3\xa9 HTTP/1.1\r\n", strictness.TARGET_CHARACTERS),
    "obs-fold": (GET + HOST + b"A: b\r\n c\r\n\r\n", strictness.OBS_FOLD),
    "no colon": (GET + b"Host\r\n\r\n", strictness.HEADER_LINE),
    "empty name": (GET + b": x\r\n\r\n", strictness.HEADER_LINE),
    "space before colon": (GET + b"Host : x\r\n\r\n", strictness.SPACE_BEFORE_COLON),
    "long header": (GET + HOST + b"A: " + b"x" * 8_200 + b"\r\n\r\n", strictness.HEADER_TOO_LONG),
    "many headers": (GET + HOST + b"A: b\r\n" * 101, strictness.TOO_MANY_HEADERS),
    "large head": (GET + HOST + (b"A: " + b"x" * 8_000 + b"\r\n") * 5, strictness.HEAD_TOO_LARGE),
    "no Host": (GET + b"\r\n", strictness.HOST_COUNT),
    "two Hosts": (GET + HOST + HOST + b"\r\n", strictness.HOST_COUNT),
    "Host with userinfo": (GET + b"Host: a@b\r\n\r\n", strictness.HOST_VALUE),
    "Host with path": (GET + b"Host: a/b\r\n\r\n", strictness.HOST_VALUE),
    "Host list": (GET + b"Host: a, b\r\n\r\n", strictness.HOST_VALUE),
    "length and coding": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", strictness.LENGTH_WITH_CODING),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n", strictness.LENGTH_REPEATED),
    "length list": (POST + b"Content-Length: 3, 3\r\n\r\n", strictness.LENGTH_REPEATED),
    "absurd length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", strictness.BODY_TOO_LARGE),
    "large length": (POST + b"Content-Length: 2097153\r\n\r\n", strictness.BODY_TOO_LARGE),
    "gzip coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", strictness.CODING_UNKNOWN),
    "coding in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", strictness.CODING_IN_1_0),
    "expectation": (POST + b"Expect: miracles\r\n\r\n", strictness.EXPECTATION),
    "chunk size": (CHUNKED + b"zz\r\n", strictness.CHUNK_SIZE),
    "negative chunk": (CHUNKED + b"-1\r\n", strictness.CHUNK_SIZE),
    "endless chunk size": (CHUNKED + b"0" * 300, strictness.CHUNK_LINE_TOO_LONG),
    "NUL in extension": (CHUNKED + b"1;a=\0\r\nx\r\n", strictness.CONTROL),
    "CR in extension": (CHUNKED + b"1;a\rb\r\nx\r\n", strictness.BARE_CR),
    "chunk end": (CHUNKED + b"1\r\nxyz", strictness.CHUNK_END),
    "large chunk": (CHUNKED + b"200001\r\n", strictness.BODY_TOO_LARGE),
    "large trailer": (CHUNKED + b"0\r\n" + (b"A: " + b"x" * 5_000 + b"\r\n") * 2, strictness.TRAILER_TOO_LARGE),
}  # fmt: skip


def outcome(chunks: list[bytes]) -> tuple[list[PeerViolated], bytes]:
    conn = connection()
    events, sent = drive(conn, chunks)
    assert conn.is_over
    assert conn.next_deadline() is None
    return [event for event in events if isinstance(event, PeerViolated)], sent


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_rule_is_named_and_answered_once(name: str) -> None:
    data, rule = REFUSED[name]
    (violation,), sent = outcome([data])
    assert violation.rule == rule.source
    assert violation.status_hint == rule.code.spec.status
    assert sent.startswith(f"HTTP/1.1 {rule.code.spec.status} ".encode())
    assert b"connection: close" in sent or b"HTTP/1.0" in data
    assert sent.count(b"content-length: ") == 1


@pytest.mark.parametrize("name", REFUSED)
def test_how_tcp_cuts_the_bytes_makes_no_difference(name: str) -> None:
    data, _ = REFUSED[name]
    whole = outcome([data])
    assert outcome([data[place : place + 1] for place in range(len(data))]) == whole
    assert outcome([data + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"]) == whole


GOOD = (
    b"\r\nGET /first?x=1 HTTP/1.1\r\nHost: localhost:8080\r\n\r\n"
    b"POST /second HTTP/1.1\r\nhost: [::1]\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /third HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n"
    b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n"
    b"GET /last HTTP/1.0\r\n\r\n"
)


@given(st.lists(st.integers(0, len(GOOD)), max_size=12))
@settings(deadline=None)
def test_any_cut_of_good_requests_gives_the_same_requests(places: list[int]) -> None:
    conn = connection()
    events, sent = drive(conn, cut(GOOD, places))
    requests = [event.request for event in events if isinstance(event, RequestReceived)]
    assert [(request.method, request.path, request.query, request.body) for request in requests] == [
        ("GET", "/first", "x=1", b""),
        ("POST", "/second", "", b"hello"),
        ("POST", "/third", "", b"abcde"),
        ("OPTIONS", "*", "", b""),
        ("GET", "/last", "", b""),
    ]
    assert sent.count(b"HTTP/1.1 200 OK") == 5
    assert conn.is_over, "HTTP/1.0 ends with its answer"


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
@settings(deadline=None, max_examples=300)
def test_no_bytes_raise(data: bytes, places: list[int]) -> None:
    """The peer's faults are events (docs/embedding.md, "The call contract")."""
    whole = drive(connection(), [data])
    assert drive(connection(), cut(data, places)) == whole


@given(
    st.lists(
        st.sampled_from(
            [
                b"GET",
                b" ",
                b"/",
                b"HTTP/1.1",
                b"\r\n",
                b"\n",
                b"Host: x",
                b"Content-Length: 2",
                b"Transfer-Encoding: chunked",
                b"ab",
                b"0\r\n\r\n",
                b":",
                b"Upgrade: websocket",
                b"Connection: upgrade",
                b"Expect: 100-continue",
            ]
        ),
        max_size=14,
    ),
    st.lists(st.integers(0, 300), max_size=4),
)
@settings(deadline=None, max_examples=300)
def test_no_mix_of_http_pieces_raises_or_depends_on_cuts(pieces: list[bytes], places: list[int]) -> None:
    data = b"".join(pieces)
    assert drive(connection(), cut(data, places)) == drive(connection(), [data])


def test_more_pipelining_than_is_kept_ends_the_connection() -> None:
    conn = connection(Limits(max_pipelined_bytes=1_000))
    events = list(conn.receive_data(GET + HOST + b"\r\n", 0.0))
    assert isinstance(events[0], RequestReceived)
    (violation,) = conn.receive_data(b"x" * 1_001, 0.0)
    assert isinstance(violation, PeerViolated)
    assert violation.rule == strictness.PIPELINE.source


_token = st.text(st.sampled_from("abz!#$%&'*+-.^_`|~09"), min_size=1, max_size=6)
_quoted = st.text(st.sampled_from('ab ;="\\\t'), max_size=6).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
_space = st.sampled_from(["", " ", "\t "])
_extension = st.builds(
    lambda parts, name, value: f"{parts[0]};{parts[1]}{name}" + (f"{parts[2]}={parts[3]}{value}" if value else ""),
    st.tuples(_space, _space, _space, _space), _token, st.none() | _token | _quoted,
)  # fmt: skip


@given(st.integers(0, 0xFFFF), st.lists(_extension, max_size=4))
def test_every_chunk_line_of_the_grammar_is_read(size: int, extensions: list[str]) -> None:
    """RFC 9112 7.1.1."""
    line = f"{size:x}{''.join(extensions)}".encode()
    assert strictness.check_chunk_line(line) == (size, None)
    for wrong in (b";", b" ;", b";=x", b";a=", b';a="'):
        assert strictness.check_chunk_line(line + wrong) == (0, strictness.CHUNK_EXTENSION)
