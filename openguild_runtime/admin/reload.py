"""SIGHUP: read the configuration again and apply what may change while serving; the rest is named and left for a restart.

Key rotation without a restart: put the new seed into `session.signing_key`, the old key's public half into
`session.fallback_verifying_keys`, and send SIGHUP. Every cached verdict on a token is dropped with the old ring, and
streams whose token was signed by a key that is not in the new one are closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from openguild_proto.limits import MAX_REPEATS_PER_MESSAGE
from openguild_proto.operations.context import Service
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.sections import ServerConfig
from openguild_runtime.replica.runner import ReplicaRunner

KEYS = ("session.signing_key", "session.fallback_verifying_keys")
LIMITS = (
    "messaging.max_messages_per_user_per_window", "messaging.max_messages_per_ip_per_window",
    "messaging.rate_limit_window_secs", "session.max_logins_per_address_per_window",
    "session.max_logins_per_account_per_window", "session.login_window_secs",
    "guilds.max_owned_per_user", "guilds.max_joined_per_user", "guilds.max_channels_per_guild", "guilds.max_invites_per_guild",
    "guilds.max_writes_per_user_per_window", "guilds.write_window_secs",
    "session.max_refreshes_per_address_per_window", "session.max_refreshes_per_account_per_window",
)  # fmt: skip
OTHERS = ("messaging.replay_window", "registration.enabled", "session.access_ttl_secs", "session.refresh_ttl_secs")
OURS = ("embedded", "database_url", "nats.url", "workers", "admin_socket")  # of a server that brought its own
LIVE = frozenset({*KEYS, *LIMITS, *OTHERS})
SETTABLE = LIVE - set(KEYS)  # one by one, over the admin socket

log = structlog.get_logger("openguild.server")


def value_of(config: ServerConfig, key: str) -> Any:
    """What stands under a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def with_value(config: ServerConfig, key: str, value: Any) -> ServerConfig:
    """`config` with another value for one dotted key. Raises pydantic's ValidationError."""
    section, _, name = key.partition(".")
    part = getattr(config, section)
    return config.model_copy(update={section: type(part).model_validate({**dict(part), name: value})})


def changed(before: ServerConfig, after: ServerConfig) -> list[str]:
    """Dotted keys whose values differ."""
    return [key for key in after.shown() if key not in OURS and value_of(before, key) != value_of(after, key)]


def live_part(before: ServerConfig, fresh: ServerConfig) -> ServerConfig:
    """`before` with the live keys of `fresh`. Raises ConfigError."""
    session = fresh.session
    if session.signing_key is None and fresh.embedded:  # it made its own, once
        session = session.model_copy(update={"signing_key": before.session.signing_key})
    messaging = fresh.messaging.model_copy(update={"queue_capacity": before.messaging.queue_capacity})
    update = {"messaging": messaging, "session": session, "guilds": fresh.guilds, "registration": fresh.registration}
    after = before.model_copy(update=update)
    after.key_ring()
    waiting = [name for name in changed(before, fresh) if name not in LIVE]
    if waiting:
        log.warning("some changes wait for the next start", keys=waiting)
    return after


class LiveConfig:
    """The configuration that serves, and the parts that a change of it reaches. `reread` gives what stands now."""

    def __init__(
        self, config: ServerConfig, service: Service, replica: ReplicaRunner, reread: Callable[[], ServerConfig]
    ) -> None:
        self.config = config
        self._service = service
        self._replica = replica
        self._reread = reread

    def reload(self) -> None:
        """Read again and apply. A configuration that cannot be read changes nothing and is reported in one line."""
        try:
            self.apply(self._reread())
        except ConfigError as problem:
            log.error("the configuration was not applied", problem=str(problem))  # noqa: TRY400 - one line, no traceback

    def changes(self) -> dict[str, Any]:
        """What differs from what would be read again: values that the operator set."""
        stands = self._reread()
        return {
            key: value_of(self.config, key)
            for key in sorted(SETTABLE)
            if value_of(self.config, key) != value_of(stands, key)
        }

    def apply(self, fresh: ServerConfig) -> None:
        """Take over the live keys of `fresh`. Raises ConfigError with nothing changed."""
        after = live_part(self.config, fresh)
        applied = changed(self.config, after)
        service, messaging, session, guilds = self._service, after.messaging, after.session, after.guilds
        if any(name in KEYS for name in applied):
            service.tokens.replace_keys(after.key_ring())
            self._replica.keys_replaced(service.tokens.trusts)
        service.user_messages.change(messaging.max_messages_per_user_per_window, messaging.rate_limit_window_secs)
        service.address_messages.change(messaging.max_messages_per_ip_per_window, messaging.rate_limit_window_secs)
        for window, messages in (
            (service.user_repeats, service.user_messages),
            (service.address_repeats, service.address_messages),
        ):
            window.change(messages.limit * MAX_REPEATS_PER_MESSAGE, messages.window_secs)
        service.address_logins.change(session.max_logins_per_address_per_window, session.login_window_secs)
        service.account_logins.change(session.max_logins_per_account_per_window, session.login_window_secs)
        service.address_refreshes.change(session.max_refreshes_per_address_per_window, session.login_window_secs)
        service.account_refreshes.change(session.max_refreshes_per_account_per_window, session.login_window_secs)
        service.user_writes.change(guilds.max_writes_per_user_per_window, guilds.write_window_secs)
        service.settings = msgspec.structs.replace(
            service.settings,
            replay_window=messaging.replay_window,
            registration_enabled=after.registration.enabled,
            access_ttl_secs=session.access_ttl_secs,
            refresh_ttl_secs=session.refresh_ttl_secs,
            max_guilds_owned=guilds.max_owned_per_user,
            max_guilds_joined=guilds.max_joined_per_user,
            max_channels_per_guild=guilds.max_channels_per_guild,
            max_invites_per_guild=guilds.max_invites_per_guild,
        )
        self._replica.replica.replay_window = messaging.replay_window
        self.config = after
        log.info("configuration applied", applied=applied)
