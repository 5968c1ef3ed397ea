"""Control messages: what changed about sessions, members and channels reaches every replica's sockets.

Each is a row of the control log, stored with the change and numbered without holes. NATS carries it at once; the
control sequencer notices what NATS lost, and the tail check reads it from PostgreSQL. A socket is closed by what
the store says now (a re-check), so a repeated or late message does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects import Operation, StorageUnavailable
from openguild_proto.http.message import OpenStream
from openguild_proto.log.sequencer import Sequencer
from openguild_proto.operations.consequences import (
    AnnounceChannel,
    CloseStreams,
    ForgetChannel,
    PassOver,
    RecheckUser,
    RefreshGuild,
    RevokeSession,
    consequences,
    ended_meanwhile,
)
from openguild_proto.operations.streams import recheck_session, recheck_stream
from openguild_proto.records import ControlKind, ControlRecord, ReadState
from openguild_proto.schemas.stream import (
    ReadHint,
    decode_control,
    encode_control,
    encode_read_hint,
)
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.bus.base import Bus
from openguild_runtime.effects.performer import Performer
from openguild_runtime.net.transport import Transport
from openguild_runtime.replica.feeds import GAP_GRACE_SECS
from openguild_runtime.replica.streams import Streams
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import contained, start_contained

PAGE_RECORDS = 500

Recheck: TypeAlias = Callable[[OpenStream], Operation[CloseCode | None]]

log = structlog.get_logger("openguild.controls")


class Controls:
    """`start` reads where the log stands; from then on every record is applied in order, once."""

    def __init__(
        self,
        *,
        storage: Storage,
        bus: Bus,
        streams: Streams,
        tokens: TokenAuthority,
        performer: Callable[[], Performer],
        tasks: TaskGroup,
    ) -> None:
        self._storage = storage
        self._bus = bus
        self._streams = streams
        self._tokens = tokens
        self._performer = performer
        self._tasks = tasks
        self._sequencer: Sequencer[ControlRecord] | None = None
        self._backfilling = False
        streams.epochs.renewed.append(self._begin_anew)
        self._unknown: set[str] = set()  # kinds of a newer release that the log has mentioned

    async def start(self) -> None:
        """Raises StorageUnavailable."""
        self._sequencer = Sequencer(await self._storage.control_head())

    # --- arrivals ----------------------------------------------------------------------------------

    def stored(self, record: ControlRecord) -> None:
        """This replica made the change: tell the others and apply it here."""
        self._bus.publish_control(encode_control(record))
        self._offer(record)

    def announce_read(self, user_id: str, state: ReadState) -> None:
        """A hint, best effort: the reader's other devices on every replica (D-14)."""
        self._bus.publish_control(encode_read_hint(ReadHint(user_id=user_id, state=state)))
        self._streams.notifications.read_moved(user_id, state)

    def received(self, payload: bytes) -> None:
        """From NATS."""
        message = decode_control(payload)
        if isinstance(message, ReadHint):
            self._streams.notifications.read_moved(message.user_id, message.state)
        else:
            self._offer(message)

    def _offer(self, record: ControlRecord) -> None:
        sequencer = self._sequencer
        if sequencer is None:
            return  # not started: there is no socket yet that could care
        for _, released in sequencer.offer(record.sequence, record):
            self._apply_contained(released)
        if record.sequence > sequencer.head and record.kind is ControlKind.SESSIONS_REVOKED:
            self._apply_contained(record)  # needs nothing of what came before, and does no harm twice
        if sequencer.missing() is not None and not self._backfilling:
            self._backfilling = True
            start_contained(self._tasks, self._backfill_after_grace)

    def _apply_contained(self, record: ControlRecord) -> None:
        with contained("applying a control record"):  # the ones behind it do not suffer
            self._apply(record)

    async def _backfill_after_grace(self) -> None:
        try:
            await anyio.sleep(GAP_GRACE_SECS)
            if self._sequencer is not None and self._sequencer.missing() is not None:
                await self.check_tail()
        except StorageUnavailable:
            log.warning("a lost control message cannot be read yet")
        finally:
            self._backfilling = False

    async def check_tail(self) -> None:
        """Read what neither this replica nor NATS has brought. Raises StorageUnavailable."""
        if self._sequencer is None:
            await self.start()
            return
        sequencer = self._sequencer
        while True:
            known = sequencer.head
            head = await self._storage.control_head()  # before the records: they reach at least as far
            if head < known:
                again = await self._storage.control_head()
                if sequencer.went_back(known, head, again):
                    await self._streams.epochs.went_back("the control log went back")
                if sequencer.went_back(known, head, again):  # of a store that has no history
                    self._restart(again, "the control log went back")
                return
            if head == known:
                return
            records = await self._storage.control_since(known, PAGE_RECORDS)
            oldest = records[0].sequence if records else head + 1
            if oldest > max(known, sequencer.head) + 1:
                self._restart(oldest - 1, "control records were missed and are no longer in the log")
            for record in records:
                self._offer(record)
            if len(records) < PAGE_RECORDS:
                return

    async def _begin_anew(self) -> None:
        """The channels have new epochs because commits may be lost, and control records with them. Raises StorageUnavailable."""
        if self._sequencer is not None:
            self._restart(await self._storage.control_head(), "control records may be lost")

    def _restart(self, head: int, why: str) -> None:
        """Anything may have changed: sessions, members, channels. Every stream is checked again, and every token."""
        if self._sequencer is None:
            return
        log.error(f"{why}: every stream is checked again", head=head)
        self._sequencer.restart(head)
        self._streams.changes += 1
        self._streams.forget_pages()
        self._tokens.confirm_again()
        start_contained(self._tasks, self._recheck_everything)

    async def _recheck_everything(self) -> None:
        """One after the other: there may be thousands, and they are not to crowd out what is asked meanwhile."""
        for transport in self._streams.transports():
            await self._recheck_transport(transport, recheck_session)
        for user_id in self._streams.notifications.watchers.users():
            await self._refresh(user_id)

    # --- effects on sockets ------------------------------------------------------------------------

    def recheck_joined(self, transport: Transport) -> None:
        """Something changed while this stream was being opened: what was checked before may not be true any more."""
        stream = transport.stream
        if stream is None:
            return
        ended = ended_meanwhile(stream, self._tokens)
        if ended is not None:
            transport.close(CloseCode.TOKEN_ENDED, ended)
        elif stream.channel_id is None:
            start_contained(self._tasks, self._refresh, stream.user_id)
        else:
            start_contained(self._tasks, self._recheck_transport, transport)

    def _apply(self, record: ControlRecord) -> None:
        streams = self._streams
        streams.changes += 1
        for consequence in consequences(record):
            match consequence:
                case RevokeSession(session_id=session_id):
                    self._tokens.revoke_session(session_id)
                case CloseStreams():
                    streams.close_streams(consequence)
                case ForgetChannel(channel_id=channel_id):
                    streams.forget_channel(channel_id)
                case AnnounceChannel(record=created):
                    streams.notifications.channel_created(created)
                case RefreshGuild(guild_id=guild_id):
                    streams.turns.each(tuple(streams.notifications.watchers.of_guild(guild_id)), self._start_refresh)
                case RecheckUser(user_id=user_id):
                    start_contained(self._tasks, self._recheck, user_id)
                case PassOver(kind=kind):
                    self._pass_over(kind)

    def _start_refresh(self, user_id: str) -> None:
        start_contained(self._tasks, self._refresh, user_id)

    def _pass_over(self, kind: str) -> None:
        if kind not in self._unknown:
            self._unknown.add(kind)
            log.warning("a newer release writes control records that this one does not know", kind=kind)

    async def _recheck(self, user_id: str) -> None:
        await self._refresh(user_id)
        for transport in self._streams.transports_of(user_id):
            await self._recheck_transport(transport)

    async def _recheck_transport(self, transport: Transport, check: Recheck = recheck_stream) -> None:
        stream = transport.stream
        if stream is None:
            return
        try:
            verdict = await self._performer().run(check(stream))
        except StorageUnavailable:
            log.warning("access cannot be re-checked now: closing the stream", channel_id=stream.channel_id)
            transport.close(CloseCode.SERVICE_RESTART, reasons.ACCESS_UNKNOWN)
            return
        if verdict is not None:
            reason = reasons.LOG_WENT_BACK if verdict is CloseCode.SERVICE_RESTART else reasons.ACCESS_ENDED
            transport.close(verdict, reason)

    async def _refresh(self, user_id: str) -> None:
        if self._streams.notifications.watchers.is_watching(user_id):
            try:
                await self._streams.notifications.refresh(user_id)
            except StorageUnavailable:
                log.warning("a notification stream cannot be brought up to date: closing it", user_id=user_id)
                for transport in self._streams.transports_of(user_id):
                    if transport.stream is not None and transport.stream.channel_id is None:
                        transport.close(CloseCode.SERVICE_RESTART, reasons.NOTIFICATIONS_INTERRUPTED)
