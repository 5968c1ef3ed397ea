"""A database that lost commits: every channel gets a new epoch, once, and its streams begin anew."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.replica import ReadControlHead, ReadHeads, ReadHistory, RecordLineage, RenewEpochs
from openguild_proto.memory import MemoryTables
from openguild_proto.records import Head, History
from openguild_proto.ws import reasons
from tests.support.deeds import login
from tests.support.driven_replica import Driven
from tests.support.elsewhere import Elsewhere


class Database:
    """What the database says of itself, and two replicas on it."""

    def __init__(self, **members: Any) -> None:
        self.history = History(**{"lineage": "one", "recorded": "one", "renewals": 0, **members})
        self.renewed = self.recorded = 0
        self.mirrored: set[str] = set()  # channels of other servers
        self.elsewhere = Elsewhere(MemoryTables())
        self.first = self.replica()
        self.user = self.first.elsewhere.user()
        self.channel = self.first.elsewhere.channel(self.user)

    def replica(self) -> Driven:
        driven = Driven(self.elsewhere.tables, started=False)
        driven.answers[ReadHistory] = lambda effect: self.history
        driven.answers[RecordLineage] = self._record
        driven.answers[RenewEpochs] = self._renew
        assert driven.run(driven.replica.start()) == [None, None]
        return driven

    def _record(self, effect: RecordLineage) -> None:
        self.recorded += 1
        self.change(recorded=effect.found.lineage)

    def _renew(self, effect: RenewEpochs) -> bool:
        if self.history.renewals != effect.found.renewals or self.history.recorded != effect.found.recorded:
            return False
        self.renewed += 1
        self.elsewhere.renew_epochs(self.mirrored)
        self.change(
            recorded=self.history.lineage,
            renewals=max(self.history.renewals + 1, effect.at_least),
            lacks=False,
            database=f"renewed {self.renewed}",
        )
        return True

    def change(self, **members: Any) -> None:
        self.history = msgspec.structs.replace(self.history, **members)


def check(driven: Driven) -> list[Any]:
    return driven.run(driven.replica.epochs.check())


def began_anew(driven: Driven) -> bool:
    return any("every channel has a new epoch" in line for line in driven.lines)


def test_the_first_look_records_the_lineage_and_restarts_nothing() -> None:
    database = Database(recorded=None)
    assert (database.recorded, database.renewed) == (1, 0)
    assert database.history.recorded == "one"
    socket = database.first.open(database.user, database.channel)
    database.first.commit(database.channel)
    check(database.first)
    assert (database.recorded, socket.closed) == (1, None)


def test_another_lineage_at_the_start_renews_before_anything_is_served() -> None:
    database = Database(recorded="of the primary before")
    assert database.renewed == 1
    assert began_anew(database.first)


@pytest.mark.parametrize("lost", [{"lineage": "two"}, {"lacks": True}, {"lineage": "two", "recorded": None}])
def test_lost_commits_give_every_channel_a_new_epoch_once(lost: dict[str, Any]) -> None:
    database = Database()
    replicas = [database.first, database.replica()]
    sockets = []
    session = login(database.user, 1)
    database.first.elsewhere.perform(session)
    for driven in replicas:
        sockets.append(driven.open(database.user, database.channel, session_id=session.session_id))
        driven.commit(database.channel)
        driven.deliver(driven.elsewhere.append(database.channel))
    changes = [driven.replica.changes for driven in replicas]
    database.change(**lost)
    for driven in replicas:
        check(driven)
        check(driven)
    assert database.renewed == 1
    assert [began_anew(driven) for driven in replicas] == [True, False], "the other one found that it was done"
    assert [driven.replica.counters.renewals for driven in replicas] == [1, 1]
    for socket in sockets:
        assert socket.closed is not None
        assert socket.closed.reason == reasons.LOG_WENT_BACK
    assert all(driven.replica.changes > before for driven, before in zip(replicas, changes, strict=True))
    for driven in replicas:
        assert any(line.startswith("control records may be lost") for line in driven.lines)


def test_a_log_that_went_back_is_a_doubt_that_renews() -> None:
    database = Database()
    socket = database.first.open(database.user, database.channel)
    for _ in range(3):
        database.first.commit(database.channel)
    database.first.elsewhere.lose_events(database.channel, 1)
    database.first.run(database.first.replica.channels.check_tails(deaf=False, everything=True))
    assert database.renewed == 1
    assert socket.closed is not None
    feed = database.first.replica.channels.get(database.channel)
    assert feed is None
    assert check(database.first) == [None, None]
    assert database.renewed == 1


@pytest.mark.parametrize("seen", ["first by the lineage", "by the logs alone"])
def test_mirrored_logs_that_went_back_renew_once(seen: str) -> None:
    """Their epochs stay, and their owner brings again what is missing: they must not be doubted one after the other."""
    database = Database()
    replicas = [database.first, database.replica()]
    here = database.first.elsewhere
    channels = [database.channel, *(here.channel(database.user) for _ in range(3))]
    database.mirrored = set(channels)
    session = login(database.user, 1)
    here.perform(session)
    sockets = []
    for channel in channels:
        events = [here.append(channel) for _ in range(3)]
        for driven in replicas:
            sockets.append(driven.open(database.user, channel, session_id=session.session_id))
            for event in events:
                driven.deliver(event)
        here.lose_events(channel, 1)
    if seen == "first by the lineage":
        database.change(lineage="two")
        for driven in replicas:
            check(driven)
    for _ in range(3):
        for driven in replicas:
            driven.run(driven.replica.channels.check_tails(deaf=False, everything=True))
    assert database.renewed == 1
    for socket in sockets:
        assert socket.closed is not None
        assert socket.closed.reason == reasons.LOG_WENT_BACK


def test_a_control_log_that_went_back_renews() -> None:
    database = Database()
    driven = database.first
    driven.run(driven.replica.controls.check_tail())
    driven.sleep(1)
    driven.elsewhere.lose_controls(0)
    driven.run(driven.replica.controls.check_tail())
    assert database.renewed == 1
    assert driven.replica.controls.follower.head == 0


def test_a_standby_says_nothing() -> None:
    database = Database()
    database.change(standby=True, lineage="two")
    assert check(database.first) == [None, None]
    database.change(standby=False, lineage="one")
    check(database.first)
    assert database.renewed == 0


def test_a_log_that_is_short_on_a_standby_is_no_loss() -> None:
    database = Database()
    socket = database.first.open(database.user, database.channel)
    for _ in range(3):
        database.first.commit(database.channel)
    database.change(standby=True)
    database.first.answers[ReadHeads] = lambda effect: {database.channel: Head(1)}
    _, error = database.first.run(database.first.replica.channels.check_tails(deaf=False, everything=True))
    assert isinstance(error, StorageUnavailable)
    del database.first.answers[ReadHeads]
    database.change(standby=False)
    assert check(database.first) == [None, None]
    assert (socket.closed, database.renewed) == (None, 0)


@pytest.mark.parametrize("kind", [RenewEpochs, ReadHeads, ReadControlHead])
def test_what_fails_on_the_way_is_taken_up_by_the_next_check(kind: type[Any]) -> None:
    database = Database()
    driven = database.first
    socket = driven.open(database.user, database.channel)
    driven.commit(database.channel)
    database.change(lineage="two")
    driven.failing[kind] = StorageUnavailable()
    assert isinstance(check(driven)[1], StorageUnavailable)
    driven.failing.clear()
    assert check(driven) == [None, None]
    assert database.renewed == 1
    assert socket.closed is not None
    lines = len(driven.lines)
    assert check(driven) == [None, None]
    assert len(driven.lines) == lines


def test_two_checks_run_one_after_the_other() -> None:
    database = Database()
    database.change(lineage="two")
    held = database.first.hold(ReadHistory)
    ends = [check(database.first) for _ in range(3)]
    while held.queries:
        assert len(held.queries) == 1
        held.release()
    assert ends == [[None, None]] * 3
    assert database.renewed == 1


def test_a_check_that_fails_lets_the_one_behind_it_go() -> None:
    database = Database()
    held = database.first.hold(ReadHistory)
    ends = [check(database.first) for _ in range(2)]
    held.fail()
    held.release()
    assert isinstance(ends[0][1], StorageUnavailable)
    assert ends[1] == [None, None]


def test_a_stream_opened_while_all_begin_anew_is_looked_at_again() -> None:
    database = Database()
    driven = database.first
    for _ in range(3):
        driven.commit(database.channel)
    session = login(database.user, 1)
    database.first.elsewhere.perform(session)
    stream = driven.stream(database.user, database.channel, since=3, epoch=1, session_id=session.session_id)
    changes = driven.replica.changes
    driven.prepare(stream)
    database.change(lineage="two")
    check(driven)
    socket = driven.join(stream, changes=changes)
    assert socket.closed is not None
    assert socket.closed.reason == reasons.LOG_WENT_BACK


def test_what_is_opened_while_heads_are_read_anew_counts_as_changed() -> None:
    """Before the first channel begins anew: what joins from then on is looked at again."""
    database = Database()
    driven = database.first
    driven.open(database.user, database.channel)
    heads = driven.hold(ReadHeads)
    changes = driven.replica.changes
    database.change(lineage="two")
    check(driven)
    assert len(heads.queries) == 1
    assert driven.replica.changes > changes


def test_only_streams_of_channels_whose_epoch_changed_are_closed() -> None:
    """Another channel was created, and its stream opened, since the epochs were renewed elsewhere."""
    database = Database()
    driven = database.first
    before = driven.open(database.user, database.channel)
    driven.commit(database.channel)
    database.elsewhere.renew_epochs()
    later = driven.elsewhere.channel(database.user)
    after = driven.open(database.user, later, epoch=1)
    driven.commit(later)
    driven.run(driven.replica.channels.restart_all())
    assert before.closed is not None
    assert after.closed is None
    driven.commit(later)
    assert after.sequences == [1, 2]


def test_replicas_talk_within_their_database() -> None:
    database = Database(database="first")
    second = database.replica()
    check(second)
    assert database.first.databases == second.databases == ["first"]


def test_a_copy_never_talks_with_the_replicas_of_its_original() -> None:
    """A restored backup has another lineage than the recorded one, and the id of its original."""
    database = Database(database="original", lineage="copy", recorded="original")
    assert database.first.databases == ["renewed 1"]


def test_all_replicas_move_to_the_new_id_of_their_database() -> None:
    database = Database(database="first")
    second = database.replica()
    database.change(lineage="two")
    check(second)
    assert second.databases == ["first", "renewed 1"]
    check(database.first)
    assert database.first.databases == ["first", "renewed 1"]


def test_a_standby_does_not_say_with_whom_to_talk() -> None:
    database = Database(database="first")
    database.change(standby=True, database="old")
    check(database.first)
    assert database.first.databases == ["first"]


def test_a_store_that_ends_with_its_process_has_no_other_replicas() -> None:
    assert Driven(replica_id="alone").databases == ["alone"]
