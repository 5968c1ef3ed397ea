"""Connections of the database pool that are kept for what must not wait behind other queries."""

from __future__ import annotations

COMMITTERS = 2  # batches of appends at once: one is prepared while the other is on its way to disk
ACCESS_READERS = 2  # "who may see this channel"
WATCHERS = 2  # the control log (revocations) and the health check
SEARCHERS = 2  # searches at once, of the shared connections: they are the longest statements
MIN_POOL_SIZE = COMMITTERS + ACCESS_READERS + WATCHERS + 1
