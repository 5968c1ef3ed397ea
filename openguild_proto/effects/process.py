"""Effects that the process performs, not the store."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import Effect
from openguild_proto.hints import AnyHint, PresenceStatus


class HashPassword(Effect[str], frozen=True):
    """Hash a password with Argon2id v19, m=19456 KiB, t=2, p=1, to a PHC string (PROTOCOL 4.1.3), in a bounded worker thread."""

    password: str


class VerifyPassword(Effect[bool], frozen=True):
    """Verify a password. `password_hash` None: False, at the same cost (PROTOCOL 4.2.2)."""

    password_hash: str | None
    password: str


class ComponentState(msgspec.Struct, frozen=True, gc=False):
    """The state of one component. `details` never contains a host name or a driver's text (PROTOCOL 11.1.4)."""

    name: str  # database, migrations, drain, or the name of the bus
    status: str  # configured; error; or pending: not used, unknown or in progress, see the details
    details: str


class Readiness(msgspec.Struct, frozen=True, gc=False):
    """The response of `/ready` (PROTOCOL 11.1.3)."""

    status: str  # ready, degraded, unavailable, draining
    uptime_seconds: int
    components: tuple[ComponentState, ...]


class StorageHealth(msgspec.Struct, frozen=True, gc=False):
    """The result of a probe of the store. `cause`: if a member is False, one of the runtime's database causes."""

    database: bool  # it responds
    migrations: bool  # this release works with its schema
    writable: bool = True  # it accepts the writes of a login and a post
    cause: str | None = None

    @property
    def usable(self) -> bool:
        """Whether the store can serve requests."""
        return self.database and self.migrations and self.writable


class CheckReadiness(Effect[Readiness], frozen=True):
    """Check the components. The runtime caches the result for a second and limits the check to 500 ms."""


class RenderMetrics(Effect[bytes | None], frozen=True):
    """Render the metrics as Prometheus text 0.0.4. None: they are off or have their own listener."""


class Announce(Effect[None], frozen=True):
    """Send a hint to the users concerned, on every replica. Best effort (PROTOCOL 10.7)."""

    hint: AnyHint


class FindPresence(Effect[dict[str, PresenceStatus]], frozen=True):
    """Find which of these users are not offline, as far as this replica knows. A reader who just connected counts as online."""

    user_ids: tuple[str, ...]
    reader_id: str


class LetOthersRun(Effect[None], frozen=True):
    """Yield to everything else in the process. Of the operations that yield, one resumes at a time."""


class WarnOperator(Effect[None], frozen=True):
    """Log a warning for the operator. `fields`: ids, never secrets."""

    message: str
    fields: tuple[tuple[str, str], ...]
