"""Reloads the configuration at SIGHUP: applies the live keys, and logs other changed keys, which need a restart.

To rotate keys without a restart, put the new seed into `session.signing_key` and the old public key into
`session.fallback_verifying_keys`, and send SIGHUP. The token cache is cleared, and streams whose token was signed with a
removed key are closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec
import structlog

from openguild_proto.canonical.keys import KeyRing
from openguild_proto.operations.context import Service
from openguild_runtime.config.declared import checked, is_section, keys_of, values_of
from openguild_runtime.config.layers import BROUGHT, ConfigError
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.replica.runner import ReplicaRunner

KEYS = {key.name: key.setting for key in keys_of(ServerConfig)}
SETTABLE = frozenset(name for name, setting in KEYS.items() if setting.live and setting.settable)  # by `admin set`
SHOWN = sorted(key.name for key in keys_of(ServerConfig) if key.setting.live and not key.is_secret)
DIGEST_CHARS = 8

log = structlog.get_logger("openguild.server")


def value_of(config: ServerConfig, key: str) -> Any:
    """Return the value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def with_value(config: ServerConfig, key: str, value: Any) -> ServerConfig:
    """Return `config` with a new value for one dotted key. Raises pydantic's ValidationError."""
    section, _, name = key.partition(".")
    part = getattr(config, section)
    return config.model_copy(update={section: checked(type(part), {**values_of(part), name: value})})


def changed(before: ServerConfig, after: ServerConfig) -> list[str]:
    """Return the dotted keys whose values differ, without those that an embedded server sets itself."""
    brought = BROUGHT if before.embedded and after.embedded else frozenset[str]()
    return [key for key in KEYS if key not in brought and value_of(before, key) != value_of(after, key)]


def live_part(before: ServerConfig, fresh: ServerConfig) -> ServerConfig:
    """Return `before` with the values of `fresh` for live keys, and log other changes. Raises ConfigError."""
    if fresh.session.signing_key is None and fresh.embedded:  # an embedded server generated its own
        session = replace(fresh.session, signing_key=before.session.signing_key)
        fresh = fresh.model_copy(update={"session": session})
    update: dict[str, Any] = {}
    for name, part in values_of(before).items():
        if is_section(part):
            live = {key: value_of(fresh, f"{name}.{key}") for key in values_of(part) if KEYS[f"{name}.{key}"].live}
            update[name] = replace(part, **live)
    after = before.model_copy(update=update)
    after.key_ring()
    waiting = [name for name in changed(before, fresh) if not KEYS[name].live]
    if waiting:
        log.warning("some changes apply at the next start", keys=waiting)
    return after


def live_settings(config: ServerConfig) -> dict[str, Any]:
    """Return the settings that a reload applies, without secrets, by their dotted keys."""
    shown = config.shown()
    return {key: shown[key] for key in SHOWN}


def settings_digest(config: ServerConfig) -> str:
    """Return 8 hexadecimal digits that are the same at replicas with the same `live_settings`."""
    return sha256(msgspec.json.encode(live_settings(config), order="sorted")).hexdigest()[:DIGEST_CHARS]


def token_keys(keys: KeyRing) -> dict[str, Any]:
    """Return the fingerprints of the key that signs access tokens, and of all accepted keys."""
    return {"signs": keys.fingerprints[0], "accepts": list(keys.fingerprints)}


class LiveConfig:
    """The current configuration, and the parts that a change affects.

    `reread` loads the configuration again. `reloaded` is called with whether a reload succeeded.
    """

    def __init__(
        self,
        config: ServerConfig,
        service: Service,
        replica: ReplicaRunner,
        reread: Callable[[], ServerConfig],
        reloaded: Callable[[bool], None],
    ) -> None:
        self.config = config
        self._service = service
        self._replica = replica
        self._reread = reread
        self._reloaded = reloaded

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Those of the keys of access tokens: the one that signs, then those that are accepted besides."""
        return self._service.tokens.keys.fingerprints

    def reload(self) -> None:
        """Load and apply the configuration. An invalid one changes nothing and is logged in one line."""
        self._reloaded(False)  # until it is applied
        try:
            self.apply(self._reread())
        except ConfigError as problem:
            log.error("the configuration was not applied", problem=str(problem))  # noqa: TRY400 - one line, no traceback
        else:
            self._reloaded(True)

    def changes(self) -> dict[str, Any]:
        """Return the values that `admin set` has changed."""
        loaded = self._reread()
        return {
            key: value_of(self.config, key)
            for key in sorted(SETTABLE)
            if value_of(self.config, key) != value_of(loaded, key)
        }

    def apply(self, fresh: ServerConfig) -> None:
        """Apply the live keys of `fresh`. Raises ConfigError and then changes nothing."""
        before, after = self.config, live_part(self.config, fresh)
        applied = changed(before, after)
        service = self._service
        if _keys(before) != _keys(after):
            service.tokens.replace_keys(after.key_ring())
            log.info("token keys", **token_keys(service.tokens.keys))
            self._replica.keys_replaced(service.tokens.trusts)
        service.apply(after.settings(service.settings.version))
        self.config = after
        log.info("configuration applied", applied=applied)


def _keys(config: ServerConfig) -> object:
    return config.session.signing_key, config.session.fallback_verifying_keys
