"""Those who share a guild are told who is online, over all replicas, also when one of them dies."""

from __future__ import annotations

from random import Random

import pytest

from openguild_proto.bus.topics import Topic
from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.replica import FindAudience
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.hints import PresenceChoice, PresenceReport, PresenceStatus, encode_hint
from openguild_proto.limits import MAX_EPHEMERAL_BYTES, MAX_PRESENCE_USERS, MAX_REPORTED_USERS, PRESENCE_PAUSE_SECS
from openguild_proto.memory import MemoryTables
from openguild_proto.replica.actions import Broadcast
from openguild_proto.replica.presence import ARRIVAL_SECS, GRACE_SECS, LEASE_SECS, REPORT_SECS, TICK_SECS, Presence
from openguild_proto.schemas.payloads import presence_data
from openguild_proto.settings.sections import PresenceSettings
from tests.support.deeds import NOW
from tests.support.driven_replica import Driven, Socket

ONLINE, IDLE, OFFLINE = PresenceStatus


class Cluster:
    """Replicas on the same tables, and a bus that loses nothing unless it is told to."""

    def __init__(self, count: int, max_members: int = 1_000) -> None:
        settings = PresenceSettings(max_guild_members=max_members)
        tables = MemoryTables()
        self.replicas = [Driven(tables, replica_id=f"r{number}", presence=settings) for number in range(count)]
        self.lost = 0.0
        self._rng = Random(1)
        elsewhere = self.replicas[0].elsewhere
        self.alice, self.bob, self.eve = (elsewhere.user() for _ in range(3))
        self.guild = elsewhere.guild(self.alice)
        elsewhere.perform(GrantGuildRole(guild_id=self.guild, user_id=self.bob, role="guest", now_ms=NOW))

    def sleep(self, secs: float) -> None:
        """Time passes at all replicas, in steps of a tick."""
        for _ in range(round(secs / TICK_SECS)):
            for replica in self.replicas:
                replica.sleep(TICK_SECS)
            self.carry()

    def carry(self) -> None:
        for sender in self.replicas:
            for message in sender.taken(Broadcast):
                for receiver in self.replicas:
                    if receiver is not sender and self._rng.random() >= self.lost:
                        receiver.replica.broadcast_message(message.topic, message.payload, now=receiver.now)
                        receiver.perform_actions()

    def choose(self, replica: int, user: str, status: PresenceStatus, session: str = "session") -> None:
        driven = self.replicas[replica]
        driven.replica.announce(PresenceChoice(user, session, status), now=driven.now)
        driven.perform_actions()
        self.carry()

    def statuses(self, user: str) -> list[PresenceStatus]:
        """What each replica answers."""
        return [driven.replica.presence_of([user]).get(user, OFFLINE) for driven in self.replicas]


def told(socket: Socket) -> list[tuple[str, str]]:
    frames = [frame["event"] for frame in socket.frames if frame["kind"] == "presence"]
    return [(event["user_id"], event["status"]) for event in frames]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(2)


def test_those_who_share_a_guild_are_told(cluster: Cluster) -> None:
    here, there = cluster.replicas
    his, evil = there.open(cluster.bob), there.open(cluster.eve)
    cluster.sleep(3)
    hers = here.open(cluster.alice)
    cluster.sleep(3)
    assert told(his) == [(cluster.alice, "online")]
    assert told(evil) == []
    here.leave(hers)
    cluster.sleep(GRACE_SECS + 2)
    assert told(his) == [(cluster.alice, "online"), (cluster.alice, "offline")]
    assert cluster.statuses(cluster.alice) == [OFFLINE, OFFLINE]


def test_a_reconnect_is_told_to_nobody(cluster: Cluster) -> None:
    here, there = cluster.replicas
    his, hers = there.open(cluster.bob), here.open(cluster.alice)
    cluster.sleep(3)
    here.leave(hers)
    cluster.sleep(GRACE_SECS - 1)
    hers = there.open(cluster.alice)
    cluster.sleep(10)
    assert told(his) == [(cluster.alice, "online")]
    assert cluster.statuses(cluster.alice) == [ONLINE, ONLINE]


def test_a_hidden_user_is_not_shown_at_a_reconnect(cluster: Cluster) -> None:
    here, there = cluster.replicas
    his, hers = here.open(cluster.bob), there.open(cluster.alice)
    cluster.choose(1, cluster.alice, OFFLINE)
    for former, driven in ((there, here), (here, here), (here, there)):
        former.leave(hers)
        hers = driven.open(cluster.alice)
        cluster.sleep(ARRIVAL_SECS - TICK_SECS)
        assert cluster.statuses(cluster.alice) == [OFFLINE, OFFLINE]
        cluster.choose(0, cluster.alice, OFFLINE)  # as her client does after each connect
        cluster.sleep(ARRIVAL_SECS + GRACE_SECS)
    assert told(his) == []
    cluster.choose(1, cluster.alice, ONLINE)
    cluster.sleep(2 * TICK_SECS)
    assert told(his) == [(cluster.alice, "online")]


def test_who_has_just_come_is_online_to_themselves(cluster: Cluster) -> None:
    here = cluster.replicas[0]
    here.open(cluster.alice)
    users = [cluster.alice, cluster.bob]
    assert here.replica.presence_of(users, cluster.alice) == {cluster.alice: ONLINE}
    assert here.replica.presence_of(users, cluster.bob) == here.replica.presence_of([cluster.bob], cluster.alice) == {}
    cluster.choose(0, cluster.alice, OFFLINE)
    assert here.replica.presence_of(users, cluster.alice) == {}


def test_an_idle_user_stays_idle_at_a_reconnect(cluster: Cluster) -> None:
    here = cluster.replicas[0]
    his, hers = here.open(cluster.bob), here.open(cluster.alice)
    cluster.choose(1, cluster.alice, IDLE)
    cluster.sleep(3)
    here.leave(hers)
    here.open(cluster.alice)
    cluster.sleep(ARRIVAL_SECS - TICK_SECS)
    cluster.choose(1, cluster.alice, IDLE)
    cluster.sleep(ARRIVAL_SECS + GRACE_SECS)
    assert told(his) == [(cluster.alice, "idle")]


def test_users_of_a_replica_that_died_are_offline_within_thirty_seconds(cluster: Cluster) -> None:
    here, there = cluster.replicas
    his = there.open(cluster.bob)
    here.open(cluster.alice)
    cluster.sleep(20)
    cluster.replicas = [there]
    cluster.sleep(LEASE_SECS - REPORT_SECS - 1)
    assert told(his) == [(cluster.alice, "online")], "its last report may be so old"
    cluster.sleep(30 - (LEASE_SECS - REPORT_SECS - 1))
    assert told(his) == [(cluster.alice, "online"), (cluster.alice, "offline")]


def test_a_lost_report_is_made_up_by_the_next(cluster: Cluster) -> None:
    here, there = cluster.replicas
    his = there.open(cluster.bob)
    cluster.lost = 1.0
    hers = here.open(cluster.alice)
    cluster.sleep(3)
    assert told(his) == []
    cluster.lost = 0.0
    cluster.sleep(REPORT_SECS + 2)
    assert told(his) == [(cluster.alice, "online")]
    cluster.lost = 1.0
    here.leave(hers)
    cluster.sleep(LEASE_SECS + 2)
    assert told(his)[-1] == (cluster.alice, "offline")


def test_the_most_present_session_counts(cluster: Cluster) -> None:
    here, there = cluster.replicas
    his = here.open(cluster.bob)
    here.open(cluster.alice, session_id="laptop")
    phone = there.open(cluster.alice, session_id="phone")
    cluster.sleep(3)
    cluster.choose(1, cluster.alice, IDLE, "laptop")  # at the other replica: it reaches that of the stream
    cluster.sleep(3)
    assert told(his) == [(cluster.alice, "online")]
    cluster.choose(0, cluster.alice, IDLE, "phone")
    cluster.sleep(3)
    assert told(his)[-1] == (cluster.alice, "idle")
    cluster.choose(0, cluster.alice, OFFLINE, "laptop")
    cluster.choose(0, cluster.alice, OFFLINE, "phone")
    cluster.sleep(3)
    assert told(his)[-1] == (cluster.alice, "offline"), "although the streams are open"
    cluster.choose(0, cluster.alice, ONLINE, "phone")
    there.leave(phone)
    cluster.sleep(10)
    assert told(his)[-1] == (cluster.alice, "offline"), "the session that is left does not show itself"
    cluster.choose(0, cluster.alice, ONLINE, "of nobody")
    cluster.sleep(3)
    assert cluster.statuses(cluster.alice) == [OFFLINE, OFFLINE]


def test_what_comes_and_goes_within_a_second_is_told_to_nobody(cluster: Cluster) -> None:
    here, _ = cluster.replicas
    his = here.open(cluster.bob)
    cluster.sleep(3)
    here.open(cluster.alice)
    cluster.choose(0, cluster.alice, IDLE)
    cluster.choose(0, cluster.alice, OFFLINE)
    cluster.sleep(3)
    assert told(his) == []


def test_a_large_guild_shows_nobody() -> None:
    cluster = Cluster(2, max_members=1)
    here, there = cluster.replicas
    his = there.open(cluster.bob)
    here.open(cluster.alice)
    cluster.sleep(5)
    assert told(his) == []


def test_many_who_come_at_once_are_told_together() -> None:
    """A stream that is not flushed meanwhile, and two guilds with the same members: nobody is left out, or told twice."""
    driven = Driven()
    bob, *comers = (driven.elsewhere.user() for _ in range(2 * MAX_PRESENCE_USERS + 5))
    for members in (comers, comers[:30]):
        guild = driven.elsewhere.guild(bob)
        for user in members:
            driven.elsewhere.perform(GrantGuildRole(guild_id=guild, user_id=user, role="guest", now_ms=NOW))
    his = driven.open(bob)
    driven.sleep(3)
    for user in comers:
        driven.open(user)
    driven.sleep(ARRIVAL_SECS - TICK_SECS)
    driven.flushing = False
    driven.sleep(TICK_SECS + 3 * PRESENCE_PAUSE_SECS)
    driven.flushing = True
    driven.flush()
    assert told(his) == [(user, "online") for user in comers]


def test_what_is_told_together_is_never_too_much_for_a_socket() -> None:
    users = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(MAX_PRESENCE_USERS)]
    for encoding in Encoding:
        for status in PresenceStatus:
            data = {user: presence_data(user, status) for user in users}
            messages = [encoding.ephemeral_message(f"guild:{users[0]}", "presence", hint) for hint in data.values()]
            assert sum(map(len, messages)) <= MAX_EPHEMERAL_BYTES


def test_a_new_replica_is_told_everything_at_once(cluster: Cluster) -> None:
    here, there = cluster.replicas
    here.open(cluster.alice)
    cluster.sleep(5)
    new = Driven(here.elsewhere.tables, replica_id="new")
    new.now = here.now
    cluster.replicas.append(new)
    for _ in range(2):  # its state is looked at again and again
        new.replica.bus_state(True, now=new.now)
        new.perform_actions()
        cluster.carry()
    cluster.sleep(2)
    assert cluster.statuses(cluster.alice) == [ONLINE] * 3
    assert there.leftovers() == {}


def test_changes_wait_for_the_store(cluster: Cluster) -> None:
    here, _ = cluster.replicas
    his = here.open(cluster.bob)
    cluster.sleep(2)
    here.failing[FindAudience] = StorageUnavailable()
    here.open(cluster.alice)
    cluster.sleep(5)
    assert told(his) == []
    here.failing.clear()
    cluster.sleep(2)
    assert told(his) == [(cluster.alice, "online")]


def test_without_users_nothing_is_due(cluster: Cluster) -> None:
    here, there = cluster.replicas
    socket = here.open(cluster.alice)
    cluster.sleep(5)
    here.leave(socket)
    cluster.sleep(LEASE_SECS + 5)
    assert [driven.replica.next_deadline() for driven in (here, there)] == [None, None]
    asked = len(here.asked)
    cluster.sleep(20)
    assert len(here.asked) == asked


def test_reports_come_in_pieces_and_all_users_are_renewed() -> None:
    driven = Driven()
    users = [f"user {number}" for number in range(2 * MAX_REPORTED_USERS + 5)]
    for user in users:
        driven.open(user)
    driven.taken(Broadcast)
    for secs in (ARRIVAL_SECS, REPORT_SECS + 1):
        driven.sleep(secs)
        reports = [message for message in driven.taken(Broadcast) if message.topic is Topic.HINTS]
        assert len(reports) == 3
        assert {user for message in reports for user in users if user.encode() in message.payload} == set(users)


def test_leases_are_bounded(driven: Driven) -> None:
    """Also those of a replica that reports what it likes."""
    notifications, feeds = driven.replica.notifications, driven.replica.gateway.feeds
    presence = Presence(driven.replica._outputs, notifications, feeds, "here", 10, max_leases=20)
    users = [f"user {number}" for number in range(30)]
    presence.apply_report(PresenceReport("liar", tuple((user, ONLINE) for user in users)))
    assert list(presence.status_of(users)) == users[:20]
    presence.apply_report(PresenceReport("liar", ((users[0], OFFLINE), (users[1], IDLE), (users[29], ONLINE))))
    assert list(presence.status_of(users)) == [*users[1:20], users[29]]


@pytest.fixture
def driven() -> Driven:
    return Driven()


def test_switched_off_nothing_is_told() -> None:
    driven = Driven(presence=PresenceSettings(enabled=False))
    user = driven.elsewhere.user()
    socket = driven.open(user)
    driven.replica.announce(PresenceChoice(user, "session", IDLE), now=driven.now)
    driven.replica.broadcast_message(Topic.HINTS, encode_hint(PresenceReport("r", ((user, IDLE),))), now=driven.now)
    driven.leave(socket)
    driven.sleep(5)
    assert driven.replica.presence_of([user]) == {}
    assert driven.replica.next_deadline() is None
