"""The configuration: every key of CONTRACT 16 and A12, its default, its check, and the message when it is wrong.

Layers, later wins: defaults, `config/server.{toml,yaml,json}`, `config/server.local.*`, environment, flags
(config_layers.py). pydantic checks the result; a key that is not here is refused by name.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from openguild_proto.canonical.keys import KeyRing, parse_public, parse_seed
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.limits import MAX_CHANNELS_PER_GUILD, MAX_GUILDS_OWNED, MAX_INVITES_PER_GUILD
from openguild_runtime.config_layers import ConfigError, collect, nearest

HIDDEN = "***"
MLS_CIPHERSUITE = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"


def _seed(value: SecretStr) -> SecretStr:
    parse_seed(value.get_secret_value())
    return value


def _public(value: str) -> str:
    parse_public(value)
    return value


def _address(value: str) -> str:
    host, port = split_address(value)
    ipaddress.ip_address(host)
    if not 0 < port < 65_536:
        raise ValueError("port cannot be zero" if port == 0 else "the port is not within 1 and 65535")
    return value


def _ip(value: str) -> str:
    ipaddress.ip_address(value.strip("[]"))
    return value.strip("[]")


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError("expected host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return host.strip("[]"), int(port)


Seed = Annotated[SecretStr, AfterValidator(_seed)]
PublicKey = Annotated[str, AfterValidator(_public)]
Address = Annotated[str, AfterValidator(_address)]
Ip = Annotated[str, AfterValidator(_ip)]
Network = Annotated[str, AfterValidator(_network)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(ge=0, le=3_600)]
PositiveSeconds = Annotated[float, Field(gt=0, le=3_600)]


MAX_SOCKET_PATH_BYTES = 100  # 108 with the end and a worker's number


class Section(BaseModel):
    """Unknown keys are refused; nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class MetricsSection(Section):
    enabled: bool = True
    bind_addr: Address | None = None


class CorsSection(Section):
    allowed_origins: tuple[str, ...] = ()


class MessagingSection(Section):
    max_messages_per_user_per_window: Positive = 60
    max_messages_per_ip_per_window: Positive = 200
    rate_limit_window_secs: Positive = 60
    replay_window: Annotated[int, Field(ge=0, le=10_000)] = 50
    queue_capacity: Annotated[int, Field(gt=0, le=65_536)] = 256


class HttpSection(Section):
    head_timeout_secs: PositiveSeconds = 10
    body_timeout_secs: PositiveSeconds = 30
    idle_timeout_secs: PositiveSeconds = 75


class WebSocketSection(Section):
    max_connections: Positive = 20_000
    max_connections_per_user: Positive = 32
    max_connections_per_address: Positive = 1_024
    max_frames_per_minute: Annotated[int, Field(ge=0)] = 600
    max_message_bytes: Annotated[int, Field(ge=1_024, le=16 * 1024 * 1024)] = 65_536
    ping_interval_secs: PositiveSeconds = 25
    write_timeout_secs: PositiveSeconds = 10


class TrustedServer(Section):
    server_name: str = ""
    key_id: str = ""
    verifying_key: PublicKey


class FederationSection(Section):
    signing_key: Seed | None = None
    key_id: str = "1"
    trusted_servers: tuple[TrustedServer, ...] = ()


class MlsSection(Section):
    enabled: bool = False
    ciphersuite: str = MLS_CIPHERSUITE
    identities: tuple[str, ...] = ()


class SessionSection(Section):
    signing_key: Seed | None = None
    fallback_verifying_keys: tuple[PublicKey, ...] = ()
    access_ttl_secs: Positive = 43_200
    refresh_ttl_secs: Positive = 2_592_000
    max_logins_per_address_per_window: Positive = 60
    max_logins_per_account_per_window: Positive = 10
    max_refreshes_per_address_per_window: Positive = 600
    max_refreshes_per_account_per_window: Positive = 60
    login_window_secs: Positive = 60


class GuildsSection(Section):
    max_owned_per_user: Positive = MAX_GUILDS_OWNED
    max_channels_per_guild: Positive = MAX_CHANNELS_PER_GUILD
    max_invites_per_guild: Positive = MAX_INVITES_PER_GUILD
    max_writes_per_user_per_window: Positive = 120
    write_window_secs: Positive = 60


class NatsSection(Section):
    url: SecretStr | None = None
    credentials_file: Path | None = None
    ca_file: Path | None = None


class DrainSection(Section):
    delay_secs: Seconds = 0
    window_secs: Seconds = 10


class DatabaseSection(Section):
    pool_size: Annotated[int, Field(gt=0, le=500)] = 10
    statement_timeout_secs: PositiveSeconds = 10
    statement_cache_size: Annotated[int, Field(ge=0)] = 100


class TracingSection(Section):
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None


class RegistrationSection(Section):
    enabled: bool = True


class MediaSection(Section):
    """Read for the sake of existing deployments; media storage comes later (CONTRACT 1)."""

    endpoint: str | None = None
    bucket: str | None = None
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None


class ServerConfig(Section):
    """The whole. `storage` None until `--embedded` or `database_url` or `storage: memory` decides it (A9)."""

    bind_addr: Address | None = None
    host: Ip = "0.0.0.0"  # noqa: S104 - the contract's default; `make run` binds to loopback
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    server_name: Annotated[str, Field(min_length=1, max_length=255)] = "localhost"
    log_format: Annotated[Literal["compact", "json"], BeforeValidator(_lower)] = "compact"
    database_url: SecretStr | None = None
    storage: Literal["postgres", "memory"] | None = None
    embedded: bool = False
    data_dir: Path = Path("data")
    admin_socket: Path | None = None
    workers: Annotated[int, Field(gt=0, le=64)] = 1
    trusted_proxies: tuple[Network, ...] = ()
    metrics: MetricsSection = MetricsSection()
    cors: CorsSection = CorsSection()
    messaging: MessagingSection = MessagingSection()
    http: HttpSection = HttpSection()
    websocket: WebSocketSection = WebSocketSection()
    federation: FederationSection = FederationSection()
    mls: MlsSection = MlsSection()
    session: SessionSection = SessionSection()
    guilds: GuildsSection = GuildsSection()
    nats: NatsSection = NatsSection()
    drain: DrainSection = DrainSection()
    database: DatabaseSection = DatabaseSection()
    registration: RegistrationSection = RegistrationSection()
    tracing: TracingSection = TracingSection()
    media: MediaSection = MediaSection()

    @model_validator(mode="after")
    def _together(self) -> ServerConfig:
        if self.bind_addr is None and self.port == 0:
            raise ValueError("invalid bind address: port cannot be zero")
        HeaderPolicy.create(cors_allowed_origins=self.cors.allowed_origins)
        for server in self.federation.trusted_servers:
            for name in ("server_name", "key_id"):
                if not getattr(server, name).strip():
                    raise ValueError(f"invalid federation configuration: trusted server entries require a {name}")
        if self.mls.enabled and not self.mls.ciphersuite.strip():
            raise ValueError("invalid MLS configuration: mls.ciphersuite must be provided when MLS is enabled")
        if self.mls.enabled and not self.mls.identities:
            raise ValueError(
                "invalid MLS configuration: mls.identities must include at least one identity when MLS is enabled"
            )
        if self.admin_socket is not None and len(os.fsencode(self.admin_socket)) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"admin_socket: a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes")
        if self.embedded and (self.storage == "memory" or self.database_url is not None):
            raise ValueError("embedded: brings its own database: drop embedded, or drop database_url and storage")
        if self.storage == "memory" and self.database_url is not None:
            raise ValueError("storage: memory and database_url contradict each other: drop one of them")
        if self.workers > 1 and self.storage == "memory":
            raise ValueError(
                "workers: more than one cannot share memory storage: set workers to 1 or storage to postgres"
            )
        if self.workers > 1 and not self.embedded and self.nats.url is None:
            raise ValueError("workers: more than one need NATS between them: set nats.url, or workers to 1")
        return self

    @property
    def listen(self) -> tuple[str, int]:
        """Host and port of the main listener."""
        return split_address(self.bind_addr) if self.bind_addr is not None else (self.host, self.port)

    def shown(self) -> dict[str, Any]:
        """Every key and its value for people to read; a secret that is set is `***`."""
        return dict(_flat(self, ""))

    @property
    def admin_path(self) -> Path | None:
        """Where the admin socket is; an embedded server has one in its data directory."""
        if self.admin_socket is not None:
            return self.admin_socket
        path = (self.data_dir / "admin.sock").absolute()
        return path if self.embedded and len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES else None

    def key_ring(self) -> KeyRing:
        """The token keys; `session.signing_key` must be set."""
        if self.session.signing_key is None:
            raise ConfigError(
                "session.signing_key: is not set: run `openguild-server keygen` and set it, the same on every replica"
            )
        keys = tuple(parse_public(key) for key in self.session.fallback_verifying_keys)
        return KeyRing(parse_seed(self.session.signing_key.get_secret_value()), keys)


def _flat(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, SecretStr):
            yield prefix + name, HIDDEN
        elif isinstance(value, tuple):
            yield prefix + name, [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
        else:
            yield prefix + name, str(value) if isinstance(value, Path) else value


def load(flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> ServerConfig:
    """Collect the layers and check the result. Raises ConfigError: one line, key, problem, mend; never a secret."""
    values = collect(flags, environ, directory, ServerConfig)
    try:
        return ServerConfig.model_validate(values)
    except ValidationError as failure:
        raise ConfigError(_one_line(failure)) from None


def require_servable(config: ServerConfig) -> None:
    """What only a start needs (A8, A9). Raises ConfigError."""
    if not config.embedded and config.storage != "memory" and config.database_url is None:
        raise ConfigError(
            "storage: none is chosen: pass --embedded for a private one, set database_url, "
            "or name --storage memory (everything is lost at a restart)"
        )
    if not config.embedded:
        config.key_ring()


def _one_line(failure: ValidationError) -> str:
    """The first problem, in the words of CONTRACT 16 where it has some."""
    problem = failure.errors(include_url=False, include_input=False)[0]
    location = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    kind = problem["type"]
    if not location:
        return text
    if kind == "extra_forbidden":
        return f"failed to build configuration: {location}: unknown key{nearest(location, ServerConfig)}"
    if location.startswith("messaging.") and kind == "greater_than":
        return f"invalid messaging configuration: {location} must be greater than zero"
    if location.startswith("session.") and "key" in location:
        return f"invalid session key material: {location}: {text}; make one with `openguild-server keygen`"
    if location in {"bind_addr", "host", "port"}:
        return f"invalid bind address: {location}: {text}"
    if location.startswith("federation.trusted_servers"):
        return f"invalid federation configuration: {location}: {text}"
    return f"failed to build configuration: {location}: {text}"
