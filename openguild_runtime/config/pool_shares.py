"""Connections of the database pool that are reserved for work that must not wait for other queries."""

from __future__ import annotations

COMMITTERS = 2  # concurrent batches of appends: one is prepared while the other is written to disk
ACCESS_READERS = 2  # access checks of channels
WATCHERS = 2  # the control log (revocations) and the health check
SEARCHERS = 2  # concurrent searches, with shared connections, because they are the longest statements
MIN_POOL_SIZE = COMMITTERS + ACCESS_READERS + WATCHERS + 1
