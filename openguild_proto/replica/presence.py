"""Presence: which users have streams, here and at other replicas, and the notifications to users who share a guild with them.

Each replica reports its own users: at a change, and again every `REPORT_SECS`. A report is valid for `LEASE_SECS`, so the
users of a dead replica are offline when its leases have expired. Changes are collected and sent once a second; a change that
was undone within that second is not sent. Nothing is stored, and the next report makes up for a lost one.

A chosen status ends with the session's last stream here; the client repeats it after each connect. A session without a chosen
status counts from `ARRIVAL_SECS` after its first stream, so that users who appear offline are not shown at each reconnect.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from openguild_proto.bus.topics import Topic
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.replica import FindAudience
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.gateway.hint_frames import HintFrames
from openguild_proto.hints import PresenceChoice, PresenceReport, PresenceStatus, ReportRequest, encode_hint
from openguild_proto.limits import MAX_LEASES, MAX_PRESENCE_USERS, MAX_REPORTED_USERS, PRESENCE_PAUSE_SECS
from openguild_proto.procedures import Procedure, Sleep
from openguild_proto.replica.actions import Broadcast, Flush
from openguild_proto.replica.notifications import Notifications
from openguild_proto.replica.outputs import Outputs
from openguild_proto.schemas.payloads import presence_data, presence_payload
from openguild_proto.ws.frames import text_frame

TICK_SECS = 1.0
ARRIVAL_SECS = 2.0  # from a session's first stream here until it counts without a choice; clients repeat theirs first
GRACE_SECS = 5.0  # from the end of a user's last stream here until they count as gone; clients may reconnect elsewhere
REPORT_SECS = 10.0
LEASE_SECS = 25.0  # survives two lost reports
ANSWER_SECS = 5.0  # between two answers to requests for reports

OFFLINE = PresenceStatus.OFFLINE


K = TypeVar("K")


def _pop_until(times: OrderedDict[K, float], end: float) -> Iterator[K]:
    """Remove and return the keys whose time is at most `end`, earliest first."""
    while times:
        key, time = next(iter(times.items()))
        if time > end:
            return
        times.popitem(last=False)
        yield key


class _Session:
    __slots__ = ("sockets", "status")

    def __init__(self, status: PresenceStatus | None) -> None:
        self.sockets = 0
        self.status = status  # None: it has just connected, and does not count yet


class Presence:
    """Tracks presence. `replica`: its unique id. `max_members`: members of larger guilds are not told of each other."""

    def __init__(
        self,
        outputs: Outputs,
        notifications: Notifications,
        feeds: Feeds,
        replica: str,
        max_members: int,
        max_leases: int = MAX_LEASES,
    ) -> None:
        self._outputs = outputs
        self._notifications = notifications
        self._feeds = feeds
        self._replica = replica
        self._max_members = max_members
        self._max_leases = max_leases
        self._sessions: dict[str, dict[str, _Session]] = {}  # user id -> session id -> its streams here
        self._arriving: OrderedDict[tuple[str, str], float] = (
            OrderedDict()
        )  # (user id, session id) -> when it counts as online, earliest first
        self._leaving: OrderedDict[str, float] = OrderedDict()  # user id -> when they count as gone, earliest first
        self._here: dict[str, PresenceStatus] = {}  # user id -> status here, unless offline
        self._reported: OrderedDict[str, float] = OrderedDict()  # user id -> time of the last report, earliest first
        self._unreported: dict[str, None] = {}  # users whose status here has changed since
        self._leases: OrderedDict[tuple[str, str], float] = OrderedDict()  # (user id, replica) -> end, earliest first
        self._elsewhere: dict[str, dict[str, PresenceStatus]] = {}  # user id -> replica -> status there
        self._told: dict[str, PresenceStatus] = {}  # the statuses that local users were sent
        self._untold: dict[str, None] = {}  # users whose status may differ from the sent one
        self._is_ticking = False
        self._is_telling = False
        self._is_connected = False
        self._answers_at = 0.0  # earliest time of the next answer to a request

    # --- inputs --------------------------------------------------------------------------------------

    def opened(self, user_id: str, session_id: str, former: str | None = None) -> None:
        """Add a stream of this session. A stream that replaces its session `former` keeps the status chosen there."""
        sessions = self._sessions.setdefault(user_id, {})
        if session_id not in sessions:
            renewed = sessions.get(former) if former is not None else None
            sessions[session_id] = session = _Session(renewed.status if renewed is not None else None)
            if session.status is None:
                self._arriving[user_id, session_id] = self._outputs.procedures.now + ARRIVAL_SECS
                self._tick_soon()
        sessions[session_id].sockets += 1
        self._leaving.pop(user_id, None)
        self._look_at(user_id)

    def closed(self, user_id: str, session_id: str) -> None:
        """Remove a stream of this session."""
        sessions = self._sessions[user_id]
        session = sessions[session_id]
        session.sockets -= 1
        if session.sockets:
            return
        del sessions[session_id]
        self._arriving.pop((user_id, session_id), None)
        if sessions:
            self._look_at(user_id)
        else:
            del self._sessions[user_id]
            self._leaving[user_id] = self._outputs.procedures.now + GRACE_SECS
            self._tick_soon()

    def choose(self, choice: PresenceChoice) -> None:
        """Set the status that a client has chosen. Ignored unless its session has streams here."""
        self._count(choice.user_id, choice.session_id, choice.status)

    def apply_report(self, report: PresenceReport) -> None:
        """Apply another replica's report of its users."""
        if report.replica == self._replica:
            return
        end = self._outputs.procedures.now + LEASE_SECS
        for user_id, status in report.users:
            lease = user_id, report.replica
            known = self._leases.pop(lease, None)
            if status is OFFLINE:
                self._end_lease(lease)
            elif known is not None or len(self._leases) < self._max_leases:
                self._leases[lease] = end
                self._elsewhere.setdefault(user_id, {})[report.replica] = status
                self._doubt(user_id)

    def report_all(self, request: ReportRequest) -> None:
        """Report all users, because another replica has just started."""
        now = self._outputs.procedures.now
        if request.replica != self._replica and now >= self._answers_at:
            self._answers_at = now + ANSWER_SECS
            self._report_all()

    def bus_state(self, connected: bool) -> None:
        """Set whether the bus is connected. After a reconnect all replicas report all their users."""
        if connected and not self._is_connected:
            self._outputs.add(Broadcast(Topic.HINTS, encode_hint(ReportRequest(self._replica))))
            self._report_all()
        self._is_connected = connected

    def status_of(self, user_ids: Iterable[str], reader_id: str = "") -> dict[str, PresenceStatus]:
        """Return the statuses of those users who are not offline.

        `reader_id`: this user is online to themselves from their first stream, before it counts for others.
        """
        found = ((user_id, self._combined(user_id)) for user_id in user_ids)
        if any(session.status is None for session in self._sessions.get(reader_id, {}).values()):
            found = ((user_id, PresenceStatus.ONLINE if user_id == reader_id else status) for user_id, status in found)
        return {user_id: status for user_id, status in found if status is not OFFLINE}

    # --- statuses ----------------------------------------------------------------------------------

    def _combined(self, user_id: str) -> PresenceStatus:
        statuses = list(self._elsewhere.get(user_id, {}).values())
        if user_id in self._here:
            statuses.append(self._here[user_id])
        return PresenceStatus.of_all(statuses)

    def _count(self, user_id: str, session_id: str, status: PresenceStatus) -> None:
        """Set the status of a session, if it has streams here."""
        session = self._sessions.get(user_id, {}).get(session_id)
        if session is not None:
            session.status = status
            self._arriving.pop((user_id, session_id), None)
            self._look_at(user_id)

    def _look_at(self, user_id: str) -> None:
        """Compute a user's status here again, and note a change."""
        sessions = self._sessions.get(user_id, {}).values()
        statuses = [session.status for session in sessions if session.status is not None]
        status = PresenceStatus.of_all(statuses)
        # While no session counts yet, the status stays as it was.
        if status is self._here.get(user_id, OFFLINE) or (sessions and not statuses):
            return
        if status is OFFLINE:
            del self._here[user_id]
        else:
            self._here[user_id] = status
        self._unreported[user_id] = None
        self._doubt(user_id)

    def _doubt(self, user_id: str) -> None:
        if self._combined(user_id) is not self._told.get(user_id, OFFLINE):
            self._untold[user_id] = None
        self._tick_soon()

    def _end_lease(self, lease: tuple[str, str]) -> None:
        user_id, replica = lease
        statuses = self._elsewhere.get(user_id, {})
        if statuses.pop(replica, None) is not None:
            if not statuses:
                del self._elsewhere[user_id]
            self._doubt(user_id)

    def _report_all(self) -> None:
        self._unreported.update(dict.fromkeys(self._here))
        self._tick_soon()

    # --- once a second -------------------------------------------------------------------------------

    def _tick_soon(self) -> None:
        if not self._is_ticking:
            self._is_ticking = True
            self._outputs.procedures.start(self._tick_while_needed(), "presence")

    def _tick_while_needed(self) -> Procedure[None]:
        try:
            while self._arriving or self._leaving or self._here or self._leases or self._unreported or self._untold:
                yield from Sleep(TICK_SECS).wait()
                self._expire()
                self._report()
                if self._untold and not self._is_telling:
                    self._is_telling = True
                    self._outputs.procedures.start(self._tell_all(), "telling of presence")
        finally:
            self._is_ticking = False

    def _expire(self) -> None:
        now = self._outputs.procedures.now
        for arrived in list(_pop_until(self._arriving, now)):
            self._count(*arrived, PresenceStatus.ONLINE)
        for user_id in _pop_until(self._leaving, now):
            self._look_at(user_id)
        for lease in _pop_until(self._leases, now):
            self._end_lease(lease)

    def _report(self) -> None:
        """Report changed statuses, and repeat those reported `REPORT_SECS` ago."""
        now = self._outputs.procedures.now
        self._unreported.update(dict.fromkeys(_pop_until(self._reported, now - REPORT_SECS)))
        users = list(self._unreported)
        self._unreported.clear()
        pages = [users[first : first + MAX_REPORTED_USERS] for first in range(0, len(users), MAX_REPORTED_USERS)]

        def report(page: list[str]) -> Broadcast:
            statuses = tuple((user_id, self._here.get(user_id, OFFLINE)) for user_id in page)
            for user_id in page:
                if user_id in self._here:
                    self._reported[user_id] = now
                    self._reported.move_to_end(user_id)
            return Broadcast(Topic.HINTS, encode_hint(PresenceReport(self._replica, statuses)))

        self._outputs.add_each(pages, report)

    def _tell_all(self) -> Procedure[None]:
        """Send the changes of the last second to local users, `MAX_PRESENCE_USERS` together."""
        users = list(self._untold)
        try:
            for first in range(0, len(users), MAX_PRESENCE_USERS):
                if first:
                    yield from Sleep(PRESENCE_PAUSE_SECS).wait()  # lets sockets send what they have
                yield from self._tell(users[first : first + MAX_PRESENCE_USERS])
        except StorageUnavailable:
            return  # retried at the next tick
        finally:
            self._is_telling = False

    def _tell(self, users: Sequence[str]) -> Procedure[None]:
        audience: dict[str, tuple[str, ...]] = {}
        if self._notifications.watchers.users() or not self._feeds.is_empty:
            audience = yield from FindAudience(tuple(users), self._max_members)
        changes: dict[str, dict[str, bytes]] = {}  # guild id -> payloads for its members, by the user they are about
        for user_id in filter(self._has_changed, users):
            data = presence_data(user_id, self._told.get(user_id, OFFLINE))
            for guild_id in audience.get(user_id, ()):
                changes.setdefault(guild_id, {})[user_id] = data
        yield from self._outputs.each(self._telling(changes), lambda flush: flush)

    def _has_changed(self, user_id: str) -> bool:
        """Return whether the status differs from the sent one, and record it as sent."""
        self._untold.pop(user_id, None)
        status = self._combined(user_id)
        if status is self._told.get(user_id, OFFLINE):
            return False
        if status is OFFLINE:
            del self._told[user_id]
        else:
            self._told[user_id] = status
        return True

    def _telling(self, changes: Mapping[str, Mapping[str, bytes]]) -> Iterator[Flush | None]:
        """Send the changes to the users of these guilds, one step per user, because there may be very many."""
        guilds_of: dict[str, list[str]] = {}  # watching user id -> guild ids
        for guild_id, hints in changes.items():
            for _ in self._feeds.ephemeral(f"guild:{guild_id}", "presence", hints):
                yield None
            for user_id in tuple(self._notifications.watchers.of_guild(guild_id)):
                guilds_of.setdefault(user_id, []).append(guild_id)
                yield None
        frames: dict[tuple[str, ...], HintFrames] = {}  # by guilds: most users share the same
        for user_id, guild_ids in guilds_of.items():
            shared = tuple(guild_ids)
            if shared not in frames:
                hints = {about: data for guild_id in shared for about, data in changes[guild_id].items()}
                frames[shared] = HintFrames(
                    {about: text_frame(presence_payload(data)) for about, data in hints.items()}
                )
            told = frames[shared].for_user(user_id)
            yield self._notifications.hint_to(user_id, told) if told else None
