"""What the gateway's client is asked for and cannot do: it says so, and changes nothing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_logs import ResumePosition
from openguild_proto.gateway.client_phases import ClientPhase
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.limits import MAX_GATEWAY_LOGS
from tests.proto.gateway.test_client import LOG, Scripted
from tests.support.gateway import EPOCH, log_name


@pytest.mark.parametrize(
    "wrong",
    [
        {"channel:x": [EPOCH, 1]},
        {log_name(2): [EPOCH, -1]},
        {log_name(2): [EPOCH]},
        {log_name(2): [float("inf"), 1]},
        {log_name(number): [EPOCH, 1] for number in range(2, MAX_GATEWAY_LOGS + 2)},
    ],
    ids=["no log", "no sequence", "no pair", "no number", "too many"],
)
def test_places_of_which_one_is_wrong_are_all_refused(wrong: dict[str, Any]) -> None:
    server = Scripted().followed()
    server.event(5)
    with pytest.raises((ValueError, LocalProtocolError)):
        server.client.restore({LOG: [EPOCH, 1], log_name(0): [EPOCH, 1], **wrong})
    assert server.client.places == {LOG: ResumePosition(EPOCH, 5)}
    assert not server.client.follows(log_name(0))


@pytest.mark.parametrize("token", ["\ud800", "x" * 70_000], ids=["lone surrogate", "too long"])
def test_a_token_that_cannot_be_sent_keeps_no_later_one_back(token: str) -> None:
    server = Scripted().followed()
    with nullcontext() if token.isascii() else pytest.raises(LocalProtocolError):
        server.client.set_token(token, 0.0)
    assert server.sent() == []
    server.client.set_token("good", 0.0)
    (auth,) = server.sent()
    assert (auth["type"], auth["token"]) == ("auth", "good")


def test_a_client_does_not_begin_with_a_token_that_cannot_be_sent() -> None:
    client = GatewayClient(Encoding.JSON, jitter=lambda: 0.5, random_bytes=bytes)
    with pytest.raises(LocalProtocolError):
        client.start("\ud800", 0.0)
    assert (client.phase, client.next_event()) == (ClientPhase.IDLE, None)


@pytest.mark.parametrize("now", [float("nan"), float("inf")])
def test_a_deadline_at_no_time_is_refused(now: float) -> None:
    server = Scripted().followed()
    due = server.client.next_deadline()
    with pytest.raises(LocalProtocolError):
        server.client.handle_deadline(now)
    assert server.client.next_deadline() == due
