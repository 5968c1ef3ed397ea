"""One answer at a time, however it is cut; broken connections are told apart from answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.client import ConnectionBroken, HttpClient
from openguild_proto.errors import LocalProtocolError
from tests.support.wire import cut

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\nhello"


@given(st.lists(st.integers(1, len(ANSWER) - 1)))
def test_an_answer_may_be_cut_anywhere(places: list[int]) -> None:
    http = HttpClient("h")
    http.send_request("GET", "/x")
    answers = [http.receive_data(piece) for piece in cut(ANSWER, places)]
    assert answers[:-1] == [None] * (len(answers) - 1)
    assert answers[-1] is not None
    assert (answers[-1].status, answers[-1].body, answers[-1].header("content-type")) == (
        200, b"hello", "application/json",
    )  # fmt: skip
    assert http.reusable


def test_a_connection_that_ends_early_is_broken() -> None:
    unanswered = HttpClient("h")
    unanswered.send_request("GET", "/x")
    with pytest.raises(ConnectionBroken, match=r"^the connection ended$"):
        unanswered.receive_data(b"")
    http = HttpClient("h")
    http.send_request("GET", "/x")
    with pytest.raises(LocalProtocolError):
        http.send_request("GET", "/y")
    assert http.receive_data(ANSWER[:-2]) is None
    with pytest.raises(ConnectionBroken, match=r"^the connection ended$"):
        http.receive_data(b"")


def test_a_closing_answer_ends_the_connection() -> None:
    http = HttpClient("h")
    http.send_request("POST", "/x", (("content-type", "application/json"),), b"{}")
    assert http.receive_data(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) is not None
    assert not http.reusable
