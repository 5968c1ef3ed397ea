"""Messages beside the events of logs: whole, in order, and none lost by a driver that asks twice."""

from __future__ import annotations

import pytest

from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Live
from openguild_proto.gateway.outgoing import Outgoing
from tests.support.gateway import log_name

FRAMES = [Live(log_name(number)) for number in range(4)]
MESSAGES = [Encoding.JSON.message(frame) for frame in FRAMES]


def filled() -> Outgoing:
    outgoing = Outgoing(Encoding.JSON)
    for frame in FRAMES:
        outgoing.add(frame)
    return outgoing


def test_what_is_asked_for_twice_is_the_same_and_nothing_is_lost() -> None:
    outgoing = filled()
    outgoing.next_write(len(MESSAGES[0]) * 2)
    outgoing.add(FRAMES[0])
    taken = b""
    while data := outgoing.next_write(len(MESSAGES[0]) * 2):
        assert outgoing.next_write(1) == data
        taken += data
        assert outgoing.sent(len(data)) == b""
    assert taken == b"".join([*MESSAGES, MESSAGES[0]])
    assert outgoing.is_empty


@pytest.mark.parametrize("nbytes", [-1, 10_000])
def test_no_more_is_taken_than_was_given(nbytes: int) -> None:
    outgoing = filled()
    data = outgoing.next_write(10_000)
    with pytest.raises(LocalProtocolError):
        outgoing.sent(nbytes)
    assert outgoing.sent(3) == data[3 : len(MESSAGES[0])]
    assert outgoing.next_write(10_000) == data[len(MESSAGES[0]) :]
