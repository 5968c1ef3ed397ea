"""The control log: brings changes of sessions, members and channels to the sockets of every replica.

Each record is a row stored with its change; the sequence has no holes. The bus carries records at once, and records that it
loses are read from the log. A stream is closed by what the store says now (a re-check), so repeated or late records do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from openguild_proto.effects.base import Operation
from openguild_proto.effects.replica import ReadControlHead, ReadControls
from openguild_proto.fanout.hub import Subscriber
from openguild_proto.http.message import OpenStream
from openguild_proto.limits import PAGE_RECORDS
from openguild_proto.log.follower import Item, LogFollower, TailCheck
from openguild_proto.operations.consequences import (
    AnnounceChannel,
    CloseStreams,
    ForgetChannels,
    RecheckUser,
    RefreshGuild,
    RestartLogs,
    RevokeSession,
    UnknownKind,
    consequences,
    ended_meanwhile,
)
from openguild_proto.operations.streams import recheck_session, recheck_stream
from openguild_proto.procedures import Procedure, Sleep
from openguild_proto.records import ControlKind, ControlRecord
from openguild_proto.replica.actions import Close, Level, Replay, StreamSocket
from openguild_proto.replica.channels import Channels
from openguild_proto.replica.epochs import Epochs
from openguild_proto.replica.gateway import Gateway
from openguild_proto.replica.notifications import TooManyChannels
from openguild_proto.replica.outputs import Outputs
from openguild_proto.replica.streams import Streams
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode

Recheck = Callable[[OpenStream], Operation[CloseCode | None]]


class Controls:
    """Applies every control record once and in order, from the head of the log at `start`."""

    def __init__(
        self,
        outputs: Outputs,
        epochs: Epochs,
        channels: Channels,
        streams: Streams,
        gateway: Gateway,
        tokens: TokenAuthority,
    ) -> None:
        self._outputs = outputs
        self._channels = channels
        self._epochs = epochs
        self._streams = streams
        self._gateway = gateway
        self._tokens = tokens
        self._log_head = 0  # as read when the log returned no records
        self._everything_at = 0  # `Streams.changes` when everything was last checked again
        self._unknown: set[str] = set()  # kinds of a newer release that were logged
        self.follower: LogFollower[ControlRecord] = LogFollower(self, outputs.procedures)

    # --- source of the follower ----------------------------------------------------------------------

    def read(self, after: int, before: int) -> Procedure[Sequence[Item[ControlRecord]]]:
        """Read a page of the control log."""
        del before
        records = yield from ReadControls(after, PAGE_RECORDS)
        if not records:  # if the head is further, they were deleted; else the read was stale or the log went back
            self._log_head = yield from ReadControlHead()
            records = yield from ReadControls(after, PAGE_RECORDS)  # read after the head, so it reaches at least as far
        return [Item(record.sequence, record) for record in records]

    def release(self, sequence: int, record: ControlRecord) -> None:
        """Apply the next record. After a failure everything is checked again, and the following records are applied."""
        del sequence
        self._apply_contained(record)

    def has_room(self) -> bool:
        """Return True: records are few."""
        return True

    def is_followed(self) -> bool:
        """Return True: the control log is followed as long as the replica runs."""
        return True

    def truncated(self, first: int | None) -> int | None:
        """Check everything again if records were missed that are no longer in the log, and return the sequence to continue from.

        Return None if none were missed: the next tail check decides.
        """
        head = first - 1 if first is not None else self._log_head
        if head <= self.follower.head:
            return None
        self._check_everything("control records were missed and are no longer in the log", head)
        return head

    def counted(self, items: int) -> None:
        """Do nothing: these reads are not counted."""

    # --- arrivals ------------------------------------------------------------------------------------

    def start(self) -> Procedure[None]:
        """Read the head of the log. Raises StorageUnavailable."""
        self.follower.restart((yield from ReadControlHead()))

    def offer(self, record: ControlRecord) -> None:
        """Handle a record that was stored here or came from another replica."""
        if not self.follower.begun:
            return  # no socket is open yet
        self.follower.offer(record.sequence, record)
        if record.sequence > self.follower.head and record.kind is ControlKind.SESSIONS_REVOKED:
            self._apply_contained(record)  # does not depend on earlier records, and may be repeated

    def check_tail(self) -> Procedure[None]:
        """Read and apply the records that neither this replica stored nor the bus delivered. Raises StorageUnavailable."""
        follower = self.follower
        if not follower.begun:
            yield from self.start()
            return
        place = follower.place
        head = yield from ReadControlHead()
        tail = follower.tail_read(place, head)
        if tail is TailCheck.FURTHER:
            yield from follower.catch_up(head)
        if tail is TailCheck.SHORT:
            again = yield from ReadControlHead()
            if follower.went_back(place, head, again):
                yield from self._epochs.went_back("the control log went back")
            if follower.went_back(place, head, again):  # if the store has no history
                self._restart(again, "the control log went back")

    def catch_up(self) -> Procedure[None]:
        """Apply the records of all changes that have been read from the store so far. Raises StorageUnavailable."""
        yield from self.follower.catch_up((yield from ReadControlHead()))
        yield from Sleep(0).wait()  # lets the procedures of `_do_in_turn` run

    def begin_anew(self) -> Procedure[None]:
        """Restart because commits, and control records with them, may be lost. Raises StorageUnavailable."""
        if self.follower.begun:
            self._restart((yield from ReadControlHead()), "control records may be lost")

    def _restart(self, head: int, why: str) -> None:
        self.follower.restart(head)
        self._check_everything(why, head)

    def _check_everything(self, why: str, head: int) -> None:
        """Check every stream and token again, because any session, member or channel may have changed."""
        self._outputs.log(Level.ERROR, f"{why}: every stream is checked again", head=head)
        self._streams.changed()
        self._everything_at = self._streams.changes
        self._streams.pages.drop_all()
        self._streams.notifications.watchers.begin_anew()
        self._tokens.forget_confirmations()
        self._outputs.procedures.start(self._recheck_everything(), "checking every stream again")
        self._gateway.recheck_all()

    def _recheck_everything(self) -> Procedure[None]:
        """Check the streams one after the other, so that thousands of checks do not delay other queries.

        Streams that join later are not included. If their access was checked before the change, `recheck_joined` checks them.
        """
        for socket in self._streams.sockets():
            yield from self._recheck_socket(socket, recheck_session)

    # --- consequences --------------------------------------------------------------------------------

    def _apply_contained(self, record: ControlRecord) -> None:
        try:
            self._apply(record)
        except Exception as failure:  # must not stop the records that follow, nor leave a right that this one ends
            self._outputs.defect("applying a control record", failure)
            self._check_everything("a control record could not be applied", record.sequence)

    def _apply(self, record: ControlRecord) -> None:
        streams = self._streams
        streams.changed()
        for consequence in consequences(record):
            match consequence:
                case RevokeSession(session_id=session_id):
                    self._tokens.revoke_session(session_id)
                case CloseStreams():
                    streams.close_streams(consequence)
                    self._gateway.close_matching(consequence)
                case ForgetChannels(channel_ids=channel_ids):  # many users may watch each
                    self._do_in_turn(partial(self._outputs.add_each, channel_ids, streams.forget_channel))
                    self._gateway.logs_deleted(channel_ids)
                case AnnounceChannel(record=created):
                    self._do_in_turn(partial(self._channel_created, created))
                case RefreshGuild(guild_id=guild_id):
                    users = tuple(streams.notifications.watchers.of_guild(guild_id))
                    self._outputs.add_each(users, self._start_refresh)
                case RecheckUser(user_id=user_id):
                    work, sockets = self._recheck_user(user_id), streams.sockets_of(user_id)
                    self._start_held(sockets, work, "checking a user's streams again")
                    self._gateway.recheck_user(user_id)
                case RestartLogs():
                    streams.pages.drop_all()
                    self._outputs.procedures.start(self._channels.restart_all(), "following logs of another epoch")
                case UnknownKind(kind=kind):
                    self._pass_over(kind)

    def _do_in_turn(self, do: Callable[[], None]) -> None:
        """Call `do` after the refreshes that earlier records of the same page have started, whose result it changes."""

        def once() -> Procedure[None]:
            do()
            yield from ()

        self._outputs.procedures.start(once(), "applying a control record")

    def _start_refresh(self, user_id: str) -> None:
        self._outputs.procedures.start(self._refresh(user_id), "reading again what a user sees")

    def _pass_over(self, kind: str) -> None:
        if kind not in self._unknown:
            self._unknown.add(kind)
            message = "a newer release writes control records that this release does not know"
            self._outputs.log(Level.WARNING, message, kind=kind)

    # --- checking again ------------------------------------------------------------------------------

    def recheck_joined(self, socket: StreamSocket, changes: int) -> None:
        """Check a stream again because something changed while it was being opened.

        `changes`: the count of changes when its access was checked. If records may be lost since then, its session is checked
        as well.
        """
        stream = socket.stream
        if stream is None:
            return
        ended = ended_meanwhile(stream, self._tokens)
        if ended is not None:
            self._outputs.add(Close(socket, CloseCode.TOKEN_ENDED, ended))
            return
        check = recheck_session if changes < self._everything_at else recheck_stream
        self._start_held([socket], self._recheck_opened(socket, stream, check), "checking a stream again")

    def _recheck_opened(self, socket: StreamSocket, stream: OpenStream, check: Recheck) -> Procedure[None]:
        if stream.channel_id is None:
            yield from self._refresh(stream.user_id)
        yield from self._recheck_socket(socket, check)

    def _recheck_user(self, user_id: str) -> Procedure[None]:
        yield from self._refresh(user_id)
        for socket in self._streams.sockets_of(user_id):
            yield from self._recheck_socket(socket)

    def _start_held(self, sockets: Iterable[StreamSocket], work: Procedure[None], what: str) -> None:
        """Start checking these sockets again. Their events are held until it is done (PROTOCOL 8.8.6)."""
        held = [socket.subscriber for socket in sockets if socket.subscriber is not None]
        for subscriber in held:
            subscriber.hold(1)
        self._outputs.procedures.start(self._held(held, work), what)

    def _held(self, held: Sequence[Subscriber], work: Procedure[None]) -> Procedure[None]:
        try:
            yield from work
        finally:  # queued after the Close actions of `work`
            self._outputs.add_each(held, self._go_on)

    def _go_on(self, subscriber: Subscriber) -> Replay | None:
        subscriber.hold(-1)
        if subscriber.replaying:
            return Replay(subscriber.owner)
        self._outputs.mark(subscriber.ring)
        return None

    def _recheck_socket(self, socket: StreamSocket, check: Recheck = recheck_stream) -> Procedure[None]:
        stream = socket.stream
        if stream is None:
            return
        try:
            verdict = yield from check(stream)
        except Exception as failure:  # an outage or a bug: it must not stop the checks of other streams
            message = "access cannot be re-checked now: closing the stream"
            self._outputs.not_read(failure, "checking a stream again", message, channel_id=stream.channel_id)
            self._outputs.add(Close(socket, CloseCode.SERVICE_RESTART, reasons.ACCESS_UNKNOWN))
            return
        if verdict is not None and socket.stream is stream:
            self._outputs.add(Close(socket, verdict, _reason(verdict, stream)))

    def _refresh(self, user_id: str) -> Procedure[None]:
        notifications = self._streams.notifications
        if not notifications.watchers.is_watching(user_id):
            return
        try:
            yield from notifications.refresh(user_id, self)
        except TooManyChannels:
            self._end_notifications(user_id, CloseCode.POLICY_VIOLATION, reasons.TOO_MANY_CHANNELS)
        except Exception as failure:  # an outage or a bug: it must not stop the checks that follow
            message = "a notification stream cannot be brought up to date: closing it"
            self._outputs.not_read(failure, "reading again what a user sees", message, user_id=user_id)
            self._end_notifications(user_id, CloseCode.SERVICE_RESTART, reasons.NOTIFICATIONS_INTERRUPTED)

    def _channel_created(self, record: ControlRecord) -> None:
        notifications = self._streams.notifications
        notifications.channel_created(record)
        users = tuple(notifications.watchers.of_guild(str(record.guild_id)))
        self._outputs.add_each(users, self._end_if_too_many)

    def _end_if_too_many(self, user_id: str) -> None:
        if self._streams.notifications.sees_too_many(user_id):
            self._end_notifications(user_id, CloseCode.POLICY_VIOLATION, reasons.TOO_MANY_CHANNELS)

    def _end_notifications(self, user_id: str, code: CloseCode, reason: str) -> None:
        for socket in self._streams.sockets_of(user_id):
            if socket.stream is not None and socket.stream.channel_id is None:
                self._outputs.add(Close(socket, code, reason))


def _reason(verdict: CloseCode, stream: OpenStream) -> str:
    if verdict is not CloseCode.SERVICE_RESTART:
        return reasons.ACCESS_ENDED
    return reasons.NOTIFICATIONS_INTERRUPTED if stream.channel_id is None else reasons.LOG_WENT_BACK
