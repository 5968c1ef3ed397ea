"""The checks after all clients have gone: nothing is held for them any more, and the counters agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openguild_proto.effects.replica import ReadControlHead, ReadHistory
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

TAIL_CHECKS = (ReadHistory, ReadControlHead)  # they continue


def left_over(cluster: Cluster) -> list[str]:
    """Return what is still held at each replica."""
    return [f"replica {process.number}: {what}" for process in cluster.processes for what in _left_at(process)]


def _left_at(process: Process) -> list[str]:
    replica, counters = process.replica, process.replica.counters
    streams, notifications = replica.streams, replica.streams.notifications
    presence = replica.presence
    queries = [effect for effect in process.queries.values() if not isinstance(effect, TAIL_CHECKS)]
    held = {
        "calls": process.calls,
        "sockets": process.sockets,
        "gateway sockets": process.gateways,
        "sockets of the gateway": replica.gateway.sockets(),
        "users of the gateway": replica.gateway._of_user,
        "rings of the gateway": replica.gateway.feeds.hub._rings,
        "pages of the gateway": replica.gateway.pages._asking,
        "tickets": replica._preparing.tickets,
        "queries": queries,
        "feeds": replica.channels._feeds,
        "sockets of users": streams._sockets,
        "pages that are being read": streams.pages._reading,
        "sockets that wait for a page": streams.pages._waiting,
        "pages that could not be read": streams.pages._unreadable,
        "rings": process.hub._rings,
        "users whose presence is known": [*presence._here, *presence._elsewhere, *presence._told] if presence else [],
        "sessions whose presence is known": presence._sessions if presence else [],
        "watchers": notifications.watchers.users(),
        "refreshes": notifications._refreshing,
        "subscriptions of the bus": process.link.subscribed,
        "places of streams": range(process.service.sockets.total),
        "subscribers that are counted": range(counters.subscribers),
    }
    left = [f"{len(things)} {what} are left" for what, things in held.items() if len(things)]  # type: ignore[arg-type]  # all are sized
    asleep = sum(running.serial == serial for _, serial, running in replica._outputs.procedures._sleeping)
    if asleep > 2:  # the tail checks, and the pause after catching up
        left.append(f"{asleep} procedures sleep")
    if (counters.lagged, counters.missed) != (process.lagged, process.missed):
        left.append(f"counted {counters.lagged} lagging readers of {process.lagged}")
    return left
