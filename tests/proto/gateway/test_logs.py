"""A `sub` counts as reads of its user, and waits for them (PROTOCOL 9.2.10)."""

from __future__ import annotations

import pytest

from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Err, Ok, SubOk
from openguild_proto.policy.token_bucket import TokenBucket
from tests.support.gateway import Replica, Socket, closed, kinds, log_name, opened, pass_secs


@pytest.fixture(params=Encoding)
def replica(request: pytest.FixtureRequest) -> Replica:
    """Where the user of all sockets may make two reads in ten seconds."""
    replica = Replica(encoding=request.param)
    replica.reads = TokenBucket(2, 10.0)
    return replica


def sub(socket: Socket, ref: int, first: int, count: int = 1) -> None:
    socket.tell({"type": "sub", "ref": ref, "logs": [{"log": log_name(first + at)} for at in range(count)]})


def refs(socket: Socket) -> list[int]:
    return [frame.ref for frame in socket.heard() if isinstance(frame, SubOk)]


def test_twenty_logs_are_one_read_and_the_next_sub_waits(replica: Replica) -> None:
    socket = opened(replica)
    sub(socket, 1, 0, 20)
    sub(socket, 2, 20, 20)
    sub(socket, 3, 40)
    assert refs(socket) == [1, 2]
    pass_secs(socket, 4.9)
    assert refs(socket) == []
    pass_secs(socket, 0.2)
    assert refs(socket) == [3]


def test_a_sub_that_waits_is_asked_about_again_while_others_read(replica: Replica) -> None:
    socket, other = opened(replica), opened(replica)
    sub(socket, 1, 0, 40)
    sub(socket, 2, 50)
    assert refs(socket) == [1]
    replica.now += 5.1
    sub(other, 1, 0)
    assert refs(other) == [1], "the first that asks has the reads"
    pass_secs(socket, 0.0)
    assert refs(socket) == []
    pass_secs(socket, 5.1)
    assert refs(socket) == [2]


def test_what_is_followed_changes_in_the_client_s_order_and_commands_do_not_wait(replica: Replica) -> None:
    socket = opened(replica)
    sub(socket, 1, 0, 40)
    sub(socket, 2, 0)
    socket.tell({"type": "unsub", "ref": 3, "logs": [log_name(0)]})
    socket.tell({"type": "read", "ref": 4, "channel_id": log_name(0).removeprefix("channel:")})
    assert [type(frame) for frame in socket.heard()] == [SubOk, Ok]
    assert len(socket.server.subscriptions) == 40
    pass_secs(socket, 5.1)
    assert refs(socket) == [2]
    assert len(socket.server.subscriptions) == 39, "it was given up behind the sub"


def test_logs_that_are_refused_without_a_question_are_reads_too(replica: Replica) -> None:
    socket = opened(replica)
    for ref in (1, 2, 3):
        socket.tell({"type": "sub", "ref": ref, "logs": [{"log": log_name(1), "after": 1, "tail": 1}]})
    assert [frame.ref for frame in socket.heard() if isinstance(frame, Err)] == [1, 2]
    pass_secs(socket, 5.1)
    assert [frame.ref for frame in socket.heard() if isinstance(frame, Err)] == [3]


def test_a_socket_that_waits_is_served_while_it_drains_and_can_end(replica: Replica) -> None:
    waiting, leaving = opened(replica), opened(replica)
    sub(waiting, 1, 0, 40)
    for socket in (waiting, leaving):
        sub(socket, 2, 50)
    waiting.server.drain(20_000, replica.now)
    leaving.server.close(GatewayClose.RESTART)
    leaving.pump()
    assert closed(leaving) is GatewayClose.RESTART
    assert leaving.server.next_deadline() is None
    pass_secs(waiting, 5.1)
    assert refs(waiting) == [1, 2]
    assert kinds(leaving) == []


def test_an_answer_that_nothing_waits_for_begins_nothing(replica: Replica) -> None:
    socket = opened(replica)
    for number in range(4):
        socket.server.reads_counted(number, None, replica.now)
        socket.server.reads_counted(number, 1.0, replica.now)
    pass_secs(socket, 2.0)
    assert socket.heard() == []
    assert len(socket.server.subscriptions) == 0
