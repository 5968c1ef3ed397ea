"""Rules for requests that h11 does not enforce, each with its source.

They check single lines or the parsed head, so the result does not depend on how TCP splits the bytes. After a broken rule
the server responds once, closes the connection, and ignores the rest.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import Headers
from openguild_proto.limits import MAX_METHOD_BYTES


class Rule(NamedTuple):
    """A rule. `source`: RFC section and summary, for the log. `code`: of the error response."""

    source: str
    code: ErrorCode = ErrorCode.INVALID_REQUEST


BARE_LF = Rule("RFC 9112 2.2: a line must end with CRLF")
BARE_CR = Rule("RFC 9112 2.2: bare CR within a line")
CONTROL = Rule("RFC 9110 5.5: control characters in the head")
LEADING_EMPTY_LINES = Rule("RFC 9112 2.2: more than one empty line before the request line")
METHOD_TOO_LONG = Rule("RFC 9110 15.6.2: a method longer than any known one", ErrorCode.NOT_IMPLEMENTED)
TARGET_TOO_LONG = Rule("RFC 9112 3: request target too long", ErrorCode.URI_TOO_LONG)
REQUEST_LINE = Rule("RFC 9112 3: malformed request line")
VERSION = Rule("RFC 9110 2.5: only HTTP/1.0 and HTTP/1.1 are supported", ErrorCode.HTTP_VERSION)
TARGET_FORM = Rule("RFC 9112 3.2: only the origin and absolute forms of the target, or * for OPTIONS, are served")
TARGET_CHARACTERS = Rule("RFC 3986 2: characters that a target must not contain")
OBS_FOLD = Rule("RFC 9112 5.2: obsolete line folding")
HEADER_LINE = Rule("RFC 9112 5: malformed header field")
SPACE_BEFORE_COLON = Rule("RFC 9112 5.1: whitespace before the colon")
HEADER_TOO_LONG = Rule("RFC 6585 5: header field too long", ErrorCode.HEADERS_TOO_LARGE)
TOO_MANY_HEADERS = Rule("RFC 6585 5: too many header fields", ErrorCode.HEADERS_TOO_LARGE)
HEAD_TOO_LARGE = Rule("RFC 6585 5: request head too large", ErrorCode.HEADERS_TOO_LARGE)
HOST_COUNT = Rule("RFC 9112 3.2: exactly one Host header field")
HOST_VALUE = Rule("RFC 9110 7.2: malformed Host")
LENGTH_WITH_CODING = Rule("RFC 9112 6.1: Content-Length with Transfer-Encoding")
LENGTH_REPEATED = Rule("RFC 9112 6.3: repeated Content-Length")
LENGTH_VALUE = Rule("RFC 9110 8.6: Content-Length is not a number")
CODING_UNKNOWN = Rule("RFC 9112 6.1: only the chunked transfer coding, once", ErrorCode.NOT_IMPLEMENTED)
CODING_IN_1_0 = Rule("RFC 9112 6.1: Transfer-Encoding in HTTP/1.0")
BODY_TOO_LARGE = Rule("RFC 9110 15.5.14: the declared or chunked body is over the limit", ErrorCode.TOO_LARGE)
EXPECTATION = Rule("RFC 9110 10.1.1: unknown expectation", ErrorCode.EXPECTATION_FAILED)
CHUNK_SIZE = Rule("RFC 9112 7.1: malformed chunk size")
CHUNK_LINE_TOO_LONG = Rule("RFC 9112 7.1.1: chunk extensions too long")
CHUNK_EXTENSION = Rule("RFC 9112 7.1.1: malformed chunk extension")
CHUNK_COUNT = Rule("RFC 9112 7.1: too many chunks", ErrorCode.TOO_LARGE)
CHUNK_END = Rule("RFC 9112 7.1: a chunk must end with CRLF")
TRAILER_TOO_LARGE = Rule("RFC 9112 7.1.2: trailer section too large", ErrorCode.HEADERS_TOO_LARGE)
LIBRARY = Rule("RFC 9112: refused by the parser")
PIPELINE = Rule("RFC 9112 9.3.2: too many pipelined bytes")

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
WHOLE_TOKEN = re.compile(TOKEN)
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([^ ]+) HTTP/([0-9])\.([0-9])")
_HEADER = re.compile(rb"(" + TOKEN + rb"):[\t -~\x80-\xff]*")
_BAD_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TARGET = re.compile(rb"[!-~]+")  # visible ASCII; '#' is checked separately
_NAME = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]"
HOST = re.compile(_NAME + "*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile("https?://" + _NAME + "+)(?::[0-9]{0,5})?((?:[/?].*)?)", re.IGNORECASE)
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'  # RFC 9110 5.6.4
_EXTENSION = rb"[\t ]*;[\t ]*" + TOKEN + rb"(?:[\t ]*=[\t ]*(?:" + TOKEN + rb"|" + _QUOTED + rb"))?"  # RFC 9112 7.1.1
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:" + _EXTENSION + rb")*")


def check_line(line: bytes) -> Rule | None:
    """Check the end and the characters of a line, given with its LF. Return the broken rule, or None."""
    if not line.endswith(b"\r\n"):
        return BARE_LF
    if b"\r" in line[:-2]:
        return BARE_CR
    return CONTROL if _BAD_CONTROL.search(line, 0, len(line) - 2) else None


def check_request_line(line: bytes, max_target_bytes: int) -> Rule | None:
    """Check a request line, given without CRLF. Return the broken rule, or None."""
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        return REQUEST_LINE
    if len(matched[1]) > MAX_METHOD_BYTES:
        return METHOD_TOO_LONG
    target = matched[2]
    if len(target) > max_target_bytes:
        return TARGET_TOO_LONG
    if matched[3] != b"1" or matched[4] not in {b"0", b"1"}:
        return VERSION
    if _TARGET.fullmatch(target) is None or b"#" in target:
        return TARGET_CHARACTERS
    path_form = (target.startswith(b"/") or _ABSOLUTE.fullmatch(target.decode("ascii"))) and matched[1] != b"CONNECT"
    if not path_form and not (target == b"*" and matched[1] == b"OPTIONS"):
        return TARGET_FORM
    return None


def path_and_query(target: str) -> tuple[str, str]:
    """Split a checked target into path and query. The host of the absolute form is dropped (RFC 9112 3.2.2)."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        target = absolute[1]
    path, _, query = target.partition("?")
    return path or "/", query


def check_header_line(line: bytes) -> Rule | None:
    """Check a header field, given without CRLF. Return the broken rule, or None."""
    if line[:1] in {b" ", b"\t"}:
        return OBS_FOLD
    if _HEADER.fullmatch(line) is None:
        name, colon, _ = line.partition(b":")
        return SPACE_BEFORE_COLON if colon and name != name.rstrip(b" \t") else HEADER_LINE
    return None


def check_chunk_line(line: bytes) -> tuple[int, Rule | None]:
    """Return the size of a chunk and the broken rule, if any. `line`: without CRLF."""
    matched = _CHUNK.fullmatch(line)
    if matched is None:
        return 0, CHUNK_EXTENSION if b";" in line else CHUNK_SIZE
    return int(matched[1], 16), None


class Framing(msgspec.Struct, frozen=True, gc=False):
    """The framing of the body: `length` bytes, or chunked."""

    length: int
    chunked: bool
    expects_continue: bool


def check_head(version: str, headers: Headers, max_body_bytes: int) -> Framing | Rule:
    """Check the rules for the whole head. Return the framing of the body, or the broken rule. Names are lower case."""
    hosts, lengths, codings, expectations = (
        [value for name, value in headers if name == wanted]
        for wanted in ("host", "content-length", "transfer-encoding", "expect")
    )
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return HOST_COUNT
    if hosts and HOST.fullmatch(hosts[0]) is None:
        return HOST_VALUE
    if lengths and codings:
        return LENGTH_WITH_CODING
    if len(lengths) > 1 or (lengths and "," in lengths[0]):
        return LENGTH_REPEATED
    length = 0
    if lengths:
        if not (lengths[0].isascii() and lengths[0].isdigit()):
            return LENGTH_VALUE
        if len(lengths[0]) > 18 or int(lengths[0]) > max_body_bytes:
            return BODY_TOO_LARGE
        length = int(lengths[0])
    if codings:
        if version == "1.0":
            return CODING_IN_1_0
        if len(codings) > 1 or codings[0].lower() != "chunked":
            return CODING_UNKNOWN
    if expectations and (len(expectations) > 1 or expectations[0].lower() != "100-continue"):
        return EXPECTATION
    has_body = bool(codings) or length > 0
    return Framing(length, bool(codings), bool(expectations) and has_body and version == "1.1")
