"""Another replica has seen first that the database lost commits: nothing of the log before is sent under the new epoch."""

from __future__ import annotations

from typing import Any

from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.effects.replica import ReadControlHead, ReadHeads, ReadHistory, ReadVisible, Visible
from openguild_proto.errors import ErrorCode
from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.http.message import OpenStream
from openguild_proto.records import Head, History, StoredEvent
from openguild_proto.replica.actions import Close, Prepared, Query, Replay
from openguild_proto.replica.replica import Replica
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.ws.close_codes import CloseCode

KEY = SigningKey(bytes(32))


class Socket:
    stream: OpenStream | None = None
    subscriber: Any = None


class Driver:
    """A replica whose queries are answered at once from what the database has now."""

    def __init__(self) -> None:
        self.events = [b'"first"', b'"lost"']
        self.history = History("cluster:1", "cluster:1", 0)
        self.asked: list[str] = []
        tokens = TokenAuthority(KeyRing(KEY))
        self.replica = Replica(Hub(), Feeds(Hub()), tokens, lambda: 0.5, replica_id="here")
        self.replica.run(self.replica.start(), "the start", lambda result, error: None, now=0.0)
        self.perform_actions()

    def perform_actions(self) -> list[Any]:
        others = []
        while (action := self.replica.next_action()) is not None:
            if isinstance(action, Query):
                self.asked.append(type(action.effect).__name__)
                self.replica.answered(action.number, self._answer(action.effect), now=0.0)
            else:
                others.append(action)
            self.replica.handle_deadline(now=0.0)
        return others

    def _answer(self, effect: Any) -> Any:
        match effect:
            case ReadHistory():
                return self.history
            case ReadHeads():
                return {"c": Head(len(self.events), self.history.renewals + 1)}
            case ReadControlHead():
                return 0
            case ReadVisible():
                return Visible(("g",), ("c",))
            case ReadEvents(after=after, limit=limit):
                stored = [StoredEvent("c", n, f"e{n}", wire, 0) for n, wire in enumerate(self.events, start=1)]
                return tuple(stored[after : after + limit])
            case FindSession():
                return None  # it was opened behind the point to which the database was restored
        return None

    def prepare(self, channel_id: str | None, epoch: int | None) -> OpenStream:
        stream = OpenStream("u", "s", KEY.public, 0, channel_id, since=0, head=0, epoch=epoch)
        self.replica.prepare(stream, now=0.0)
        self.perform_actions()
        return stream

    def replay(self, stream: OpenStream) -> bytes:
        """What a socket that joins is sent from the log."""
        socket, sent = Socket(), b""
        self.replica.join(socket, stream, handle=1, changes=self.replica.changes, wall=0.0, now=0.0)
        assert Replay(socket) in self.perform_actions()
        while (pieces := self.replica.next_pages(socket, now=0.0)) != []:
            self.perform_actions()
            for last, piece in pieces or ():
                sent += piece
                self.replica.replayed(socket, last)
        self.replica.leave(socket, now=0.0)
        self.perform_actions()
        return sent

    def restore(self) -> None:
        """A standby without the newest event was promoted, and another replica has renewed the epochs."""
        self.events = [b'"first"', b'"other"']
        self.history = History("cluster:2", "cluster:2", 1)
        self.asked.clear()


def test_kept_pages_of_the_log_before_are_not_sent_under_the_new_epoch() -> None:
    driver = Driver()
    assert b'"lost"' in driver.replay(driver.prepare("c", 1))
    driver.restore()
    sent = driver.replay(driver.prepare("c", 2))
    assert b'"lost"' not in sent
    assert b'"other"' in sent


def test_stream_of_an_epoch_that_is_news_has_the_history_read_first() -> None:
    driver = Driver()
    driver.prepare(None, None)  # a notification stream follows the channel
    driver.restore()
    driver.events.pop()
    driver.prepare("c", 2)
    feed = driver.replica.channels.get("c")
    assert driver.asked.count("ReadHistory") == 2  # seen, and read again when everything had begun anew
    assert feed is not None
    assert (feed.epoch, feed.head) == (2, 1)


def test_stream_of_an_epoch_that_is_over_is_refused() -> None:
    """Its access was read before the database lost commits, and the channel's log behind that."""
    driver = Driver()
    driver.restore()
    stream = OpenStream("u", "s", KEY.public, 0, "c", since=0, head=0, epoch=1)
    ticket = driver.replica.prepare(stream, now=0.0)
    assert Prepared(ticket, ErrorCode.DATABASE_UNAVAILABLE) in driver.perform_actions()
    assert driver.replica.channels.get("c") is None
    driver.prepare("c", 2)
    assert driver.replica.channels.get("c") is not None


def test_stream_that_joins_during_a_renewal_ends_with_its_session() -> None:
    driver = Driver()
    changes = driver.replica.changes
    stream = driver.prepare(None, None)
    driver.restore()
    driver.replica.catch_up(now=0.0)
    driver.perform_actions()
    socket = Socket()
    driver.replica.join(socket, stream, handle=1, changes=changes, wall=0.0, now=0.0)
    closed = [action for action in driver.perform_actions() if isinstance(action, Close)]
    assert [(action.socket, action.code) for action in closed] == [(socket, CloseCode.TOKEN_ENDED)]


def test_further_streams_of_the_same_epoch_ask_nothing() -> None:
    driver = Driver()
    driver.prepare("c", 1)
    driver.asked.clear()
    driver.prepare("c", 1)
    assert driver.asked == []
