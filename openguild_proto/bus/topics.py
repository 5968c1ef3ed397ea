"""Topics of best-effort messages from one replica to all others, besides the events of channels."""

from __future__ import annotations

from enum import Enum


class Topic(Enum):
    """A topic. The value is the last part of the NATS subject (PROTOCOL 10.2)."""

    CONTROL = "control"  # records of the control log; lost ones are read from the log
    LIMITS = "limits"  # the admissions of a replica under shared limits
    HINTS = "hints"  # messages that may be lost: read positions, presence
