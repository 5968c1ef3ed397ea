"""The modes in which effects are performed: with which connection and transaction."""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    """The second argument of `performs`. A single statement needs no BEGIN and COMMIT."""

    QUERY = "one statement that reads, given a connection"
    GROUPED = "one statement that reads for all waiting effects of a kind, given a connection and the effects"
    CHANGE = "one statement that writes, given a connection"
    SNAPSHOT = "several statements that read one snapshot, given a transaction"
    TRANSACTION = "several statements, perhaps with a control record, given a transaction"
    LONG = "like TRANSACTION, but may take minutes: a log is stored again"
    WATCH = "given a connection that is reserved for the reads of a replica"
    STORE = "given the store, for batches or for state of the store"
