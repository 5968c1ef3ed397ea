"""The readers of a replica for its operator: logs with a backlog, and how far gateway sockets are behind."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.diagnosis.closed_readers import SLOW_REASONS, ClosedReader
from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.replica.gateway_socket import GatewaySocket
from openguild_proto.replica.notifications import USER_RING

CHANNEL = "channel:"


class Depths(NamedTuple):
    """The backlog of the slowest readers of the rings, in events."""

    channels: list[tuple[str, int]]  # (channel id, events), deepest first, only channels with a backlog
    notifications: int  # of the deepest notification stream


class GatewayTotals(NamedTuple):
    """The gateway of a replica in numbers."""

    sockets: int
    subscriptions: int  # pairs of a socket and a log
    from_log: int  # of these, served from storage: the socket began behind the ring, or reads too slowly


def depths(hub: Hub, feeds: Feeds) -> Depths:
    """Return the backlog in the rings of streams and of the gateway."""
    channels: dict[str, int] = {}
    notifications = 0
    for ring, depth in hub.depths():
        if ring.startswith(USER_RING):
            notifications = max(notifications, depth)
        else:
            channels[ring] = depth
    for key, depth in feeds.hub.depths():
        log = feeds.log_of(key)
        if log.startswith(CHANNEL):
            channel_id = log.removeprefix(CHANNEL)
            channels[channel_id] = max(depth, channels.get(channel_id, 0))
    return Depths(sorted(channels.items(), key=lambda line: -line[1]), notifications)


def gateway_backlog(socket: GatewaySocket) -> int:
    """Return how many events the socket is behind in its slowest log."""
    subscriptions = socket.server.subscriptions
    return max((feed.head - subscriptions.position(feed) for feed in subscriptions.feeds()), default=0)


def closed_gateway_reader(socket: GatewaySocket, reason: str | None, now: float) -> ClosedReader | None:
    """Return the record of a socket that ends by a deadline; None: it was not slow. `reason`: for the metric."""
    if socket.claims is None or reason is None or reason not in SLOW_REASONS:
        return None
    missed = gateway_backlog(socket)
    return ClosedReader(now, socket.claims.user_id, socket.address, None, missed, reason) if missed else None
