"""Refusals as exceptions, by status; they pass between processes."""

from __future__ import annotations

import pickle

import pytest

from openguild_proto.client import (
    ApiError,
    NotFound,
    Problem,
    RateLimited,
    Unauthorized,
    api_error,
    refused_command,
    session_end,
)
from openguild_proto.client.http import ClientResponse
from openguild_proto.gateway.client_events import Ended, Refused
from openguild_proto.gateway.close_codes import GatewayClose


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (404, NotFound), (429, RateLimited), (418, ApiError)]
)
def test_the_kind_is_that_of_the_status(status: int, kind: type[ApiError]) -> None:
    body = b'{"error":"c","message":"m","request_id":"r","details":[{"field":"f","message":"is bad"}]}'
    error = api_error(ClientResponse(status, (("retry-after", "3"),), body))
    assert type(error) is kind
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    for found in (error, again):
        assert (found.status, found.code, found.request_id, found.retry_after_secs) == (status, "c", "r", 3.0)
        assert found.details == (Problem("f", "is bad"),)
        assert str(found) == f"{status} c: m (f is bad)"


def test_a_refused_command_has_the_status_of_its_code() -> None:
    assert refused_command(Refused(1, "message_rate_limit", "m", 1_500, ())).retry_after_secs == 1.5
    assert type(refused_command(Refused(1, "not_found", "m", None, ()))) is NotFound
    assert refused_command(Refused(1, "a_later_code", "m", None, ())).status == 400


def test_only_the_close_code_of_an_ended_session_is_a_401() -> None:
    ended = session_end(Ended(GatewayClose.SESSION_ENDED, "session ended"))
    assert (type(ended), str(ended)) == (Unauthorized, "401 unauthorized: session ended")
    assert session_end(Ended(GatewayClose.PROTOCOL_ERROR, "")) is None
    assert session_end(Ended(None, "closed")) is None
