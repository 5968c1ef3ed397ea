"""Surveys all sockets of a replica for its operator: the readers, and how far each is behind.

There may be very many sockets, so the caller passes them one by one, and lets the loop take turns in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from openguild_proto.diagnosis.snapshot import ChannelLine, ReaderLine
from openguild_proto.fanout.hub import Hub
from openguild_proto.replica.actions import StreamSocket
from openguild_proto.replica.backlogs import CHANNEL
from openguild_proto.replica.gateway_socket import GatewaySocket


class _Follower(NamedTuple):
    behind: int
    user_id: str
    address: str


class Survey:
    """`channels`: the channels whose followers are listed. `user`: the user whose sockets are listed; None: all users."""

    def __init__(self, hub: Hub, channels: Iterable[str], user: str | None = None) -> None:
        self.readers: list[ReaderLine] = []
        self._hub = hub
        self._user = user
        self._counts = dict.fromkeys(channels, 0)
        self._slowest: dict[str, _Follower] = {}

    def stream(self, socket: StreamSocket, address: str) -> None:
        """Look at a stream. `address`: the peer's, where the stream does not know the client's."""
        stream = socket.stream
        if stream is None:
            return
        address, behind = stream.address or address, self._behind(socket)
        if stream.channel_id is not None and stream.channel_id in self._counts:
            self._follows(stream.channel_id, _Follower(behind, stream.user_id, address))
        if self._user in {None, stream.user_id}:
            line = ReaderLine(
                user_id=stream.user_id, session_id=stream.session_id, address=address, behind=behind,
                channel_id=stream.channel_id,
            )  # fmt: skip
            self.readers.append(line)

    def _behind(self, socket: StreamSocket) -> int:
        """Return how many events it is behind. One that lagged out stays listed until it is closed, perhaps after its ring."""
        subscriber = socket.subscriber
        if subscriber is None or not self._hub.is_open(subscriber.ring):
            return 0
        return self._hub.head(subscriber.ring) - subscriber.position

    def gateway(self, socket: GatewaySocket) -> None:
        """Look at a gateway socket; one that is not authenticated reads nothing."""
        subscriptions, claims = socket.server.subscriptions, socket.claims
        if claims is None:
            return
        furthest = 0
        for feed in subscriptions.feeds():
            behind = feed.head - subscriptions.position(feed)
            furthest = max(furthest, behind)
            log = feed.log.removeprefix(CHANNEL)
            if log in self._counts:
                self._follows(log, _Follower(behind, claims.user_id, socket.address))
        if self._user in {None, claims.user_id}:
            line = ReaderLine(
                user_id=claims.user_id, session_id=claims.session_id, address=socket.address, behind=furthest,
                channel_id=None, logs=len(subscriptions),
            )  # fmt: skip
            self.readers.append(line)

    def _follows(self, channel_id: str, follower: _Follower) -> None:
        self._counts[channel_id] += 1
        slowest = self._slowest.get(channel_id)
        if slowest is None or follower > slowest:
            self._slowest[channel_id] = follower

    def channel(self, channel_id: str, depth: int, head: int | None) -> ChannelLine:
        """Return the line of a channel, once all sockets were looked at."""
        line = ChannelLine(channel_id=channel_id, depth=depth, subscribers=self._counts[channel_id], head=head)
        slowest = self._slowest.get(channel_id)
        if slowest is not None:
            line.behind, line.slowest_user, line.slowest_address = slowest
        return line

    def slowest_first(self) -> list[ReaderLine]:
        """Return the readers, the furthest behind first."""
        return sorted(self.readers, key=lambda line: -line.behind)
