"""Decides which logs gateway sockets may follow, and checks again when a user's rights may have changed."""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.effects.logs import FindLogs
from openguild_proto.gateway.feeds import Feed
from openguild_proto.gateway.frames import GoneCode
from openguild_proto.limits import MAX_CHANNELS_AT_ONCE
from openguild_proto.log.log_names import LogKind, log_id_in, log_name
from openguild_proto.log.sync import may_read
from openguild_proto.procedures import Procedure
from openguild_proto.records import LogAccess
from openguild_proto.replica.gateway_socket import GatewaySocket
from openguild_proto.replica.outputs import Outputs


def readable(names: Sequence[str], user_id: str) -> Procedure[dict[str, LogAccess]]:
    """Return the logs that the user may read, by name. Raises StorageUnavailable.

    A name with the wrong kind for its id is not readable.
    """
    found = yield from FindLogs(user_id=user_id, log_ids=tuple({log_id_in(name): None for name in names}))
    known = {
        log_name(LogKind(access.kind), access.place.log_id): access for access in found if may_read(access, user_id)
    }
    return {name: known[name] for name in names if name in known}


def hold(sockets: Sequence[GatewaySocket]) -> None:
    """Hold the events of these sockets until `recheck_held` has ended (PROTOCOL 8.8.6)."""
    for socket in sockets:
        socket.server.hold_events(1)


def recheck_held(outputs: Outputs, sockets: Sequence[GatewaySocket], user_id: str) -> Procedure[None]:
    """Run `recheck`, then undo `hold`."""
    try:
        yield from recheck(outputs, sockets, user_id)
    finally:
        for socket in sockets:
            socket.server.hold_events(-1)
            socket.wake()


def recheck(outputs: Outputs, sockets: Sequence[GatewaySocket], user_id: str) -> Procedure[None]:
    """Unsubscribe a user's sockets from the logs that the user may no longer read."""
    names = list({feed.log: None for socket in sockets for feed in socket.server.subscriptions.feeds()})
    for first in range(0, len(names), MAX_CHANNELS_AT_ONCE):
        yield from recheck_logs(outputs, sockets, names[first : first + MAX_CHANNELS_AT_ONCE], user_id)


def recheck_logs(
    outputs: Outputs, sockets: Sequence[GatewaySocket], names: Sequence[str], user_id: str
) -> Procedure[None]:
    """Run `recheck` for some logs. If the store is unavailable, all of them are unsubscribed."""
    code: GoneCode = "access_lost"
    known: dict[str, LogAccess] = {}
    try:
        known = yield from readable(names, user_id)
    except Exception as failure:  # an outage or a bug: stop sockets whose rights are unknown
        message = "access cannot be re-checked now: ending subscriptions"
        outputs.not_read(failure, "checking a user's gateway sockets again", message, user_id=user_id)
        code = "unavailable"
    lost = {name for name in names if name not in known}
    for socket in sockets if lost else ():
        feeds = [feed for feed in socket.server.subscriptions.feeds() if feed.log in lost]
        tell_gone(socket, feeds=feeds, code=code)


def tell_gone(socket: GatewaySocket, *, feeds: Sequence[Feed], code: GoneCode) -> None:
    """Unsubscribe the socket from those of these feeds that it follows."""
    for feed in feeds:
        if feed in socket.server.subscriptions:
            socket.server.gone(feed, code)
            socket.wake()
