"""On which connection, and in what transaction, an effect is performed."""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    """Given to `performs` beside the effect. A statement alone is a transaction by itself: no BEGIN and COMMIT around it."""

    QUERY = "one statement that reads, given a connection"
    CHANGE = "one statement that writes, given a connection"
    SNAPSHOT = "several statements that read as of one moment, given a transaction"
    TRANSACTION = "several statements, perhaps with a control record, given a transaction"
    WATCH = "given a connection that is kept for what a replica needs to keep up"
    STORE = "given the store: in batches, or with what it remembers"
