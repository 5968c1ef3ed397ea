"""The table of malformed and borderline requests: whole, byte by byte, and cut at random, the answer is one."""

from __future__ import annotations

import re
from random import Random

import pytest

from openguild_proto.events import RequestReceived, WebSocketRequested
from tests.proto.http.cases import CASES, TABLES, Case
from tests.support.wire import connection, cut, drive

RANDOM_CUTS = 20
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def answered(pieces: list[bytes]) -> tuple[tuple[int, ...], bool, tuple[bytes, ...], list[str]]:
    """Statuses, whether it ends, bodies, and paths of the requests that came through."""
    conn = connection()
    events, sent = drive(conn, pieces)
    requests = [event.request for event in events if isinstance(event, RequestReceived)]
    paths = [event.request.path for event in events if isinstance(event, RequestReceived | WebSocketRequested)]
    statuses = tuple(int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", sent) if found != b"100")
    return statuses, conn.is_over, tuple(request.body for request in requests), paths


def test_the_table_is_long_enough() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 120
    assert len({case.data for case in CASES}) > len(CASES) - 10, "hardly any twice"
    assert set(TABLES)


@cases
def test_the_answer(case: Case) -> None:
    statuses, closed, bodies, _ = answered([case.data])
    assert (statuses, closed, bodies) == (case.answers, case.closed, case.bodies)


@cases
def test_cuts_make_no_difference(case: Case) -> None:
    whole = answered([case.data])
    if len(case.data) < 20_000:
        assert answered([case.data[place : place + 1] for place in range(len(case.data))]) == whole
    random = Random(case.name)
    for _ in range(RANDOM_CUTS):
        places = [random.randrange(len(case.data) + 1) for _ in range(random.randrange(1, 8))]
        assert answered(cut(case.data, places)) == whole, places


@cases
def test_nothing_behind_a_refusal_is_interpreted(case: Case) -> None:
    if case.closed:
        assert "/smuggled" not in answered([case.data + SMUGGLED])[3]
        assert "/smuggled" not in answered([case.data, SMUGGLED])[3]
    elif case.answers != (101,):
        assert answered([case.data, SMUGGLED])[3][-1] == "/smuggled", "and the connection is usable"
