"""Gateway sockets of a replica: they follow logs in order and once, and lose what their user may not read any more."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.channels import DeleteChannel, ReadEvents
from openguild_proto.effects.guilds import DeleteGuild, RemoveMember, RenameGuild
from openguild_proto.effects.logs import FindLogs
from openguild_proto.effects.replica import UnsubscribeChannels
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.hints import PresenceChoice, PresenceStatus, TypingHint
from openguild_proto.memory import MemoryTables
from openguild_proto.records import Author, ControlKind, ControlRecord, Redact
from tests.support.deeds import NOW
from tests.support.driven_gateway import GatewayClient
from tests.support.driven_replica import Driven
from tests.support.elsewhere import Elsewhere


class Scene:
    """Alice's guild with a channel; Bob is a member."""

    def __init__(self, capacity: int = 256) -> None:
        elsewhere = Elsewhere(MemoryTables())
        self.alice, self.bob = elsewhere.user(), elsewhere.user()
        self.guild = elsewhere.guild(self.alice)
        self.channel = elsewhere.channel(self.alice, self.guild)
        elsewhere.perform(GrantGuildRole(guild_id=self.guild, user_id=self.bob, role="member", now_ms=NOW))
        self.driven = Driven(elsewhere.tables, capacity=capacity)
        self.logs = f"channel:{self.channel}", f"guild:{self.guild}"

    def client(self, user: str | None = None, **more: Any) -> GatewayClient:
        return GatewayClient(self.driven, user or self.bob, **more)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_events_of_followed_logs_come_in_order_and_once(scene: Scene) -> None:
    client = scene.client()
    client.follow(*scene.logs)
    assert [line["log"] for frame in client.of("sub_ok") for line in frame["logs"]] == list(scene.logs)
    for _ in range(3):
        scene.driven.commit(scene.channel)
        scene.driven.deliver(scene.driven.elsewhere.append(scene.channel))
        client.attend()
    assert client.events(scene.logs[0]) == [1, 2, 3, 4, 5, 6]
    before = scene.driven.elsewhere.tables._state.place_of(scene.guild).sequence
    scene.driven.elsewhere.perform(RenameGuild(author=Author(scene.alice), guild_id=scene.guild, name="x", now_ms=NOW))
    scene.driven.replica.log_grew(scene.driven.elsewhere.events[-1], now=scene.driven.now)
    client.attend()
    assert client.events(scene.logs[1]) == [before + 1]


def test_a_log_is_followed_from_where_the_client_was(scene: Scene) -> None:
    for _ in range(5):
        scene.driven.elsewhere.append(scene.channel)
    client = scene.client()
    client.follow(scene.logs[0], after=2, epoch=1)
    assert client.events(scene.logs[0]) == [3, 4, 5]
    scene.driven.commit(scene.channel)
    client.attend()
    assert client.events(scene.logs[0]) == [3, 4, 5, 6]


def test_a_page_is_read_once_for_all_that_ask(scene: Scene) -> None:
    for _ in range(5):
        scene.driven.elsewhere.append(scene.channel)
    clients = [scene.client() for _ in range(10)]
    for client in clients:
        client.follow(scene.logs[0], after=0)
    assert all(client.events(scene.logs[0]) == [1, 2, 3, 4, 5] for client in clients)
    assert scene.driven.count(ReadEvents) == 1


def test_what_a_user_may_not_read_is_refused(scene: Scene) -> None:
    eve = scene.driven.elsewhere.user()
    client = scene.client(eve)
    strange = "guild:00000000-0000-4000-8000-000000000000"
    kind_of_another = f"guild:{scene.channel}"
    client.follow(*scene.logs, strange, kind_of_another, f"user:{scene.bob}", f"user:{eve}")
    assert [frame["log"] for frame in client.of("err")] == [*scene.logs, strange, kind_of_another, f"user:{scene.bob}"]
    assert {frame["code"] for frame in client.of("err")} == {"not_found"}
    assert [line["log"] for frame in client.of("sub_ok") for line in frame["logs"]] == [f"user:{eve}"]


def test_a_removed_member_loses_the_guild_and_keeps_their_own_log(scene: Scene) -> None:
    client = scene.client()
    client.follow(*scene.logs, f"user:{scene.bob}")
    removal = RemoveMember(author=Author(scene.alice), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW)
    scene.driven.change(removal)
    client.attend()
    assert {(frame["log"], frame["code"]) for frame in client.of("gone")} == {
        (log, "access_lost") for log in scene.logs
    }
    scene.driven.commit(scene.channel)
    client.attend()
    assert client.events(scene.logs[0]) == []
    assert client.closed is None


@pytest.mark.parametrize("whole_guild", [False, True])
def test_a_deleted_log_is_gone(scene: Scene, whole_guild: bool) -> None:
    client = scene.client()
    client.follow(*scene.logs)
    author = Author(scene.alice)
    scene.driven.change(
        DeleteGuild(author=author, guild_id=scene.guild)
        if whole_guild
        else DeleteChannel(author=author, channel_id=scene.channel, now_ms=NOW)
    )
    client.attend()
    gone = scene.logs if whole_guild else scene.logs[:1]
    assert {(frame["log"], frame["code"]) for frame in client.of("gone")} == {(log, "deleted") for log in gone}


def test_the_end_of_a_log_is_work_for_its_followers_only(scene: Scene) -> None:
    follower = scene.client()
    follower.follow(*scene.logs)
    others = [scene.client() for _ in range(50)]
    scene.driven.replica.gateway.log_ended(scene.channel, "deleted")
    works = 0
    while scene.driven.replica.next_action() is not None:
        works += 1
    assert works < len(others)
    follower.attend()
    assert [frame["log"] for frame in follower.of("gone")] == [scene.logs[0]]


def test_what_a_socket_leaves_at_once_is_given_up_together(scene: Scene) -> None:
    elsewhere = scene.driven.elsewhere
    channels = [elsewhere.channel(scene.alice, scene.guild) for _ in range(10)]
    client = scene.client()
    client.follow(*(f"channel:{channel}" for channel in channels))
    scene.driven.replica.gateway.left(client)
    client.attend()
    scene.driven.perform_actions()
    given_up = [effect.channel_ids for effect in scene.driven.asked if isinstance(effect, UnsubscribeChannels)]
    assert [sorted(channel_ids) for channel_ids in given_up] == [sorted(channels)]


def test_a_revoked_session_closes_its_sockets_only(scene: Scene) -> None:
    first, second = scene.client(session="s1"), scene.client(session="s2")
    record = ControlRecord(
        scene.driven.replica.controls.follower.head + 1,
        ControlKind.SESSIONS_REVOKED,
        user_id=scene.bob,
        session_ids=("s1",),
    )
    scene.driven.deliver_control(record)
    first.attend()
    second.attend()
    assert (first.closed, second.closed) == (GatewayClose.SESSION_ENDED, None)


def test_when_anything_may_have_changed_everything_is_checked_again(scene: Scene) -> None:
    client, other = scene.client(session="s1"), scene.client(scene.alice, session="s2")
    client.follow(scene.logs[0])
    other.follow(scene.logs[0])
    members = scene.driven.elsewhere.tables._state.members[scene.guild]
    del members[scene.bob]
    scene.driven.answers[FindSession] = lambda effect: None if effect.session_id == "s2" else _Living()
    scene.driven.replica.gateway.recheck_all()
    client.attend()
    other.attend()
    assert [frame["code"] for frame in client.of("gone")] == ["access_lost"]
    assert (client.closed, other.closed) == (None, GatewayClose.SESSION_ENDED)


class _Living:
    revoked = False


def test_rights_that_cannot_be_read_are_not_kept(scene: Scene) -> None:
    client = scene.client()
    client.follow(*scene.logs)
    scene.driven.failing[FindLogs] = StorageUnavailable()
    scene.driven.replica.gateway.recheck_user(scene.bob)
    client.attend()
    assert {frame["code"] for frame in client.of("gone")} == {"unavailable"}
    client.follow(scene.logs[0])
    assert client.of("err")[-1]["code"] == "database_unavailable"
    scene.driven.failing.clear()
    client.follow(scene.logs[0])
    scene.driven.commit(scene.channel)
    client.attend()
    assert client.events(scene.logs[0]) == [1]


def test_a_change_of_rights_while_a_log_is_opened_is_seen(scene: Scene) -> None:
    client = scene.client()
    held = scene.driven.hold(FindLogs, early=True)
    client.say(type="sub", ref=1, logs=[{"log": scene.logs[0]}])
    removal = RemoveMember(author=Author(scene.alice), guild_id=scene.guild, user_id=scene.bob, now_ms=NOW)
    scene.driven.change(removal)
    held.release(1)
    scene.driven.let_pass(FindLogs)
    client.attend()
    assert [frame["code"] for frame in client.of("err")] == ["not_found"]
    client.leave()
    assert scene.driven.leftovers() == {}


def test_a_slow_reader_gets_everything_in_order_from_the_log() -> None:
    scene = Scene(capacity=8)
    slow, quick = scene.client(), scene.client(scene.alice)
    for client in (slow, quick):
        client.follow(scene.logs[0])
    slow.stuck = True
    for _ in range(50):
        scene.driven.commit(scene.channel)
        quick.attend()
        slow.attend()
    slow.stuck = False
    slow.write()
    for _ in range(10):
        slow.attend()
    assert slow.events(scene.logs[0]) == list(range(1, 51))
    assert [len(slow.of(kind)) for kind in ("lagging", "live")] == [1, 1]
    assert quick.events(scene.logs[0]) == list(range(1, 51))
    assert quick.of("lagging") == []


def test_a_redacted_text_is_in_no_ring_and_no_page(scene: Scene) -> None:
    posted = scene.driven.commit(scene.channel, "secret")
    client = scene.client()
    client.follow(scene.logs[0], after=0)
    client.stuck = True
    posted = scene.driven.commit(scene.channel, "secret")
    event = scene.driven.elsewhere.change(
        scene.channel, scene.alice, "message.redacted", Redact(target=posted.event_id, reason="r")
    )
    scene.driven.replica.committed(event, "", now=scene.driven.now)
    scene.driven.perform_actions()
    client.stuck = False
    client.write()
    client.attend()
    assert client.events(scene.logs[0]) == [1, 2, 3]
    assert "secret" not in str(client.frames[-2])


def test_a_log_that_went_back_is_told_and_followed_anew(scene: Scene) -> None:
    for _ in range(3):
        scene.driven.elsewhere.append(scene.channel)
    client = scene.client()
    client.follow(scene.logs[0])
    scene.driven.replica.restarted(scene.channel)
    client.attend()
    assert [(frame["log"], frame["code"]) for frame in client.of("gone")] == [(scene.logs[0], "restarted")]
    client.follow(scene.logs[0], after=1)
    scene.driven.commit(scene.channel)
    client.attend()
    assert client.events(scene.logs[0]) == [2, 3, 4]


def test_nothing_is_left_of_sockets_that_have_gone(scene: Scene) -> None:
    clients = [scene.client(session=f"s{number}") for number in range(3)]
    for client in clients:
        client.follow(*scene.logs, after=0)
    scene.driven.commit(scene.channel)
    for client in clients:
        client.attend()
        client.leave()
        client.leave()
    gateway = scene.driven.replica.gateway
    assert scene.driven.leftovers() == {}
    assert (gateway.sockets(), gateway._of_user, gateway._names, gateway.feeds._by_key) == ([], {}, {}, {})
    assert gateway.feeds._sockets == {}


def test_hints_come_to_those_who_follow_the_log(scene: Scene) -> None:
    hers, his = scene.client(scene.alice), scene.client()
    his.follow(*scene.logs)
    hers.follow(scene.logs[1])
    scene.driven.replica.announce(TypingHint(scene.channel, scene.alice), now=scene.driven.now)
    his.attend()
    hers.attend()
    assert his.of("eph") == [
        {"type": "eph", "log": scene.logs[0], "kind": "typing", "data": {"user_id": scene.alice}},
    ]
    scene.driven.sleep(2)
    his.attend()
    hers.attend()
    present = [frame["data"] for frame in hers.of("eph")]
    assert {(data["user_id"], data["status"]) for data in present} == {(scene.bob, "online")}, "not of herself"
    assert scene.driven.replica.presence_of([scene.bob]) == {scene.bob: PresenceStatus.ONLINE}


def test_a_drain_gives_each_socket_its_slot(scene: Scene) -> None:
    clients = [scene.client() for _ in range(3)]
    scene.driven.replica.drain(10.0, now=scene.driven.now)
    for client in clients:
        client.attend()
        assert [frame["reconnect_after_ms"] <= 5_000 for frame in client.of("drain")] == [True]


def test_a_withdrawn_key_and_a_moved_clock_reach_the_sockets(scene: Scene) -> None:
    client = scene.client()
    scene.driven.replica.wall_clock(0.0, now=scene.driven.now)
    scene.driven.replica.wall_clock(2_000_000.0, now=scene.driven.now)
    scene.driven.perform_actions()
    client.server.handle_deadline(scene.driven.now)
    client.attend()
    assert client.closed == GatewayClose.TOKEN_EXPIRED


def test_changes_of_others_hold_up_no_subscription(scene: Scene) -> None:
    """Somebody's rights change at every step of it; it is answered after a bounded number of queries."""
    client = scene.client()
    held = scene.driven.hold(FindLogs, early=True)
    client.say(type="sub", ref=1, logs=[{"log": scene.logs[0]}])
    for _ in range(5):
        scene.driven.replica.streams.changed()
        if not held.queries:
            break
        held.release(1)
        client.attend()
    scene.driven.let_pass(FindLogs)
    client.attend()
    assert [line["log"] for frame in client.of("sub_ok") for line in frame["logs"]] == [scene.logs[0]]
    assert scene.driven.count(FindLogs) <= 3
    scene.driven.commit(scene.channel)
    client.attend()
    assert client.events(scene.logs[0]) == [1]


def test_a_defect_holds_up_no_later_subscription(scene: Scene) -> None:
    client = scene.client()
    held = scene.driven.hold(FindLogs)
    client.follow(scene.logs[0])
    held.fail(ValueError("what the store makes of it"))
    scene.driven.let_pass(FindLogs)
    client.follow(scene.logs[1])
    assert [(frame["log"], frame["code"]) for frame in client.of("err")] == [(scene.logs[0], "server_error")]
    assert [line["log"] for frame in client.of("sub_ok") for line in frame["logs"]] == [scene.logs[1]]
    assert len(scene.driven.defects) == 1


def test_a_renewed_session_appears_as_the_one_before_has_chosen(scene: Scene) -> None:
    his, hers = scene.client(session="first"), scene.client(scene.alice, session="hers")
    hers.follow(scene.logs[1])
    scene.driven.replica.announce(PresenceChoice(scene.bob, "first", PresenceStatus.OFFLINE), now=scene.driven.now)
    assert his.claims is not None
    his.claims = replace(his.claims, session_id="second")
    his.say(type="auth", token="another", ref=1)
    scene.driven.sleep(5)
    hers.attend()
    assert his.of("ok") == [{"type": "ok", "ref": 1}]
    assert scene.driven.replica.presence_of([scene.bob]) == {}
    assert hers.of("eph") == []
    scene.driven.replica.announce(PresenceChoice(scene.bob, "second", PresenceStatus.IDLE), now=scene.driven.now)
    assert scene.driven.replica.presence_of([scene.bob]) == {scene.bob: PresenceStatus.IDLE}


def test_a_socket_that_leaves_while_all_are_checked_hides_nobody(scene: Scene) -> None:
    first, second, other = scene.client(), scene.client(), scene.client(scene.alice, session="hers")
    scene.driven.hold(FindSession)
    scene.driven.replica.gateway_at(scene.driven.now).recheck_all()
    scene.driven.perform_actions()
    second.leave()
    scene.driven.let_pass(FindSession)
    first.attend()
    assert scene.driven.count(FindSession) >= 2, "the others are asked for all the same"
    assert other.closed == first.closed == GatewayClose.SESSION_ENDED, "the store knows neither session"


class Late(GatewayClient):
    """Its token is being checked until `is_checked`."""

    is_checked = False

    def _act(self) -> None:
        if self.is_checked:
            super()._act()
        self._is_awake = False


def test_a_token_that_was_being_checked_when_all_are_is_checked_again(scene: Scene) -> None:
    client = Late(scene.driven, scene.bob)
    scene.driven.replica.gateway_at(scene.driven.now).recheck_all()
    client.attend()
    assert scene.driven.count(FindSession) == 0, "nobody is authenticated"
    client.is_checked = True
    client.wake()
    client.attend()
    assert scene.driven.count(FindSession) == 1
    assert client.closed == GatewayClose.SESSION_ENDED, "the store does not know the session"
