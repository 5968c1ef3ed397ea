"""Token lifetimes by the server's clock, and the next step after a response."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from openguild_proto.canonical.keys import KeyRing, encode_unpadded
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.client import ResumePosition, Session, Step, api_error, next_step
from openguild_proto.client.http import ClientResponse
from openguild_proto.sessions.tokens import Claims, TokenAuthority

ISSUED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "repeatable", "step"),
    [
        (200, False, Step.DONE), (401, True, Step.REFRESH), (503, True, Step.RETRY), (503, False, Step.FAIL),
        (429, True, Step.RETRY), (409, True, Step.FAIL), (404, True, Step.FAIL), (500, True, Step.RETRY),
    ],
)  # fmt: skip
def test_the_next_step_after_a_response(status: int, repeatable: bool, step: Step) -> None:
    answer = ClientResponse(status, (("retry-after", "3"),), b"")
    assert next_step(answer, repeatable=repeatable) == (step, 3.0 if step is Step.RETRY else None)


def test_errors_with_any_body_are_typed() -> None:
    ours = api_error(ClientResponse(409, (), b'{"error":"nonce_reused","message":"m","request_id":"r"}'))
    assert (ours.status, ours.code, ours.request_id) == (409, "nonce_reused", "r")
    assert api_error(ClientResponse(502, (), b"<html>")).code == "unknown"


def pair(life_secs: int, token: str = "opaque") -> bytes:
    """The body of a server's answer to a login or refresh."""
    return msgspec.json.encode(
        {
            "access_token": token, "access_expires_at": (ISSUED + timedelta(seconds=life_secs)).isoformat(),
            "refresh_token": "r", "refresh_expires_at": "2026-02-01T00:00:00Z",
        }
    )  # fmt: skip


def issued(at: datetime) -> str:
    """A token as the server makes it; of its times the bearer reads only this one."""
    return TokenAuthority(KeyRing(SigningKey(bytes(32)))).issue(
        Claims("s", "u", "name", int(at.timestamp()) * 10**6, 0)
    )


def test_a_session_is_stale_before_its_token_expires() -> None:
    session = Session.of(pair(600, issued(ISSUED)), now=1_000.0)
    assert not session.is_stale(1_539.9)
    assert session.is_stale(1_540.0), "a minute ahead of the end"


def test_a_short_lifetime_is_refreshed_in_its_last_tenth() -> None:
    session = Session.of(pair(10, issued(ISSUED)), now=0.0)
    assert not session.is_stale(8.9)
    assert session.is_stale(9.0)


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "no.token",
        encode_unpadded(b'{"session_id":"s","user_id":"u"}') + ".x",
        issued(ISSUED + timedelta(hours=1)),  # ended before it was issued: no clock to count by
    ],
)
def test_an_unknown_lifetime_waits_for_a_401(token: str) -> None:
    assert not Session.of(pair(600, token), now=0.0).is_stale(10**9)


def test_positions_are_stored_with_the_pair_and_go_to_the_next_session() -> None:
    session = Session("a", "r", positions={"channel:c": ResumePosition(2, 7)})
    kept = Session.from_dict(json.loads(json.dumps(session.to_dict())))
    assert kept.positions == session.positions
    assert Session.from_dict({"access_token": "a", "refresh_token": "r"}).positions == {}


@pytest.mark.parametrize("tokens", [(1, "r"), ("a", None)])
def test_tokens_that_are_none_are_refused(tokens: tuple[object, object]) -> None:
    with pytest.raises(ValueError, match="token"):
        Session.from_dict(dict(zip(("access_token", "refresh_token"), tokens, strict=True)))


@pytest.mark.parametrize("positions", [[1], {"x": [1]}, {"x": 5}, {"x": [1, "seven"]}])
def test_positions_that_are_none_are_refused(positions: object) -> None:
    with pytest.raises(ValueError):
        Session.from_dict({"access_token": "a", "refresh_token": "r", "positions": positions})
