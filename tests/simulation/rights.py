"""Read rights, computed from the tables alone, and the detection of streams that continue without a right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.http.message import OpenStream
from openguild_proto.policy.permissions import Permission, allows, highest, sees_all
from openguild_proto.records import ChannelAccess
from tests.simulation.sockets import StreamSocket

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

LOOK_SECS = 0.5
END_SECS = 5.0  # every other tail check reads the control log: 2.5 s, plus the time of its queries


class Rights:
    """Checks the rights periodically. `ended`: since when a user may no longer read a channel."""

    def __init__(self, cluster: Cluster, pairs: list[tuple[str, str]]) -> None:
        self.ended: dict[tuple[str, str], float] = {}  # (user id, channel id) -> since when
        self._cluster = cluster
        self._pairs = pairs  # whose rights are tracked
        self._had: set[tuple[str, str]] = set()
        self._known: dict[tuple[str, str], bool] = {}  # by the current tables
        self._version = (0, 0)  # of the tables: the head of the control log, and the number of restores
        self._looked: tuple[int, int] | None = None  # the version for which `ended` is correct

    def may_read(self, user_id: str, channel_id: str) -> bool:
        """Return whether the current tables allow it."""
        self._refresh()
        known = self._known.get((user_id, channel_id))
        if known is None:
            tables = self._cluster.database.tables
            access = tables.perform(FindChannelAccess(channel_id=channel_id, user_id=user_id))
            known = access is not None and _allows(access)
            self._known[user_id, channel_id] = known
        return known

    def _refresh(self) -> None:
        """Clear the cache if a right may have changed: each change of a right has a control record."""
        database = self._cluster.database
        version = database.tables._state.control_head, database.restores
        if version != self._version:
            self._version = version
            self._known.clear()

    def look(self) -> None:
        """Check all rights now."""
        now = self._cluster.clock.now
        self._refresh()
        if self._version != self._looked:
            self._looked = self._version
            for pair in self._pairs:
                if self.may_read(*pair):
                    self._had.add(pair)
                    self.ended.pop(pair, None)
                elif pair in self._had and pair not in self.ended:
                    self.ended[pair] = now
        for process in self._cluster.processes:
            if process.alive:
                for socket in list(process.sockets):
                    self._look_at(socket, now)
        self._cluster.clock.later(LOOK_SECS, self.look)

    def _look_at(self, socket: StreamSocket, now: float) -> None:
        stream = socket.stream
        if stream is None or socket.is_closing:
            return
        if self.may_go_on(stream):
            socket.without_right_since = None
        elif socket.without_right_since is None:
            socket.without_right_since = now
        elif now > self.latest_end(socket, socket.without_right_since):
            where = stream.channel_id or "notifications"
            self._cluster.violation(
                f"a stream of {where} goes on {now - socket.without_right_since:.1f} s without a right"
            )
            socket.without_right_since = now

    def may_go_on(self, stream: OpenStream) -> bool:
        """Return whether the current tables and keys allow the stream to continue."""
        state = self._cluster.database.tables._state
        session = state.sessions.get(stream.session_id)
        if session is None or state.families[session.family_id].revoked:
            return False
        if stream.verified_by not in self._cluster.keys.public_keys:
            return False
        return stream.channel_id is None or self.may_read(stream.user_id, stream.channel_id)

    def latest_end(self, socket: StreamSocket | None, since: float) -> float:
        """Return when the end of a right at `since` must have taken effect: later if the control log was unreadable."""
        failed_at = socket.feeder.control_failed_at if socket is not None else self._cluster.clock.now
        return max(since, failed_at, self._cluster.database.down_until) + END_SECS


def _allows(access: ChannelAccess) -> bool:
    roles = (*access.server_roles, access.guild_role, access.channel_role)
    if access.guild_role is None and access.channel_role is None and not sees_all(access.server_roles):
        return False
    return allows(highest(roles), Permission.READ)
