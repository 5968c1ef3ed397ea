"""The gateway's client: connections, tokens, logs, commands, and what it makes of a strange server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_logs import ResumePosition
from openguild_proto.gateway.client_phases import ClientPhase
from openguild_proto.gateway.close_codes import GATEWAY_CLOSES, AfterClose, GatewayClose
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import AnyCommand, Post, Read, Typing
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import CLIENT_HANDSHAKE_SECS, MAX_GATEWAY_LOGS, MAX_HELD_FRAMES, MAX_PENDING_COMMANDS
from tests.proto.gateway.frames import CHANNEL, HELLO, READY
from tests.support.gateway import EPOCH, Replica, log_name
from tests.support.gateway_devices import Device, pass_time, settle

LOG = log_name(1)


class Scripted:
    """A client against what a test says as the server."""

    def __init__(self) -> None:
        self.client = GatewayClient(Encoding.JSON, jitter=lambda: 0.5, random_bytes=bytes)
        self.now = 0.0
        self.client.start("t", 0.0)
        self.client.connected(0.0)

    def say(self, frame: Any) -> list[told.ClientEvent]:
        self.client.received(msgspec.json.encode(frame).decode(), self.now)
        return self.events()

    def events(self) -> list[told.ClientEvent]:
        return list(iter(self.client.next_event, None))

    def sent(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(message) for message in self.client.messages_to_send()]

    def followed(self) -> Scripted:
        """It follows LOG behind event 4."""
        self.client.follow(LOG)
        self.say(HELLO)
        self.say(READY)
        ref = self.sent()[-1]["ref"]
        line = {"log": LOG, "epoch": EPOCH, "after": 4, "head": 4, "recovered": True}
        assert self.say({"type": "sub_ok", "ref": ref, "logs": [line]}) == [told.Followed(LOG, EPOCH, 4, 4, True)]
        return self

    def event(self, sequence: int, epoch: int = EPOCH) -> list[told.ClientEvent]:
        return self.say({"type": "ev", "log": LOG, "epoch": epoch, "seq": sequence, "event": {"n": sequence}})


class TestLogs:
    def test_everything_is_asked_for_with_the_token(self) -> None:
        server = Scripted()
        server.client.follow(LOG, ResumePosition(EPOCH, 9))
        server.client.follow(log_name(2), tail=5)
        server.client.send(Post(0, CHANNEL, content="hi"))
        assert server.sent() == []
        server.say(HELLO)
        auth, sub, post = server.sent()
        assert auth == {"type": "auth", "token": "t"}
        assert sub["logs"] == [{"log": LOG, "epoch": EPOCH, "after": 9}, {"log": log_name(2), "tail": 5}]
        assert (post["content"], post["key"]) == ("hi", "00" * 16)

    def test_repeats_are_dropped_and_gaps_asked_for_again(self) -> None:
        server = Scripted().followed()
        server.event(5)
        assert server.event(5) == []
        assert server.client.faults == (0, 1)
        assert server.event(7) == []
        (sub,) = server.sent()
        assert sub["logs"] == [{"log": LOG, "epoch": EPOCH, "after": 5}]
        assert server.event(8) == server.event(6) == [], "nothing counts until the answer"
        line = {"log": LOG, "epoch": EPOCH, "after": 5, "head": 8, "recovered": True}
        server.say({"type": "sub_ok", "ref": 99, "logs": [line]})
        assert server.event(6) == [], "the answer to another question"
        server.say({"type": "sub_ok", "ref": sub["ref"], "logs": [line]})
        assert server.event(6) == [told.Delivered(LOG, EPOCH, 6, b'{"n":6}')]
        assert server.client.places == {LOG: ResumePosition(EPOCH, 6)}
        assert server.client.faults.gaps == 1

    @pytest.mark.parametrize("sequence", [3, 5])
    def test_another_epoch_is_no_place_in_this_log(self, sequence: int) -> None:
        server = Scripted().followed()
        assert server.event(sequence, EPOCH + 1) == []
        assert server.client.faults.repeats == 0
        assert server.sent()[0]["logs"] == [{"log": LOG, "epoch": EPOCH, "after": 4}]

    def test_gone_logs_are_forgotten_or_asked_for_again(self) -> None:
        for code, asked in (("access_lost", False), ("deleted", False), ("restarted", True), ("unavailable", True)):
            server = Scripted().followed()
            assert server.say({"type": "gone", "log": LOG, "code": code}) == [told.LogGone(LOG, code)]
            server.now = 10.0
            server.client.handle_deadline(server.now)
            subs = [frame for frame in server.sent() if frame["type"] == "sub"]
            assert bool(subs) is bool(server.client.places) is asked

    def test_a_refused_log_is_forgotten_unless_it_may_work_later(self) -> None:
        server = Scripted()
        server.client.follow(LOG)
        server.client.follow(log_name(2))
        server.say(HELLO)
        server.say(READY)
        ref = server.sent()[-1]["ref"]
        assert server.say({"type": "err", "ref": ref, "log": LOG, "code": "not_found", "message": "m"}) == [
            told.FollowRefused(LOG, "not_found", "m")
        ]
        err = {"type": "err", "ref": ref, "log": log_name(2), "code": "overloaded", "message": ""}
        assert server.say(err) == []
        server.now = 10.0
        server.client.handle_deadline(server.now)
        assert server.sent()[0]["logs"] == [{"log": log_name(2)}]

    def test_unfollow_tells_the_server_once(self) -> None:
        server = Scripted().followed()
        assert [server.client.unfollow(LOG) for _ in range(2)] == [ResumePosition(EPOCH, 4), None]
        assert server.sent() == [{"type": "unsub", "logs": [LOG]}]
        assert server.event(5) == []

    @pytest.mark.parametrize(
        ("log", "place", "tail"),
        [
            (LOG.upper(), None, None), (LOG[8:], None, None), (f"{LOG}\n", None, None), (LOG, None, 201), (LOG, None, -1),
            (LOG, ResumePosition(-1, 5), None), (LOG, ResumePosition(1, -5), None), (LOG, ResumePosition(2**53, 5), None),
        ],
    )  # fmt: skip
    def test_refused_logs_are_not_followed(self, log: str, place: ResumePosition | None, tail: int | None) -> None:
        """It would be refused together with the other logs of its frame."""
        server = Scripted()
        with pytest.raises(LocalProtocolError, match="cannot be followed"):
            server.client.follow(log, place, tail=tail)
        assert not server.client.follows(log)

    def test_many_logs_are_asked_for_in_frames_that_fit(self) -> None:
        server = Scripted()
        for number in range(MAX_GATEWAY_LOGS):
            server.client.follow(log_name(number), ResumePosition(2**53 - 1, 2**63 - 1))
        with pytest.raises(LocalProtocolError):
            server.client.follow(log_name(MAX_GATEWAY_LOGS))
        server.say(HELLO)
        messages = server.client.messages_to_send()
        assert len(messages) == 5
        assert max(map(len, messages)) < 65_536

    def test_places_survive_the_program(self) -> None:
        server = Scripted().followed()
        server.event(5)
        kept = msgspec.json.decode(msgspec.json.encode(server.client.to_dict()))
        other = Scripted()
        other.client.restore(kept)
        other.say(HELLO)
        assert other.sent()[-1]["logs"] == [{"log": LOG, "epoch": EPOCH, "after": 5}]

    def test_what_a_newer_server_says_is_passed_over(self) -> None:
        server = Scripted().followed()
        assert server.say({"type": "weather", "log": 7}) == []
        assert server.say({"type": "lagging", "log": LOG, "head": 9, "new": 1}) == [told.LogLagging(LOG, 9)]
        assert server.say({"type": "live", "log": LOG}) == [told.LogLive(LOG)]
        assert server.say({"type": "eph", "log": LOG, "kind": "typing", "data": {"a": 1}}) == [
            told.HintReceived(LOG, "typing", b'{"a":1}')
        ]
        assert server.say({"type": "eph", "log": log_name(2), "kind": "typing", "data": 1}) == []


class TestCommands:
    def test_answers_and_refusals(self) -> None:
        server = Scripted().followed()
        one = server.client.send(Read(0, CHANNEL))
        two = server.client.send(Read(0, CHANNEL, sequence=3))
        assert [frame["ref"] for frame in server.sent()] == [one, two]
        assert server.say({"type": "ok", "ref": one, "result": {"a": 1}}) == [told.Answered(one, {"a": 1})]
        assert server.say({"type": "ok", "ref": one}) == []
        err = {"type": "err", "ref": two, "code": "c", "message": "m", "retry_after_ms": 5, "details": []}
        assert server.say(err) == [told.Refused(two, "c", "m", 5, ())]
        assert server.client.pending == 0

    def test_what_is_withdrawn_is_not_sent_again_and_has_no_answer(self) -> None:
        server = Scripted().followed()
        sent, unsent = server.client.send(Post(0, CHANNEL, content="a")), 7_777
        assert len(server.sent()) == 1
        assert server.client.withdraw(sent)
        assert not server.client.withdraw(unsent)
        assert server.say({"type": "ok", "ref": sent}) == []
        server.client.disconnected(None, "gone", 0.0)
        waiting = server.client.send(Post(0, CHANNEL, content="b"))
        assert not server.client.withdraw(waiting)
        assert server.client.pending == 0

    def test_what_was_sent_on_an_earlier_connection_was_sent(self) -> None:
        server = Scripted().followed()
        ref = server.client.send(Post(0, CHANNEL, content="a"))
        server.sent()
        server.client.disconnected(None, "gone", 0.0)
        assert server.client.withdraw(ref)

    def test_no_more_is_sent_ahead_than_the_server_holds(self) -> None:
        server = Scripted().followed()
        refs = [server.client.send(Read(0, CHANNEL)) for _ in range(MAX_PENDING_COMMANDS)]
        with pytest.raises(LocalProtocolError):
            server.client.send(Read(0, CHANNEL))
        assert [frame["ref"] for frame in server.sent()] == refs[:MAX_HELD_FRAMES]
        server.say({"type": "ok", "ref": refs[0]})
        assert [frame["ref"] for frame in server.sent()] == [refs[MAX_HELD_FRAMES]]

    def test_a_command_without_its_answer_is_sent_again_with_its_key(self) -> None:
        replica = Replica()
        keys: list[str | None] = []

        def run(request: Request) -> Response:
            keys.append(request.header("idempotency-key"))
            return Response.json({"n": len(keys)})

        replica.run = run
        device = Device(replica)
        device.start()
        settle(replica, device, until=1.0)
        ref = device.client.send(Post(0, CHANNEL, content="hi"))
        device.step()
        device.upload(1)
        assert len(keys) == 1
        device.cut()
        settle(replica, device, until=2.0)
        assert keys[0] == keys[1] is not None
        assert device.told(told.Answered) == [told.Answered(ref, {"n": 2})]

    @pytest.mark.parametrize("command", [Typing(0, CHANNEL), Read(0, CHANNEL)])
    def test_typing_and_read_are_not_sent_again(self, command: AnyCommand) -> None:
        server = Scripted().followed()
        ref = server.client.send(command)
        assert [frame["ref"] for frame in server.sent()] == [ref]
        server.client.disconnected(None, "", 0.0)
        assert server.client.pending == 0
        assert server.events()[0] == told.Dropped(ref)


class TestConnections:
    def test_every_code_leads_where_its_row_says(self) -> None:
        for code, row in GATEWAY_CLOSES.items():
            server = Scripted().followed()
            server.client.disconnected(code, "r", 1.0)
            kinds = [type(event) for event in server.events()]
            phase, expected = {
                AfterClose.RECONNECT: (ClientPhase.WAITING, [told.Interrupted]),
                AfterClose.RENEWED: (ClientPhase.TOKENLESS, [told.Interrupted, told.TokenNeeded]),
                AfterClose.FINAL: (ClientPhase.ENDED, [told.Ended]),
            }[row.action]
            assert (server.client.phase, kinds) == (phase, expected)

    @pytest.mark.parametrize("code", [None, 1006, 4999])
    def test_other_ends_are_no_reason_to_stop(self, code: int | None) -> None:
        server = Scripted()
        server.events()
        server.client.disconnected(code, "r", 0.0)
        (interrupted,) = server.events()
        assert isinstance(interrupted, told.Interrupted)
        assert interrupted.retry_secs == 0.125, "half of the shortest delay"
        server.client.disconnected(code, "r", 0.0)
        assert server.events() == []
        server.client.handle_deadline(0.124)
        assert server.events() == []
        server.client.handle_deadline(0.125)
        assert server.events() == [told.Connect()]

    def test_delays_grow_while_nothing_works(self) -> None:
        replica = Replica()
        device = Device(replica, seed=3)
        device.refuses_connections = True
        device.start()
        for _ in range(9):
            at = device.client.next_deadline()
            assert at is not None
            replica.now = at
            pass_time(replica, device)
        delays = [event.retry_secs for event in device.told(told.Interrupted)]
        assert len(delays) == 10
        assert max(delays[:2]) < 0.5 < max(delays[6:]) <= 15.0

    @pytest.mark.parametrize("steps", [0, 1, 2])
    def test_a_server_that_says_nothing_is_given_up(self, steps: int) -> None:
        server = Scripted()
        for frame in (HELLO, READY)[:steps]:
            server.say(frame)
        server.events()
        server.now = CLIENT_HANDSHAKE_SECS if steps < 2 else 50.0
        server.client.handle_deadline(server.now)
        kinds = [type(event) for event in server.events()]
        assert kinds == [told.Disconnect, told.Interrupted]

    def test_heartbeats_go_both_ways(self) -> None:
        server = Scripted().followed()
        for _ in range(10):
            server.now += 25.0
            server.client.handle_deadline(server.now)
            assert server.sent() == [{"type": "hb"}]
            assert server.say({"type": "hb"}) == []

    @pytest.mark.parametrize("payload", ["{", '{"type":"ev"}', b"{}", '{"type":1}'])
    def test_what_is_no_frame_ends_the_connection(self, payload: str | bytes) -> None:
        server = Scripted().followed()
        server.client.received(payload, 0.0)
        events = server.events()
        assert [type(event) for event in events] == [told.Disconnect, told.Interrupted]
        assert not getattr(events[1], "reason", "").endswith(": "), "it says why"
        server.client.received("{}", 0.0)
        assert server.events() == []

    def test_a_refused_token_waits_for_another(self) -> None:
        replica = Replica()
        device = Device(replica)
        device.client.start("bad", 0.0)
        device.client.follow(LOG)
        device.token = "worse"
        device.step()
        settle(replica, device, until=2.0)
        assert device.told(told.TokenNeeded)[:2] == [told.TokenNeeded(None)] * 2
        assert device.told(told.Opened) == []
        device.token = "good"
        settle(replica, device, until=20.0)
        assert device.client.phase is ClientPhase.OPEN
        assert [event.log for event in device.told(told.Followed)] == [LOG]

    def test_a_renewal_that_cannot_be_checked_is_tried_again(self) -> None:
        server = Scripted().followed()
        assert server.say({"type": "auth_expiring", "expires_in_ms": 60_000}) == [told.TokenNeeded(60_000)]
        server.client.set_token("t2", 0.0)
        (auth,) = server.sent()
        err = {"type": "err", "ref": auth["ref"], "code": "database_unavailable", "message": ""}
        assert server.say(err) == []
        server.now = 10.0
        server.client.handle_deadline(server.now)
        (auth,) = server.sent()
        assert (auth["type"], auth["token"]) == ("auth", "t2")
        assert server.say({**err, "ref": auth["ref"], "code": "unauthorized"}) == [told.TokenNeeded(None)]

    def test_drain_is_answered_in_the_slot(self) -> None:
        server = Scripted().followed()
        server.say({"type": "drain", "reconnect_after_ms": 800})
        server.client.send(Read(0, CHANNEL))
        server.client.follow(log_name(2))
        assert server.sent() == [], "nothing new"
        assert server.event(5) == [told.Delivered(LOG, EPOCH, 5, b'{"n":5}')]
        server.client.handle_deadline(0.8)
        assert [type(event) for event in server.events()] == [
            told.Disconnect,
            told.Dropped,
            told.Interrupted,
            told.Connect,
        ]

    def test_a_drain_is_no_failure(self) -> None:
        server = Scripted()
        for _ in range(6):
            server.client.disconnected(None, "", server.now)
            server.now = server.client.next_deadline() or 0.0
            server.client.handle_deadline(server.now)
            server.client.connected(server.now)
        server.say(HELLO)
        server.say(READY)
        server.say({"type": "drain", "reconnect_after_ms": 0})
        server.client.handle_deadline(server.now)
        server.client.disconnected(None, "", server.now)
        *_, interrupted = server.events()
        assert isinstance(interrupted, told.Interrupted)
        assert interrupted.retry_secs == 0.125, "half of the shortest delay"

    def test_what_was_not_taken_is_not_for_the_next_connection(self) -> None:
        server = Scripted().followed()
        server.client.unfollow(LOG)
        server.client.disconnected(None, "", 0.0)
        assert server.sent() == []

    def test_a_drained_server_that_closes_early_is_left_alone_until_the_slot(self) -> None:
        server = Scripted().followed()
        server.say({"type": "drain", "reconnect_after_ms": 800})
        server.client.disconnected(GatewayClose.RESTART, "", 0.3)
        (interrupted,) = server.events()
        assert isinstance(interrupted, told.Interrupted)
        assert interrupted.retry_secs == pytest.approx(0.5)

    def test_close_ends_everything(self) -> None:
        for client in (
            Scripted().followed().client,
            GatewayClient(Encoding.JSON, jitter=lambda: 0.0, random_bytes=bytes),
        ):
            client.close()
            client.close()
            client.set_token("t", 0.0)
            client.follow(LOG)
            client.start("t", 0.0)
            assert client.next_deadline() is None
            assert client.messages_to_send() == []
            assert client.phase is ClientPhase.ENDED
