"""The check that all replicas agree on presence once no fault is active."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openguild_proto.replica.presence import LEASE_SECS

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

AGREE_SECS = LEASE_SECS + 5.0  # until the leases of crashed replicas have expired


def disagreement(cluster: Cluster) -> str | None:
    """Return what a replica has wrong about a user's presence, or None."""
    there = {
        user_id
        for process in cluster.processes
        for user_id in (*process.replica.streams._sockets, *process.replica.gateway._of_user)
    }
    for process in cluster.processes:
        presence = process.replica.presence
        assert presence is not None
        online = set(presence.status_of([*there, *presence._elsewhere, *presence._here]))
        if online != there:
            return f"replica {process.number} has {len(online - there)} users too many online, {len(there - online)} too few"
    return None
