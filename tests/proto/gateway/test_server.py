"""A gateway socket on the server: authentication, faults of the client, ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.gateway.close_codes import GATEWAY_CLOSES, GatewayClose
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import (
    AuthExpiring,
    Drain,
    Err,
    Ev,
    Heartbeat,
    Hello,
    Ok,
    Problem,
    Ready,
    SubOk,
)
from openguild_proto.gateway.hint_frames import HintFrames
from openguild_proto.gateway.phases import Phase
from openguild_proto.limits import MAX_GATEWAY_LOGS
from tests.support.gateway import USER, Replica, Socket, closed, kinds, log_name, opened, pass_secs

LOG = log_name(1)
CHANNEL = LOG.removeprefix("channel:")


@pytest.fixture(params=Encoding)
def replica(request: pytest.FixtureRequest) -> Replica:
    return Replica(encoding=request.param)


class TestAuthentication:
    def test_hello_then_ready(self, replica: Replica) -> None:
        socket = Socket(replica)
        (hello,) = socket.heard()
        assert isinstance(hello, Hello)
        assert hello.limits.logs == MAX_GATEWAY_LOGS
        assert hello.server_time == "1970-01-01T00:00:00Z"
        socket.tell({"type": "auth", "token": "good"})
        (ready,) = socket.heard()
        assert isinstance(ready, Ready)
        assert socket.server.user_id == ready.user.user_id == USER
        assert socket.server.phase is Phase.OPEN

    def test_the_token_of_the_upgrade_needs_no_auth(self, replica: Replica) -> None:
        assert kinds(Socket(replica, token="good")) == [Hello, Ready]

    def test_a_bad_token_is_explained_and_closes(self, replica: Replica) -> None:
        socket = Socket(replica, token="bad")
        _, err = socket.heard()
        assert isinstance(err, Err)
        assert err.code == "unauthorized"
        assert closed(socket) is GatewayClose.TOKEN_REFUSED

    @pytest.mark.parametrize("token", ["", "good" + "0" * 3_000])
    def test_a_token_of_no_possible_length_is_a_bad_token(self, replica: Replica, token: str) -> None:
        socket = Socket(replica)
        socket.tell({"type": "auth", "token": token, "ref": 4})
        _, err = socket.heard()
        assert isinstance(err, Err)
        assert (err.ref, err.code) == (4, "unauthorized")
        assert closed(socket) is GatewayClose.TOKEN_REFUSED
        socket = opened(replica)
        socket.tell({"type": "auth", "token": token, "ref": 5})
        (err,) = socket.heard()
        assert isinstance(err, Err)
        assert (err.ref, err.code) == (5, "unauthorized")
        assert socket.closed is None

    @pytest.mark.parametrize(("token", "code"), [("away", "database_unavailable"), ("busy", "overloaded")])
    def test_a_token_that_cannot_be_checked_is_no_bad_token(self, replica: Replica, token: str, code: str) -> None:
        socket = Socket(replica, token=token)
        _, err = socket.heard()
        assert isinstance(err, Err)
        assert err.code == code
        assert closed(socket) is GatewayClose.TRY_LATER

    def test_no_auth_in_time(self, replica: Replica) -> None:
        socket = Socket(replica)
        pass_secs(socket, 9.9)
        assert socket.closed is None
        pass_secs(socket, 0.2)
        assert closed(socket) is GatewayClose.NO_AUTH

    def test_requests_before_auth_close(self, replica: Replica) -> None:
        socket = Socket(replica)
        socket.tell({"type": "hb"})
        assert socket.closed is None
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        assert closed(socket) is GatewayClose.OUT_OF_ORDER

    def test_requests_right_behind_auth_wait_for_ready(self, replica: Replica) -> None:
        replica.held = []
        socket = Socket(replica)
        socket.tell({"type": "auth", "token": "good"})
        socket.tell({"type": "read", "ref": 4, "channel_id": CHANNEL})
        socket.tell({"type": "sub", "ref": 5, "logs": [{"log": LOG}]})
        assert kinds(socket) == [Hello]
        assert len(replica.held) == 1, "nothing is done for somebody unknown"
        while replica.held:
            replica.held.pop(0)()
            socket.pump()
        assert kinds(socket) == [Ready, Ok, SubOk]

    def test_a_second_auth_before_the_answer_closes(self, replica: Replica) -> None:
        replica.held = []
        socket = Socket(replica, token="good")
        socket.tell({"type": "auth", "token": "good"})
        assert closed(socket) is GatewayClose.OUT_OF_ORDER
        replica.held.pop()()
        assert socket.server.phase is Phase.CLOSED

    def test_renewal_without_a_break(self, replica: Replica) -> None:
        socket = Socket(replica, token="good600")
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        socket.heard()
        for _ in range(9):
            pass_secs(socket, 60.0)
            socket.tell({"type": "hb"})
        assert [frame for frame in socket.heard() if not isinstance(frame, Heartbeat)] == [AuthExpiring(60_000)]
        socket.tell({"type": "auth", "token": "good600", "ref": 2})
        assert socket.heard() == [Ok(2)]
        pass_secs(socket, 61.0)
        replica.publish(LOG)
        replica.flush()
        assert Ev in kinds(socket)

    def test_a_refused_renewal_leaves_the_token_until_its_end(self, replica: Replica) -> None:
        socket = Socket(replica, token="good60")
        socket.heard()
        for token, code in (("bad", "unauthorized"), ("away", "database_unavailable"), ("other", "unauthorized")):
            socket.tell({"type": "auth", "token": token, "ref": 3})
            (err,) = socket.heard()
            assert isinstance(err, Err)
            assert (err.ref, err.code) == (3, code)
        assert socket.server.user_id == USER
        pass_secs(socket, 60.0)
        assert closed(socket) is GatewayClose.TOKEN_EXPIRED


class TestFaults:
    @pytest.mark.parametrize(
        "frame",
        [
            {"type": "post", "ref": 5, "channel_id": CHANNEL},
            {"type": "post", "ref": 5, "channel_id": "../x", "content": ""},
            {"type": "read", "ref": 5, "channel_id": CHANNEL, "sequence": "1"},
            {"type": "react", "ref": 5, "channel_id": CHANNEL, "event_id": "$a", "emoji": None},
            {"type": "edit", "ref": 5, "channel_id": CHANNEL, "event_id": "$a/..", "content": ""},
            {"type": "sub", "ref": 5, "logs": []},
            {"type": "sub", "ref": 5, "logs": [{"log": "channel:x"}]},
            {"type": "sub", "ref": 5, "logs": [{"log": LOG, "after": 2**63}]},
            {"type": "sub", "ref": 5, "logs": [{"log": LOG}] * (MAX_GATEWAY_LOGS + 1)},
            {"type": "dance", "ref": 5},
        ],
    )
    def test_a_bad_frame_with_a_ref_is_answered(self, replica: Replica, frame: dict[str, Any]) -> None:
        socket = opened(replica)
        socket.tell(frame)
        (err,) = socket.heard()
        assert isinstance(err, Err)
        assert (err.ref, err.code) == (5, "validation_error")
        assert socket.closed is None

    def test_a_bad_frame_is_told_which_member_is_wrong(self, replica: Replica) -> None:
        socket = opened(replica)
        socket.tell({"type": "sub", "ref": 5, "logs": [{"log": LOG}, {"log": LOG, "tail": -1}]})
        (err,) = socket.heard()
        assert isinstance(err, Err)
        assert err.details == [Problem("logs[1].tail", "must be at least 0")]

    @pytest.mark.parametrize(
        "text",
        [
            rf'{{"type":"post","ref":5,"channel_id":"{CHANNEL}","content":"half: \ud83d"}}',
            rf'{{"type":"post","channel_id":"{CHANNEL}","content":"\\\\\udc4d\ud83d\ud83d\udc4d","ref":5}}',
            r'{"type":"post","ref":5,"channel_id":7,"content":"\uD83D\u0041"}',
            r'{"\udfff":1,"type":"hb","ref":5}',
            r'{"type":"\ud800","ref":5}',
            r'{"x":"\ud800","y":' + '[[{"z":' * 380 + '"]}\\""' + "}]]" * 380 + ',"type":"hb","ref":5}',
        ],
    )
    def test_json_that_cannot_be_taken_is_answered_as_over_http(self, text: str) -> None:
        socket = opened(Replica(encoding=Encoding.JSON))
        socket.server.receive(text, 0.0)
        socket.pump()
        (err,) = socket.heard()
        assert isinstance(err, Err)
        assert (err.ref, err.code) == (5, "invalid_json")
        assert socket.closed is None
        socket.tell({"type": "read", "ref": 6, "channel_id": CHANNEL})
        assert kinds(socket) == [Ok]

    @pytest.mark.parametrize(
        ("encoding", "frame"),
        [
            (Encoding.JSON, '{"type":"hb","ref":5,"x":' + "[" * 2_000 + "]" * 2_000 + "}"),
            (Encoding.MSGPACK, b"\x83\xa4type\xa2hb\xa1x" + b"\x91" * 4_000 + b"\x01\xa3ref\x05"),
        ],
        ids=["JSON", "MessagePack"],
    )
    def test_what_is_nested_too_deep_for_this_python_leaves_the_socket_open(
        self, encoding: Encoding, frame: str | bytes
    ) -> None:
        """It is an unknown member, which some Pythons pass over at any depth."""
        socket = opened(Replica(encoding=encoding))
        socket.server.receive(frame, 0.0)
        socket.pump()
        assert [(frame.ref, frame.code) for frame in socket.heard() if isinstance(frame, Err)] in (
            [],
            [(5, "invalid_json")],
        )
        assert socket.closed is None

    def test_a_string_that_is_not_utf8_is_told_in_plain_words(self) -> None:
        socket = opened(Replica(encoding=Encoding.MSGPACK))
        frame = msgspec.msgpack.encode({"type": "post", "ref": 5, "channel_id": CHANNEL, "content": "????"})
        socket.server.receive(frame.replace(b"????", b"\xed\xa0\x80?"), 0.0)
        socket.pump()
        assert socket.heard() == [Err(5, "invalid_json", "the frame contains a string that is not UTF-8")]
        assert socket.closed is None

    @pytest.mark.parametrize(
        "text",
        [
            r'{"type":"post","ref":5,"content":"\ud800"',
            r'{"type":"post","ref":5,"content":"\ud80"}',
            r'{"type":"post","content":"\ud800"}',
            r'{"type":"post","ref":5,"content":"\ud800","x":[NaN]}',
            '{"type":"post","ref":5,"x":[NaN]}',
            '{"type":"hb","ref":5,"x":' + "[" * 20_000 + "]" * 19_999 + "}",
        ],
    )
    def test_text_that_is_no_json_closes(self, text: str) -> None:
        socket = opened(Replica(encoding=Encoding.JSON))
        socket.server.receive(text, 0.0)
        socket.pump()
        assert closed(socket) is GatewayClose.MALFORMED_FRAME

    @pytest.mark.parametrize(
        "frame", [{"type": "post", "ref": 5, "channel_id": "x"}, {"type": "sub", "ref": 5, "logs": ["x"]}]
    )
    def test_a_bad_frame_behind_the_auth_is_refused_behind_ready(self, replica: Replica, frame: dict[str, Any]) -> None:
        replica.held = held = []
        socket = Socket(replica)
        for said in ({"type": "auth", "token": "good"}, frame, frame):
            socket.tell(said)
        assert kinds(socket) == [Hello]
        held.pop()()
        socket.pump()
        ready, *refused = socket.heard()
        assert isinstance(ready, Ready)
        assert [(err.ref, err.code) for err in refused if isinstance(err, Err)] == [(5, "validation_error")] * 2
        assert socket.closed is None
        socket = Socket(replica)
        socket.tell(frame)
        assert closed(socket) is GatewayClose.MALFORMED_FRAME

    @pytest.mark.parametrize("frame", [{"type": "post"}, {"ref": -1}, {"type": "unsub", "logs": ["x"]}, {}, [], 7])
    def test_a_bad_frame_without_a_ref_closes(self, replica: Replica, frame: Any) -> None:
        socket = opened(replica)
        socket.tell(frame)
        assert closed(socket) is GatewayClose.MALFORMED_FRAME

    def test_bytes_that_are_nothing_close(self) -> None:
        for encoding, payload in (
            (Encoding.JSON, "{"),
            (Encoding.MSGPACK, b"\xc1"),
            (Encoding.MSGPACK, b"\xa2\xff\xff"),
        ):
            socket = opened(Replica(encoding=encoding))
            socket.server.receive(payload, 0.0)
            socket.pump()
            assert closed(socket) is GatewayClose.MALFORMED_FRAME

    def test_the_wrong_kind_of_message_closes(self) -> None:
        for encoding, payload in ((Encoding.JSON, b"{}"), (Encoding.MSGPACK, "{}")):
            socket = opened(Replica(encoding=encoding))
            socket.server.receive(payload, 0.0)
            socket.pump()
            assert closed(socket) is GatewayClose.WRONG_KIND

    def test_a_closed_socket_ignores_everything(self, replica: Replica) -> None:
        socket = opened(replica)
        socket.server.close(GatewayClose.SESSION_ENDED)
        socket.pump()
        socket.server.close(GatewayClose.INTERNAL_ERROR)
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        socket.server.receive(b"\xff", 0.0)
        socket.server.drain(5, 0.0)
        socket.pump()
        assert closed(socket) is GatewayClose.SESSION_ENDED
        assert socket.server.next_deadline() is None
        assert socket.heard() == []


class TestEnds:
    def test_a_silent_client_is_closed(self, replica: Replica) -> None:
        socket = opened(replica)
        for _ in range(20):
            pass_secs(socket, 25.0)
            socket.tell({"type": "hb"})
        assert socket.closed is None
        pass_secs(socket, 74.9)
        assert socket.closed is None
        pass_secs(socket, 0.2)
        assert closed(socket) is GatewayClose.SILENT

    def test_heartbeats_do_not_queue(self, replica: Replica) -> None:
        socket = opened(replica, room=0)
        for _ in range(50):
            pass_secs(socket, 25.0)
            socket.tell({"type": "hb"})
        socket.make_room(1 << 20)
        assert kinds(socket) == [Heartbeat]

    def test_a_slow_reader_that_takes_bytes_is_alive(self, replica: Replica) -> None:
        socket = opened(replica, room=0)
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        replica.publish(LOG, 8, nbytes=900)
        replica.flush()
        for _ in range(60):
            pass_secs(socket, 30.0)
            socket.make_room(50)
        assert socket.closed is None

    def test_drain_gives_a_slot(self, replica: Replica) -> None:
        socket = opened(replica)
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        socket.heard()
        socket.server.drain(1_500, replica.now)
        socket.pump()
        assert socket.heard() == [Drain(1_500)]
        replica.publish(LOG)
        replica.flush()
        socket.tell({"type": "read", "ref": 2, "channel_id": CHANNEL})
        assert kinds(socket) == [Ev, Ok], "it is served until then"
        socket.tell({"type": "auth", "ref": 3, "token": "good"})
        (err,) = socket.heard()
        assert isinstance(err, Err)
        assert err.code == "draining"
        pass_secs(socket, 6.6)
        assert closed(socket) is GatewayClose.RESTART

    def test_drain_closes_a_socket_without_auth(self, replica: Replica) -> None:
        socket = Socket(replica)
        socket.server.drain(1_500, 0.0)
        socket.pump()
        assert closed(socket) is GatewayClose.RESTART

    def test_nothing_follows_a_close(self, replica: Replica) -> None:
        socket = opened(replica)
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        replica.publish(LOG)
        replica.flush()
        socket.heard()
        socket.server.close(GatewayClose.KEY_WITHDRAWN)
        socket.pump()
        replica.publish(LOG)
        replica.flush()
        socket.pump()
        assert socket.heard() == []

    def test_leaving_gives_everything_back(self, replica: Replica) -> None:
        socket = opened(replica, room=0)
        logs = [{"log": log_name(number)} for number in range(20)]
        socket.tell({"type": "sub", "ref": 1, "logs": logs})
        for number in range(20):
            replica.publish(log_name(number), number)
        replica.flush()
        handle = socket.handle
        socket.leave()
        assert set(replica.holds.values()) == {0}
        assert len(socket.server.subscriptions) == 0
        successor = opened(replica)
        assert successor.handle == handle
        successor.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        successor.heard()
        socket.server.subscriptions.offer(HintFrames({"u": b"\x81\x00"}))
        socket.server.next_write(100)
        socket.server.left()
        assert replica.feeds.gates[handle] == 0, "the handle is another's"
        replica.publish(LOG)
        replica.flush()
        assert kinds(successor) == [Ev]

    def test_every_close_code_has_one_row(self) -> None:
        assert set(GATEWAY_CLOSES) == set(GatewayClose)
        assert len({row.meaning for row in GATEWAY_CLOSES.values()}) == len(GATEWAY_CLOSES)
