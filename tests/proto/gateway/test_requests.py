"""What an authenticated socket asks for: logs to follow, and commands."""

from __future__ import annotations

import pytest

from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import (
    Eph,
    Err,
    Ev,
    Gone,
    Ok,
    SubOk,
)
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import (
    MAX_EPHEMERAL_BYTES,
    MAX_GATEWAY_LOGS,
    MAX_HELD_FRAME_BYTES,
    MAX_HELD_FRAMES,
    MAX_UNSENT_ANSWER_BYTES,
)
from tests.support.gateway import EPOCH, Replica, kinds, log_name, opened, pass_secs

LOG = log_name(1)
CHANNEL = LOG.removeprefix("channel:")


@pytest.fixture(params=Encoding)
def replica(request: pytest.FixtureRequest) -> Replica:
    return Replica(encoding=request.param)


class TestLogs:
    def test_a_log_begins_now_or_with_a_tail_or_behind_a_place(self, replica: Replica) -> None:
        replica.publish(LOG, 5)
        for asked, after, events in (
            ({}, 5, []),
            ({"tail": 2}, 3, [4, 5]),
            ({"tail": 9}, 0, [1, 2, 3, 4, 5]),
            ({"after": 4, "epoch": EPOCH}, 4, [5]),
            ({"after": 4}, 4, [5]),
        ):
            socket = opened(replica)
            socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG, **asked}]})
            sub_ok, *events_heard = socket.heard()
            assert isinstance(sub_ok, SubOk)
            (line,) = sub_ok.logs
            assert (line.log, line.epoch, line.after, line.head, line.recovered) == (LOG, EPOCH, after, 5, True)
            assert [frame.seq for frame in events_heard if isinstance(frame, Ev)] == events
            socket.leave()

    def test_a_place_that_does_not_fit_is_not_recovered(self, replica: Replica) -> None:
        replica.publish(LOG, 5)
        for asked in ({"after": 6, "epoch": EPOCH}, {"after": 2, "epoch": EPOCH + 1}):
            socket = opened(replica)
            socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG, **asked}]})
            (sub_ok,) = socket.heard()
            assert isinstance(sub_ok, SubOk)
            assert [(line.after, line.recovered) for line in sub_ok.logs] == [(5, False)]
            socket.leave()

    def test_every_log_of_a_sub_is_answered_once(self, replica: Replica) -> None:
        socket = opened(replica)
        other, third = log_name(2), log_name(3)
        guild = "guild:00000009-0000-4000-8000-000000000000"
        invalid = {"log": other, "after": 0, "tail": 1}
        logs = [{"log": LOG}, {"log": guild}, {"log": LOG}, invalid, {"log": third}, {"log": other}, invalid]
        socket.tell({"type": "sub", "ref": 9, "logs": logs})
        frames = socket.heard()
        answered = [line.log for frame in frames if isinstance(frame, SubOk) for line in frame.logs]
        refused = [(frame.log, frame.code) for frame in frames if isinstance(frame, Err)]
        assert answered == [LOG, third]
        assert refused == [(other, "validation_error"), (guild, "not_found")]

    def test_a_name_with_a_line_break_behind_it_names_no_log(self, replica: Replica) -> None:
        socket = opened(replica)
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": f"guild:{CHANNEL}\n"}]})
        (err,) = socket.heard()
        assert isinstance(err, Err)
        assert (err.ref, err.code) == (1, "validation_error")

    def test_a_socket_follows_so_many_logs(self, replica: Replica) -> None:
        socket = opened(replica)
        for first in (0, 500):
            logs = [{"log": log_name(number)} for number in range(first, first + 500)]
            socket.tell({"type": "sub", "ref": 1, "logs": logs})
        socket.heard()
        socket.tell({"type": "sub", "ref": 2, "logs": [{"log": log_name(1_000)}, {"log": LOG}]})
        err, sub_ok = socket.heard()
        assert isinstance(err, Err)
        assert (err.log, err.code) == (log_name(1_000), "limit_reached")
        assert isinstance(sub_ok, SubOk), "one that is followed is only moved"
        socket.tell({"type": "unsub", "logs": [log_name(7)]})
        socket.tell({"type": "sub", "ref": 3, "logs": [{"log": log_name(1_000)}]})
        assert kinds(socket) == [SubOk]
        assert len(socket.server.subscriptions) == MAX_GATEWAY_LOGS

    def test_moving_and_leaving_a_log_give_back_what_was_held(self, replica: Replica) -> None:
        socket = opened(replica)
        for _ in range(3):
            socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG, "tail": 0}]})
        feed = replica.feeds.get(LOG, replica.encoding)
        assert feed is not None
        assert replica.holds == {feed.key: 1}
        socket.tell({"type": "unsub", "logs": [LOG, log_name(5)]})
        assert replica.holds == {feed.key: 0}
        assert replica.feeds.get(LOG, replica.encoding) is None, "nobody follows it"

    def test_changes_of_what_is_followed_keep_their_order(self, replica: Replica) -> None:
        socket = opened(replica)
        replica.held = []
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        socket.tell({"type": "unsub", "logs": [LOG]})
        socket.tell({"type": "sub", "ref": 2, "logs": [{"log": LOG, "after": 0}]})
        socket.tell({"type": "unsub", "logs": [LOG]})
        while replica.held:
            replica.held.pop(0)()
            socket.pump()
        assert [frame.ref for frame in socket.heard() if isinstance(frame, SubOk)] == [1, 2]
        assert len(socket.server.subscriptions) == 0
        assert set(replica.holds.values()) == {0}

    def test_answers_to_two_subs_keep_their_refs(self, replica: Replica) -> None:
        socket = opened(replica, room=0)
        for ref, log in ((1, LOG), (2, log_name(2)), (2, log_name(3))):
            socket.tell({"type": "sub", "ref": ref, "logs": [{"log": log}]})
        socket.make_room(1 << 20)
        answers = [
            (frame.ref, [line.log for line in frame.logs]) for frame in socket.heard() if isinstance(frame, SubOk)
        ]
        assert answers == [(1, [LOG]), (2, [log_name(2), log_name(3)])]

    def test_gone_ends_one_log(self, replica: Replica) -> None:
        socket = opened(replica)
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}, {"log": log_name(2)}]})
        socket.heard()
        feed = replica.feeds.get(LOG, replica.encoding)
        assert feed is not None
        for _ in range(2):
            socket.server.gone(feed, "access_lost")
            socket.pump()
        replica.publish(LOG)
        replica.publish(log_name(2))
        replica.flush()
        gone, event = socket.heard()
        assert gone == Gone(LOG, "access_lost")
        assert isinstance(event, Ev)
        assert event.log == log_name(2)

    def test_an_answer_after_the_end_gives_back_what_it_holds(self, replica: Replica) -> None:
        socket = opened(replica)
        replica.held = []
        socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
        (answer,) = replica.held
        socket.server.left()
        answer()
        socket.leave()
        assert set(replica.holds.values()) == {0}

    def test_what_may_be_missed_is_dropped_when_much_waits(self, replica: Replica) -> None:
        fast, slow = opened(replica), opened(replica)
        for socket in (fast, slow):
            socket.tell({"type": "sub", "ref": 1, "logs": [{"log": LOG}]})
            socket.heard()
        slow.room = 0
        for _ in range(200):
            assert list(replica.feeds.ephemeral(LOG, "typing", {"u": b'{"user_id":"u"}'})) != []
            fast.pump()
        assert kinds(fast) == [Eph] * 200
        slow.make_room(1 << 20)
        kept = slow.heard()
        assert kept
        assert {type(frame) for frame in kept} == {Eph}
        assert len(kept) <= MAX_EPHEMERAL_BYTES // 80
        list(replica.feeds.ephemeral(LOG, "typing", {"u": b'{"user_id":"u"}'}))
        slow.pump()
        assert kinds(slow) == [Eph]


class TestCommands:
    COMMANDS = (
        ({"type": "post", "content": "hi", "key": "k", "reply_to": "$a"}, "POST", "/messages", {"content": "hi", "reply_to": "$a"}),
        ({"type": "edit", "event_id": "$a", "content": "ho", "key": "k"}, "PATCH", "/events/$a", {"content": "ho"}),
        ({"type": "redact", "event_id": "$a", "reason": "a b&c", "key": "k"}, "DELETE", "/events/$a", None),
        ({"type": "react", "event_id": "$a", "emoji": "+"}, "POST", "/events/$a/reactions", {"emoji": "+", "action": "add"}),
        ({"type": "read", "sequence": 4}, "POST", "/read", {"sequence": 4}),
        ({"type": "typing"}, "POST", "/typing", None),
        ({"type": "typing", "preview": ""}, "POST", "/typing-preview", {"preview": ""}),
    )  # fmt: skip

    def test_a_command_is_the_request_of_http(self, replica: Replica) -> None:
        asked: list[Request] = []

        def run(request: Request) -> Response:
            asked.append(request)
            return Response.json({"sequence": 1})

        replica.run = run
        socket = opened(replica)
        for ref, (command, method, path, body) in enumerate(self.COMMANDS):
            socket.tell({"ref": ref, "channel_id": CHANNEL, **command})
            request = asked.pop()
            assert (request.method, request.path) == (method, f"/channels/{CHANNEL}{path}")
            assert (Response.json(body).body if body is not None else b"") == request.body
            assert request.header("authorization") == "Bearer good"
            assert request.header("idempotency-key") == command.get("key")
            assert (request.client_address, request.request_id) == ("192.0.2.1", f"r.{ref}")
            assert request.query == ("reason=a%20b%26c" if method == "DELETE" else "")
            (answer,) = socket.heard()
            assert isinstance(answer, Ok)
            assert (answer.ref, answer.result) == (ref, {"sequence": 1})

    def test_an_error_of_http_is_an_err(self, replica: Replica) -> None:
        problem = {"field": "f", "message": "m"}
        body = {"error": "message_rate_limit", "message": "slower", "details": [problem], "retry_after_ms": 2_500}
        replica.run = lambda _: Response.json(body, status=429, headers=(("retry-after", "3"),))
        socket = opened(replica)
        socket.tell({"type": "read", "ref": 8, "channel_id": CHANNEL})
        (err,) = socket.heard()
        assert isinstance(err, Err)
        assert (err.ref, err.code, err.message, err.retry_after_ms) == (8, "message_rate_limit", "slower", 2_500)
        assert [(problem.field, problem.message) for problem in err.details] == [("f", "m")]

    def test_commands_run_one_at_a_time_and_in_order(self, replica: Replica) -> None:
        socket = opened(replica)
        replica.held = []
        for ref in range(5):
            socket.tell({"type": "read", "ref": ref, "channel_id": CHANNEL})
        assert len(replica.held) == 1
        while replica.held:
            replica.held.pop()()
            socket.pump()
        assert [frame.ref for frame in socket.heard() if isinstance(frame, Ok)] == [0, 1, 2, 3, 4]

    def test_an_answer_that_nothing_waits_for_is_ignored(self, replica: Replica) -> None:
        socket = opened(replica)
        replica.held = []
        socket.tell({"type": "read", "ref": 1, "channel_id": CHANNEL})
        for number in (0, 999):
            socket.server.answered(number, Response.json({}))
        socket.pump()
        assert socket.heard() == []
        replica.held.pop()()
        socket.pump()
        assert kinds(socket) == [Ok]

    def test_a_client_far_ahead_of_its_answers_is_not_read(self, replica: Replica) -> None:
        socket = opened(replica)
        replica.held = []
        sent = 0
        while socket.server.wants_messages:
            socket.tell({"type": "read", "ref": sent, "channel_id": CHANNEL})
            sent += 1
        assert sent == MAX_HELD_FRAMES + 1, "one runs"
        pass_secs(socket, 80.0)
        assert socket.closed is None, "it may have spoken"
        replica.held.pop()()
        assert socket.server.wants_messages

    def test_large_commands_are_held_within_bytes(self, replica: Replica) -> None:
        socket = opened(replica)
        replica.held = []
        sent = 0
        while socket.server.wants_messages:
            socket.tell({"type": "post", "ref": sent, "channel_id": CHANNEL, "content": "x" * 60_000})
            sent += 1
        assert sent == 1 + -(-MAX_HELD_FRAME_BYTES // 60_000), "one runs"

    def test_a_client_that_reads_no_answers_is_not_read(self, replica: Replica) -> None:
        replica.run = lambda _: Response.json({"text": "x" * 9_000})
        socket = opened(replica, room=0)
        sent = 0
        while socket.server.wants_messages:
            socket.tell({"type": "read", "ref": sent, "channel_id": CHANNEL})
            sent += 1
        assert 9_000 * (sent - 1) < MAX_UNSENT_ANSWER_BYTES <= 9_100 * sent
        socket.make_room(1 << 20)
        assert len(socket.heard()) == sent
        assert socket.server.wants_messages
