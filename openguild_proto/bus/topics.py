"""Topics of messages from one replica to all others, best effort, beside the events of channels."""

from __future__ import annotations

from enum import Enum


class Topic(Enum):
    """The value is the last part of the NATS subject (PROTOCOL 10.2)."""

    CONTROL = "control"  # records of the control log, which a lost one is read from
    LIMITS = "limits"  # what a replica has admitted under the shared limits
    HINTS = "hints"  # what may be lost: moved read positions, presence
