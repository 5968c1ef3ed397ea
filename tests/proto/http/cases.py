"""Malformed and borderline requests, each with the answer that is wanted and the section that says so.

`answers`: the statuses sent, in order; a request that is taken is answered with 200 by the tests, an upgrade with 101.
`closed`: the connection ends after the last of them. Nothing behind a refusal may ever be interpreted.
"""

from __future__ import annotations

from typing import NamedTuple

HOST = b"Host: localhost\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


class Case(NamedTuple):
    name: str
    section: str  # of an RFC
    data: bytes
    answers: tuple[int, ...]
    closed: bool
    bodies: tuple[bytes, ...] = ()  # of the requests that are taken


def refused(name: str, section: str, data: bytes, status: int = 400) -> Case:
    return Case(name, section, data, (status,), closed=True)


def taken(name: str, section: str, data: bytes, *bodies: bytes, closed: bool = False) -> Case:
    bodies = bodies or (b"",)
    return Case(name, section, data, (200,) * len(bodies), closed, bodies)


def line(text: bytes) -> bytes:
    """A request with this request line."""
    return text + b"\r\n" + HOST + b"\r\n"


def field(text: bytes) -> bytes:
    """A GET with this header line."""
    return b"GET / HTTP/1.1\r\n" + HOST + text + b"\r\n\r\n"


def host(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def length(value: bytes, body: bytes = b"") -> bytes:
    return post(b"Content-Length: " + value + b"\r\n", body)


def coding(value: bytes, body: bytes = b"0\r\n\r\n") -> bytes:
    return post(b"Transfer-Encoding: " + value + b"\r\n", body)


def chunks(body: bytes) -> bytes:
    return coding(b"chunked", body)


def upgrade(fields: bytes, first: bytes = b"GET / HTTP/1.1\r\n") -> bytes:
    return first + HOST + fields + b"\r\n"


WEBSOCKET = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"

REQUEST_LINES = (
    taken("plain", "9112 3", line(b"GET / HTTP/1.1")),
    taken("any token is a method", "9110 9.1", line(b"!#$%&'*+-.^_`|~ / HTTP/1.1")),
    taken("the longest method", "9110 9.1", line(b"M" * 32 + b" / HTTP/1.1")),
    refused("a longer method", "9110 15.6.2", line(b"M" * 33 + b" / HTTP/1.1"), 501),
    refused("a method of 8,000 bytes", "9112 3", line(b"token" + b"a-" * 4_000 + b" / HTTP/1.1"), 501),
    refused("a longer method in 1.0", "9112 3", line(b"M" * 33 + b" / HTTP/1.0"), 501),
    taken("query", "9112 3.2.1", line(b"GET /a?b=c&d HTTP/1.1")),
    taken("two slashes", "9112 3.2.1", line(b"GET //a HTTP/1.1")),
    taken("percent-encoded NUL is data", "3986 2.1", line(b"GET /%00 HTTP/1.1")),
    taken("asterisk for OPTIONS", "9112 3.2.4", line(b"OPTIONS * HTTP/1.1")),
    taken("one empty line before", "9112 2.2", b"\r\n" + line(b"GET / HTTP/1.1")),
    taken("the longest target", "9112 3", line(b"GET /" + b"x" * 8_191 + b" HTTP/1.1")),
    refused("one longer", "9112 3", line(b"GET /" + b"x" * 8_192 + b" HTTP/1.1"), 414),
    refused("endless request line", "9112 3", b"G" * 9_000, 414),
    refused("two empty lines before", "9112 2.2", b"\r\n\r\n" + line(b"GET / HTTP/1.1")),
    refused("no request line", "9112 3", line(b"hello")),
    refused("HTTP/0.9", "9112 3", line(b"GET /")),
    refused("two spaces", "9112 3", line(b"GET  / HTTP/1.1")),
    refused("tab for a space", "9112 3", line(b"GET\t/ HTTP/1.1")),
    refused("leading space", "9112 3", line(b" GET / HTTP/1.1")),
    refused("trailing space", "9112 3", line(b"GET / HTTP/1.1 ")),
    refused("space in target", "9112 3.2", line(b"GET /a b HTTP/1.1")),
    refused("no target", "9112 3", line(b"GET HTTP/1.1")),
    refused("bracket in method", "9110 9.1", line(b"G(T / HTTP/1.1")),
    refused("non-ASCII method", "9110 9.1", line(b"G\xc3\x89T / HTTP/1.1")),
    refused("lower-case version", "9112 2.3", line(b"GET / http/1.1")),
    refused("two digits of version", "9112 2.3", line(b"GET / HTTP/1.10")),
    refused("no minor version", "9112 2.3", line(b"GET / HTTP/1")),
    refused("HTTP/0.9 by name", "9110 2.5", line(b"GET / HTTP/0.9"), 505),
    refused("HTTP/1.2", "9110 2.5", line(b"GET / HTTP/1.2"), 505),
    refused("HTTP/2.0", "9110 2.5", line(b"GET / HTTP/2.0"), 505),
    refused("HTTP/2 preface", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    refused("HTTP/9.9", "9110 2.5", line(b"GET / HTTP/9.9"), 505),
    taken("absolute form", "9112 3.2.2", line(b"GET http://x:80/a?b HTTP/1.1")),
    taken("absolute form, https, no path", "9110 4.2.2", line(b"GET HTTPS://[::1] HTTP/1.1")),
    refused("absolute form with a user", "9110 4.2.4", line(b"GET http://u@x/ HTTP/1.1")),
    refused("absolute form without a host", "9110 4.2.1", line(b"GET http:///a HTTP/1.1")),
    refused("absolute form of another scheme", "9112 3.2.2", line(b"GET ftp://x/ HTTP/1.1")),
    refused("authority form", "9112 3.2.3", line(b"CONNECT x:1 HTTP/1.1")),
    refused("CONNECT with a path", "9112 3.2.3", line(b"CONNECT / HTTP/1.1")),
    refused("asterisk for GET", "9112 3.2.4", line(b"GET * HTTP/1.1")),
    refused("relative target", "9112 3.2", line(b"GET a HTTP/1.1")),
    refused("fragment", "9112 3.2", line(b"GET /#a HTTP/1.1")),
    refused("non-ASCII target", "3986 2", line(b"GET /\xc3\xa9 HTTP/1.1")),
    refused("NUL in target", "9110 5.5", line(b"GET /\0 HTTP/1.1")),
    refused("DEL in target", "9110 5.5", line(b"GET /\x7f HTTP/1.1")),
    refused("bare LF everywhere", "9112 2.2", b"GET / HTTP/1.1\nHost: x\n\n"),
    refused("bare CR in request line", "9112 2.2", line(b"GET /\rx HTTP/1.1")),
    refused("a TLS handshake", "9112 3", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"),
)

FIELDS = (
    taken("tab within a value", "9110 5.5", field(b"A: b\tc")),
    taken("obs-text", "9110 5.5", field(b"A: \x80\xff")),
    taken("empty value", "9110 5.5", field(b"A:")),
    taken("no space after the colon", "9112 5", field(b"A:b")),
    taken("colon within a value", "9112 5", field(b"A: b:c")),
    taken("a hundred fields", "6585 5", field(b"\r\n".join([b"A: b"] * 99))),
    taken("the longest field", "6585 5", field(b"A: " + b"x" * 8_187)),
    refused("one longer", "6585 5", field(b"A: " + b"x" * 8_190), 431),
    refused("endless field", "6585 5", b"GET / HTTP/1.1\r\nA: " + b"x" * 9_000, 431),
    refused("a hundred and one fields", "6585 5", field(b"\r\n".join([b"A: b"] * 101)), 431),
    refused("large head", "6585 5", field(b"\r\n".join([b"A: " + b"x" * 8_000] * 5)), 431),
    refused("bare LF", "9112 2.2", b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"),
    refused("bare CR", "9112 2.2", field(b"A: b\rc")),
    refused("CR before CRLF", "9112 2.2", field(b"A: b\r")),
    refused("NUL in value", "9110 5.5", field(b"A: b\0c")),
    refused("NUL in name", "9110 5.5", field(b"A\0: b")),
    refused("vertical tab in value", "9110 5.5", field(b"A: b\x0bc")),
    refused("form feed in value", "9110 5.5", field(b"A: b\x0cc")),
    refused("escape in value", "9110 5.5", field(b"A: \x1b[0m")),
    refused("DEL in value", "9110 5.5", field(b"A: \x7f")),
    refused("obs-fold by space", "9112 5.2", field(b"A: b\r\n c")),
    refused("obs-fold by tab", "9112 5.2", field(b"A: b\r\n\tc")),
    refused("space before the first field", "9112 2.2", b"GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
    refused("no colon", "9112 5", field(b"A")),
    refused("empty name", "9112 5.1", field(b": x")),
    refused("space before colon", "9112 5.1", field(b"A : x")),
    refused("tab before colon", "9112 5.1", field(b"A\t: x")),
    refused("space in name", "9112 5.1", field(b"A B: x")),
    refused("at sign in name", "9110 5.1", field(b"A@: x")),
    refused("bracket in name", "9110 5.1", field(b"A(b): x")),
    refused("quote in name", "9110 5.1", field(b'"A": x')),
    refused("non-ASCII name", "9110 5.1", field(b"\xc3\x84: x")),
)

HOSTS = (
    taken("empty", "9112 3.2", host(b"")),
    taken("with port", "9110 7.2", host(b"localhost:8080")),
    taken("empty port", "3986 3.2.3", host(b"localhost:")),
    taken("IPv6", "3986 3.2.2", host(b"[::1]:8080")),
    taken("underscore", "3986 3.2.2", host(b"my_host")),
    taken("none in 1.0", "9112 3.2", b"GET / HTTP/1.0\r\n\r\n", closed=True),
    refused("none", "9112 3.2", b"GET / HTTP/1.1\r\n\r\n"),
    refused("two", "9112 3.2", field(b"Host: localhost")),
    refused("two in other letters", "9112 3.2", field(b"HOST: localhost")),
    refused("list", "9112 3.2", host(b"a, b")),
    refused("userinfo", "9110 7.2", host(b"a@b")),
    refused("path", "9110 7.2", host(b"a/b")),
    refused("query", "9110 7.2", host(b"a?b")),
    refused("fragment", "9110 7.2", host(b"a#b")),
    refused("space", "9110 7.2", host(b"a b")),
    refused("backslash", "9110 7.2", host(b"a\\b")),
    refused("letters for a port", "3986 3.2.3", host(b"a:b")),
    refused("two ports", "3986 3.2.3", host(b"a:1:2")),
    refused("six digits of port", "3986 3.2.3", host(b"a:123456")),
    refused("open bracket", "3986 3.2.2", host(b"[::1")),
    refused("URL", "9110 7.2", host(b"http://a")),
)

LENGTHS = (
    taken("with a body", "9112 6.3", length(b"5", b"hello"), b"hello"),
    taken("zero", "9112 6.3", length(b"0")),
    taken("leading zeros", "9110 8.6", length(b"0005", b"hello"), b"hello"),
    taken("spaces around", "9110 5.5", length(b"  5\t", b"hello"), b"hello"),
    taken("body of a GET", "9110 9.3.1", b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nab", b"ab"),
    refused("plus", "9110 8.6", length(b"+5", b"hello")),
    refused("minus", "9110 8.6", length(b"-1")),
    refused("hexadecimal", "9110 8.6", length(b"0x5", b"hello")),
    refused("fraction", "9110 8.6", length(b"5.0", b"hello")),
    refused("exponent", "9110 8.6", length(b"1e1")),
    refused("underscore", "9110 8.6", length(b"1_0")),
    refused("empty", "9110 8.6", length(b"")),
    refused("two numbers", "9110 8.6", length(b"5 5", b"hello")),
    refused("other digits", "9110 8.6", length("٥".encode(), b"hello")),
    refused("semicolon", "9110 8.6", length(b"5;", b"hello")),
    refused("list", "9112 6.3", length(b"5, 5", b"hello")),
    refused("list of one", "9112 6.3", length(b"5,", b"hello")),
    refused("twice the same", "9112 6.3", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello")),
    refused("twice different", "9112 6.3", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!")),
    refused("over the limit", "9110 15.5.14", length(b"2097153"), 413),
    refused("absurd", "9110 15.5.14", length(b"9" * 20), 413),
    refused("of 64 bits and more", "9110 15.5.14", length(b"18446744073709551621"), 413),
)

CODINGS = (
    taken("chunked", "9112 6.1", chunks(b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    taken("in capitals", "9112 7", coding(b"CHUNKED", b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    taken("spaces around", "9110 5.5", coding(b" chunked\t", b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    refused("with length", "9112 6.1", post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
    refused("before length", "9112 6.1", post(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n")),
    refused("with length zero", "9112 6.1", post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
    refused("in 1.0", "9112 6.1", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("gzip", "9112 6.1", coding(b"gzip"), 501),
    refused("gzip, chunked", "9112 6.1", coding(b"gzip, chunked"), 501),
    refused("chunked, gzip", "9112 6.3", coding(b"chunked, gzip"), 501),
    refused("identity", "9112 7", coding(b"identity"), 501),
    refused("chunked twice", "9112 6.1", coding(b"chunked, chunked"), 501),
    refused("two fields", "9112 6.1", post(b"Transfer-Encoding: chunked\r\n" * 2, b"0\r\n\r\n"), 501),
    refused("like chunked", "9112 6.1", coding(b"xchunked"), 501),
    refused("with a parameter", "9112 7", coding(b"chunked;q=1"), 501),
    refused("quoted", "9112 7", coding(b'"chunked"'), 501),
    refused("empty", "9112 6.1", coding(b""), 501),
    refused("vertical tab before", "9110 5.5", coding(b"\x0bchunked")),
)

CHUNKS = (
    taken("hexadecimal in capitals", "9112 7.1", chunks(b"A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    taken("hexadecimal", "9112 7.1", chunks(b"a\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    taken("leading zeros", "9112 7.1", chunks(b"0003\r\nabc\r\n000\r\n\r\n"), b"abc"),
    taken("extension", "9112 7.1.1", chunks(b"3;a=b\r\nabc\r\n0;c\r\n\r\n"), b"abc"),
    taken("quoted extension", "9112 7.1.1", chunks(b'3;a="b;c"\r\nabc\r\n0\r\n\r\n'), b"abc"),
    taken("space before the extension", "9112 7.1.1", chunks(b"3 ;a\r\nabc\r\n0\r\n\r\n"), b"abc"),
    taken("space everywhere it may be", "9112 7.1.1", chunks(b"3\t; a \t= b ;c\r\nabc\r\n0\r\n\r\n"), b"abc"),
    taken("several extensions", "9112 7.1.1", chunks(b'3;a;b=c;d="e"\r\nabc\r\n0;z=1\r\n\r\n'), b"abc"),
    taken("quoted pair", "9110 5.6.4", chunks(b'3;a="\\"\\\\;"\r\nabc\r\n0\r\n\r\n'), b"abc"),
    taken("empty quoted value", "9110 5.6.4", chunks(b'3;a=""\r\nabc\r\n0\r\n\r\n'), b"abc"),
    *(
        refused(f"extension {line.decode('latin-1')!r}", "9112 7.1.1", chunks(line + b"\r\nabc\r\n0\r\n\r\n"))
        for line in (
            b"3;",
            b"3 ;",
            b"3; ",
            b"3;;a",
            b"3;a;",
            b"3;=x",
            b"3;a=",
            b"3;a=;b",
            b"3;a= ",
            b"3;a b",
            b"3;a=b c",
            b"3;a=b=c",
            b"3;a,b",
            b'3;a="',
            b'3;a="b',
            b'3;a="b\\"',
            b'3;a="b"c',
            b'3;a=b"c"',
            b'3;"a"',
            b"3;a\x80",
            b"3;a=\xe4",
            b"3;a ",
            b"3;a=b ",
            b"3;(a)",
            b"3;a=@",
        )
    ),
    refused("an extension without a name behind the last chunk", "9112 7.1.1", chunks(b"3\r\nabc\r\n0;\r\n\r\n")),
    refused("LF after an extension", "9112 2.2", chunks(b"3;a\nabc\r\n0\r\n\r\n")),
    taken("trailers", "9112 7.1.2", chunks(b"3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n"), b"abc"),
    taken("framing in trailers is no framing", "9110 6.5.1", chunks(b"1\r\na\r\n0\r\nContent-Length: 9\r\n\r\n"), b"a"),
    taken("a thousand of one byte", "9112 7.1", chunks(b"1\r\nx\r\n" * 1_000 + b"0\r\n\r\n"), b"x" * 1_000),
    taken("as many as there may be", "9112 7.1", chunks(b"1\r\nx\r\n" * 4_095 + b"0\r\n\r\n"), b"x" * 4_095),
    refused("one more", "9112 7.1", chunks(b"1\r\nx\r\n" * 4_096 + b"0\r\n\r\n"), 413),
    taken("CRLF as data", "9112 7.1", chunks(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), b"\r\n\r\n"),
    refused("no number", "9112 7.1", chunks(b"zz\r\n")),
    refused("empty line", "9112 7.1", chunks(b"\r\n")),
    refused("minus", "9112 7.1", chunks(b"-1\r\n")),
    refused("plus", "9112 7.1", chunks(b"+1\r\nx\r\n0\r\n\r\n")),
    refused("prefix", "9112 7.1", chunks(b"0x1\r\nx\r\n0\r\n\r\n")),
    refused("underscore", "9112 7.1", chunks(b"1_0\r\n")),
    refused("leading space", "9112 7.1", chunks(b" 1\r\nx\r\n0\r\n\r\n")),
    refused("trailing space", "9112 7.1", chunks(b"1 \r\nx\r\n0\r\n\r\n")),
    refused("nine digits", "9112 7.1", chunks(b"000000001\r\nx\r\n0\r\n\r\n")),
    refused("endless size", "9112 7.1.1", chunks(b"0" * 300)),
    refused("endless extension", "9112 7.1.1", chunks(b"1;" + b"a" * 300 + b"\r\n")),
    refused("NUL in extension", "9110 5.5", chunks(b"1;a=\0\r\nx\r\n")),
    refused("CR in extension", "9112 2.2", chunks(b"1;a\rb\r\nx\r\n")),
    refused("LF after the size", "9112 2.2", chunks(b"1\nx\r\n0\r\n\r\n")),
    refused("longer than said", "9112 7.1", chunks(b"1\r\nxyz\r\n0\r\n\r\n")),
    refused("LF after the data", "9112 7.1", chunks(b"1\r\nx\n0\r\n\r\n")),
    refused("over the limit", "9110 15.5.14", chunks(b"200001\r\n"), 413),
    refused("over the limit together", "9110 15.5.14", chunks(b"1\r\nx\r\n200000\r\n"), 413),
    refused("large trailers", "6585 5", chunks(b"0\r\n" + (b"A: " + b"x" * 5_000 + b"\r\n") * 2), 431),
    refused("space in a trailer's name", "9112 5.1", chunks(b"0\r\nA : b\r\n\r\n")),
    refused("folded trailer", "9112 5.2", chunks(b"0\r\nA: b\r\n c\r\n\r\n")),
    refused("LF in trailers", "9112 2.2", chunks(b"0\r\nA: b\n\r\n")),
)

GET = line(b"GET / HTTP/1.1")
CONNECTIONS = (
    taken("two in one piece", "9112 9.3.2", GET + GET, b"", b""),
    taken("a body between", "9112 9.3.2", GET + length(b"2", b"ab") + GET, b"", b"ab", b""),
    taken("chunks between", "9112 9.3.2", chunks(b"1\r\na\r\n0\r\n\r\n") + GET, b"a", b""),
    taken("empty line between", "9112 2.2", GET + b"\r\n" + GET, b"", b""),
    taken("close", "9112 9.6", field(b"Connection: close") + GET, closed=True),
    taken("close in capitals among others", "9112 9.6", field(b"Connection: X, CLOSE") + GET, closed=True),
    taken("1.0", "9112 9.3", b"GET / HTTP/1.0\r\n\r\n" + GET, closed=True),
    Case("good, then bad", "9112 9.3.2", GET + b"\0\r\n" + GET, (200, 400), closed=True, bodies=(b"",)),
    Case(
        "more than its length",
        "9112 9.3.2",
        length(b"2", b"abXX / HTTP/1.1\n"),
        (200, 400),
        closed=True,
        bodies=(b"ab",),
    ),
    taken("expectation", "9110 10.1.1", post(b"Content-Length: 2\r\nExpect: 100-continue\r\n", b"ab"), b"ab"),
    taken(
        "expectation in capitals", "9110 10.1.1", post(b"Content-Length: 2\r\nExpect: 100-CONTINUE\r\n", b"ab"), b"ab"
    ),
    taken("expectation without a body", "9110 10.1.1", field(b"Expect: 100-continue")),
    refused("other expectation", "9110 10.1.1", post(b"Expect: miracles\r\n"), 417),
    refused("two expectations", "9110 10.1.1", post(b"Expect: 100-continue\r\n" * 2), 417),
)

UPGRADES = (
    Case("websocket", "6455 4.2.1", upgrade(WEBSOCKET + KEY), (101,), closed=False),
    Case("tokens among others", "6455 4.2.1", upgrade(
        b"Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n" + KEY), (101,), closed=False),
    taken("to something else is ignored", "9110 7.8", upgrade(b"Upgrade: h2c\r\nConnection: Upgrade\r\n")),
    refused("without Connection", "6455 4.2.1", upgrade(b"Upgrade: websocket\r\n")),
    refused("with a body", "6455 4.1", upgrade(WEBSOCKET + KEY + b"Content-Length: 2\r\n") + b"ab"),
    refused("with chunks", "6455 4.1", upgrade(WEBSOCKET + KEY + b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n"),
    refused("without a key", "6455 4.2.1", upgrade(WEBSOCKET)),
    refused("with two keys", "6455 4.2.1", upgrade(WEBSOCKET + KEY + KEY)),
    refused("with a short key", "6455 4.2.1", upgrade(WEBSOCKET + b"Sec-WebSocket-Key: c2hvcnQ=\r\n")),
    refused("with a key that is not base64", "6455 4.2.1", upgrade(WEBSOCKET + b"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\n")),
    refused("of an old version", "6455 4.4", upgrade(WEBSOCKET.replace(b"13", b"8") + KEY), 426),
    refused("without a version", "6455 4.2.1", upgrade(b"Upgrade: websocket\r\nConnection: Upgrade\r\n" + KEY), 426),
    refused("by POST", "6455 4.1", upgrade(WEBSOCKET + KEY, b"POST / HTTP/1.1\r\n")),
    refused("in 1.0", "6455 4.1", upgrade(WEBSOCKET + KEY, b"GET / HTTP/1.0\r\n")),
)  # fmt: skip

TABLES = {
    "request line": REQUEST_LINES, "field": FIELDS, "Host": HOSTS, "Content-Length": LENGTHS,
    "Transfer-Encoding": CODINGS, "chunk": CHUNKS, "connection": CONNECTIONS, "upgrade": UPGRADES,
}  # fmt: skip
CASES = tuple(case._replace(name=f"{table}: {case.name}") for table, cases in TABLES.items() for case in cases)
