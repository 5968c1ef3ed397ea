"""The configuration: every key (docs/configuration.md), its default, its check, and the message when it is wrong.

Layers, later wins: defaults, `config/server.{toml,yaml,json}`, `config/server.local.*`, environment, flags
(config_layers.py). pydantic checks the result; a key that is not here is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from openguild_proto.canonical.keys import KeyRing, parse_public, parse_seed
from openguild_proto.limits import (
    MAX_CHANNELS_PER_GUILD,
    MAX_GUILDS_JOINED,
    MAX_GUILDS_OWNED,
    MAX_INVITES_PER_GUILD,
    MAX_REPLICAS,
)
from openguild_runtime.config.faults import Contradiction, one_line
from openguild_runtime.config.layers import ConfigError, collect
from openguild_runtime.config.pool_shares import MIN_POOL_SIZE
from openguild_runtime.config.values import (
    MAX_ACCESS_SECS,
    MAX_COUNT,
    MAX_REFRESH_SECS,
    MAX_STATEMENTS,
    Address,
    Count,
    DatabaseUrl,
    FilePath,
    HttpUrl,
    Ip,
    Lower,
    NatsUrl,
    Network,
    Origin,
    PositiveSeconds,
    PublicKey,
    Seconds,
    SecretText,
    Seed,
    ServerName,
    Text,
    Whole,
    Window,
    split_address,
    without_userinfo,
)
from openguild_runtime.system.local_socket import too_long

__all__ = ["ServerConfig", "load", "split_address"]

HIDDEN = "***"
MLS_CIPHERSUITE = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"


def _pool_size(value: int) -> int:
    reserved = MIN_POOL_SIZE - 1
    if value <= reserved:
        raise ValueError(
            f"leaves none beside the {reserved} reserved for posts, access and health; write at least {MIN_POOL_SIZE}"
        )
    return value


MAX_EMBEDDED_CONNECTIONS = 1_000  # of all workers' pools


class Section(BaseModel):
    """Unknown keys are refused; nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class MetricsSection(Section):
    """`metrics.*`: whether there are any, a listener of their own, and how long a rendered text serves whoever asks."""

    enabled: bool = True
    bind_addr: Address | None = None
    max_age_secs: Seconds = 1


class CorsSection(Section):
    """`cors.*`: whose pages may read answers and open streams; empty: anybody's."""

    allowed_origins: tuple[Origin, ...] = ()


class MessagingSection(Section):
    """`messaging.*`: limits of posts, what a new stream replays, and how far a subscriber may fall behind, in events."""

    max_messages_per_user_per_window: Count = 60
    max_messages_per_ip_per_window: Count = 200
    rate_limit_window_secs: Window = 60
    replay_window: Annotated[Whole, Field(ge=0, le=10_000)] = 50
    queue_capacity: Annotated[Whole, Field(gt=0, le=65_536)] = 256


class HttpSection(Section):
    """`http.*`: how long a request may take to come and to be answered, in seconds."""

    head_timeout_secs: PositiveSeconds = 10
    body_timeout_secs: PositiveSeconds = 30
    request_timeout_secs: PositiveSeconds = 10
    idle_timeout_secs: PositiveSeconds = 75


class WebSocketSection(Section):
    """`websocket.*`: how many streams, and what each may send."""

    max_connections: Count = 20_000
    max_connections_per_user: Count = 32
    max_connections_per_address: Count = 1_024
    max_frames_per_minute: Annotated[Whole, Field(ge=0, le=MAX_COUNT)] = 600
    max_message_bytes: Annotated[Whole, Field(ge=1_024, le=16 * 1024 * 1024)] = 65_536
    ping_interval_secs: PositiveSeconds = 25
    write_timeout_secs: PositiveSeconds = 10


class TrustedServer(Section):
    """One line of `federation.trusted_servers`."""

    server_name: str = ""
    key_id: str = ""
    verifying_key: PublicKey


class FederationSection(Section):
    """`federation.*`: the key that signs events (PROTOCOL 6.3.3)."""

    signing_key: Seed | None = None
    key_id: Text = "1"
    trusted_servers: tuple[TrustedServer, ...] = ()


class MlsSection(Section):
    """`mls.*`: checked, and not served yet (PROTOCOL 13.3)."""

    enabled: bool = False
    ciphersuite: str = MLS_CIPHERSUITE
    identities: tuple[Text, ...] = ()


class SessionSection(Section):
    """`session.*`: keys, how long tokens live, and limits of logins and refreshes (PROTOCOL 4.3, 4.6, 9.4)."""

    signing_key: Seed | None = None
    fallback_verifying_keys: tuple[PublicKey, ...] = ()
    access_ttl_secs: Annotated[Whole, Field(gt=0, le=MAX_ACCESS_SECS)] = 43_200
    refresh_ttl_secs: Annotated[Whole, Field(gt=0, le=MAX_REFRESH_SECS)] = 2_592_000
    max_logins_per_address_per_window: Count = 60
    max_logins_per_account_per_window: Count = 10
    max_refreshes_per_address_per_window: Count = 600
    max_refreshes_per_account_per_window: Count = 60
    login_window_secs: Window = 60

    @model_validator(mode="after")
    def _together(self) -> SessionSection:
        if self.refresh_ttl_secs < self.access_ttl_secs:
            raise Contradiction(
                "session.refresh_ttl_secs: is shorter than session.access_ttl_secs, so nobody could refresh in time; "
                "make it the longer one",
                "session.refresh_ttl_secs",
                "session.access_ttl_secs",
            )
        return self


class GuildsSection(Section):
    """`guilds.*`: what one account may own and join, one guild may hold, and one user may change."""

    max_owned_per_user: Count = MAX_GUILDS_OWNED
    max_joined_per_user: Count = MAX_GUILDS_JOINED
    max_channels_per_guild: Count = MAX_CHANNELS_PER_GUILD
    max_invites_per_guild: Count = MAX_INVITES_PER_GUILD
    max_writes_per_user_per_window: Count = 120
    write_window_secs: Window = 60


class NatsSection(Section):
    """`nats.*`: the wire to the other replicas; without a URL this process serves alone."""

    url: NatsUrl | None = None
    credentials_file: FilePath | None = None
    ca_file: FilePath | None = None
    min_replicas: Annotated[Whole, Field(gt=0, le=MAX_REPLICAS)] = 1


class DrainSection(Section):
    """`drain.*`: seconds from unready to the first close, and from there to the end (PROTOCOL 12)."""

    delay_secs: Seconds = 0
    window_secs: Seconds = 10


class DatabaseSection(Section):
    """`database.*`: connections to PostgreSQL, and how long a statement may take."""

    pool_size: Annotated[Whole, Field(le=500), AfterValidator(_pool_size)] = 10
    statement_timeout_secs: PositiveSeconds = 10
    statement_cache_size: Annotated[Whole, Field(ge=0, le=MAX_STATEMENTS)] = 100


class TracingSection(Section):
    """`tracing.*`: where spans go."""

    otlp_endpoint: HttpUrl | None = None


class RegistrationSection(Section):
    """`registration.*`: whether anybody may open an account."""

    enabled: bool = True


class MediaSection(Section):
    """Read for the sake of existing deployments; media storage comes later (PROTOCOL 13.2.4)."""

    endpoint: HttpUrl | None = None
    bucket: Text | None = None
    access_key: SecretText | None = None
    secret_key: SecretText | None = None


class ServerConfig(Section):
    """The whole. `storage` None until `--embedded` or `database_url` or `storage: memory` decides it (PROTOCOL 11.4.4)."""

    bind_addr: Address | None = None
    host: Ip = "0.0.0.0"  # noqa: S104 - the documented default; `make run` binds to loopback
    port: Annotated[Whole, Field(ge=0, le=65_535)] = 8080
    server_name: ServerName = "localhost"
    log_format: Annotated[Literal["compact", "json"], Lower] = "compact"
    database_url: DatabaseUrl | None = None
    storage: Literal["postgres", "memory"] | None = None
    embedded: bool = False
    data_dir: FilePath = Path("data")
    admin_socket: FilePath | None = None
    workers: Annotated[Whole, Field(gt=0, le=64)] = 1
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
            raise Contradiction("invalid bind address: port: port cannot be zero; name one, such as 8080", "port")
        self._check_parts()
        self._check_storage()
        if self.workers > 1 and self.storage == "memory":
            raise Contradiction(
                "workers: more than one cannot share memory storage: set workers to 1 or storage to postgres",
                "workers",
                "storage",
            )
        if self.workers > 1 and not self.embedded and self.nats.url is None:
            raise Contradiction(
                "workers: more than one need NATS between them: set nats.url, or workers to 1", "workers"
            )
        return self

    def _check_parts(self) -> None:
        for index, server in enumerate(self.federation.trusted_servers):
            for name in ("server_name", "key_id"):
                if not getattr(server, name).strip():
                    raise Contradiction(
                        f"invalid federation configuration: trusted server entries require a {name}: "
                        f"set federation.trusted_servers.{index}.{name}",
                        "federation.trusted_servers",
                    )
        if not self.mls.ciphersuite.strip():
            raise Contradiction(
                "invalid MLS configuration: mls.ciphersuite must be provided when MLS is enabled: "
                "name one, or drop the key for the default",
                "mls.ciphersuite",
            )
        if self.mls.enabled and not self.mls.identities:
            raise Contradiction(
                "invalid MLS configuration: mls.identities must include at least one identity when MLS is enabled",
                "mls.enabled",
            )
        if self.admin_path is not None and (problem := too_long(self.admin_path)) is not None:
            key = "data_dir" if self.admin_socket is None else "admin_socket"
            raise Contradiction(f"{key}: {problem}", key)

    def _check_storage(self) -> None:
        if self.embedded and (self.storage == "memory" or self.database_url is not None):
            raise Contradiction(
                "embedded: brings its own database: drop embedded, or drop database_url and storage",
                "embedded",
                "database_url",
                "storage",
            )
        if self.embedded and self.workers * self.database.pool_size > MAX_EMBEDDED_CONNECTIONS:
            raise Contradiction(
                f"database.pool_size: that of all workers is more than the {MAX_EMBEDDED_CONNECTIONS} connections of an "
                "embedded database: lower it, or workers",
                "database.pool_size",
                "workers",
            )
        if self.embedded and self.nats.url is not None:
            raise Contradiction(
                "embedded: brings its own NATS: drop embedded, or drop nats.url", "embedded", "nats.url"
            )
        if self.storage == "memory" and self.database_url is not None:
            raise Contradiction(
                "storage: memory and database_url contradict each other: drop one of them", "storage", "database_url"
            )

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
        if self.admin_socket is not None or not self.embedded:
            return self.admin_socket
        return (self.data_dir / "admin.sock").absolute()

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
        elif isinstance(value, str):
            yield prefix + name, without_userinfo(value)
        else:
            yield prefix + name, str(value) if isinstance(value, Path) else value


def load(flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> ServerConfig:
    """Collect the layers and check the result. Raises ConfigError: one line, key, problem, mend; never a secret."""
    collected = collect(flags, environ, directory, ServerConfig)
    try:
        return ServerConfig.model_validate(collected.values)
    except ValidationError as failure:
        raise ConfigError(one_line(failure, ServerConfig, collected.sources)) from None
