"""What is asked of the process and not of the store."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import Effect
from openguild_proto.records import ReadState


class HashPassword(Effect[str], frozen=True):
    """Argon2id v19, m=19456 KiB, t=2, p=1, PHC string (PROTOCOL 4.1.3), in a bounded worker thread."""

    password: str


class VerifyPassword(Effect[bool], frozen=True):
    """`password_hash` None: verify against a fixed dummy and answer False, at the same cost (PROTOCOL 4.2.2)."""

    password_hash: str | None
    password: str


class ComponentState(msgspec.Struct, frozen=True, gc=False):
    """One probed part. `details` never holds a host name or driver text (PROTOCOL 11.1.4)."""

    name: str  # database, nats, migrations, drain
    status: str  # configured, pending, error
    details: str


class Readiness(msgspec.Struct, frozen=True, gc=False):
    """What `/ready` answers (PROTOCOL 11.1.3)."""

    status: str  # ready, degraded, unavailable, draining
    uptime_seconds: int
    components: tuple[ComponentState, ...]


class CheckReadiness(Effect[Readiness], frozen=True):
    """Cached for a second and limited to 500 ms by the runtime."""


class RenderMetrics(Effect[bytes | None], frozen=True):
    """Prometheus text 0.0.4. None: metrics are off or on a listener of their own."""


class AnnounceRead(Effect[None], frozen=True):
    """Tell the reader's other devices, best effort (PROTOCOL 8.10.4): notification kind `channel_read`."""

    user_id: str
    state: ReadState


class WarnOperator(Effect[None], frozen=True):
    """One record of the log at WARNING: what somebody should look into. `fields` are ids, never a secret."""

    message: str
    fields: tuple[tuple[str, str], ...]
