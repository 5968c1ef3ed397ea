"""The configuration: every key (docs/configuration.md) with its default and its check, and contradictions between keys.

The layers, of which later ones win, are defaults, `config/server.{toml,yaml,json}`, `config/server.local.*`, environment and
flags (layers.py). pydantic checks the result and refuses unknown keys. The sections of the core are in
openguild_proto/settings/sections.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta
from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, model_validator

from openguild_proto.canonical.keys import KeyRing, parse_public, parse_seed
from openguild_proto.limits import MAX_REPLICAS
from openguild_proto.operations.context import Settings
from openguild_proto.settings.sections import (
    GuildSettings,
    HttpLimits,
    MessagingSettings,
    PresenceSettings,
    RegistrationSettings,
    SearchSettings,
    SessionSettings,
    WebSocketSettings,
)
from openguild_proto.settings.setting import Contradiction, Contradictions, PositiveSeconds, Seconds, Setting
from openguild_runtime.config.declared import Declared, Strict, is_section, values_of
from openguild_runtime.config.faults import lines_of
from openguild_runtime.config.federation import FederationSection, federation_contradictions, federation_policy
from openguild_runtime.config.layers import ConfigError, Problems, collect
from openguild_runtime.config.pool_shares import MIN_POOL_SIZE
from openguild_runtime.config.values import (
    MAX_STATEMENTS,
    Address,
    DatabaseUrl,
    FilePath,
    HttpUrl,
    Ip,
    Lower,
    NatsUrl,
    Network,
    Number,
    Origin,
    PublicKey,
    SecretText,
    Seed,
    ServerName,
    Text,
    split_address,
    without_userinfo,
)
from openguild_runtime.system.unix_socket import path_length_problem

__all__ = ["ServerConfig", "load", "split_address"]

HIDDEN = "***"
MLS_CIPHERSUITE = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"
MAX_EMBEDDED_CONNECTIONS = 1_000  # of the pools of all workers


def _pool_size(value: int) -> int:
    reserved = MIN_POOL_SIZE - 1
    if value <= reserved:
        raise ValueError(
            f"is too small, because {reserved} are reserved for posts, access and health; write at least {MIN_POOL_SIZE}"
        )
    return value


@dataclass(frozen=True, kw_only=True)
class MetricsSection:
    """`metrics.*`: whether metrics are served, by which listener, and how long a rendered text is reused."""

    enabled: Annotated[bool, Setting("whether to serve `/metrics`")] = True
    bind_addr: Annotated[Address | None, Setting("address and port of a separate listener for `/metrics`")] = None
    max_age_secs: Annotated[Seconds, Setting("how long a rendered metrics page is cached")] = 1


@dataclass(frozen=True, kw_only=True)
class CorsSection:
    """`cors.*`: the origins whose pages may read responses and open streams."""

    allowed_origins: Annotated[
        tuple[Origin, ...], Setting("origins whose pages may read responses; empty: all origins")
    ] = ()


@dataclass(frozen=True, kw_only=True)
class MlsSection:
    """`mls.*`: validated, but without effect yet (PROTOCOL 13.3)."""

    enabled: Annotated[bool, Setting("whether MLS is enabled; checked, but has no effect yet")] = False
    ciphersuite: Annotated[str, Setting("cipher suite of MLS groups")] = MLS_CIPHERSUITE
    identities: Annotated[tuple[Text, ...], Setting("identities that use MLS")] = ()


@dataclass(frozen=True, kw_only=True)
class SessionSection(SessionSettings):
    """`session.*`: the keys of tokens, and the settings of the core."""

    signing_key: Annotated[
        Seed | None,
        Setting("seed of the key that signs tokens; must be the same on every replica", live=True, settable=False),
    ] = None
    fallback_verifying_keys: Annotated[
        tuple[PublicKey, ...], Setting("former public keys whose tokens are still accepted", live=True, settable=False)
    ] = ()


@dataclass(frozen=True, kw_only=True)
class NatsSection:
    """`nats.*`: the bus to the other replicas."""

    url: Annotated[
        NatsUrl | None,
        Setting("URL of NATS, which connects the replicas; not needed for a single process"),
    ] = None
    credentials_file: Annotated[FilePath | None, Setting("NATS credentials file (.creds)")] = None
    ca_file: Annotated[FilePath | None, Setting("PEM file with the CA certificates for NATS")] = None
    cert_file: Annotated[FilePath | None, Setting("PEM file with the client certificate, if NATS requires one")] = None
    key_file: Annotated[FilePath | None, Setting("PEM file with the key of `cert_file`, not encrypted")] = None
    min_replicas: Annotated[
        int,
        Meta(gt=0, le=MAX_REPLICAS),
        Setting("number of replicas by which message limits are divided until the replicas know each other"),
    ] = 1

    @property
    def certificate(self) -> tuple[str, str] | None:
        """The files of the certificate and of its key."""
        return None if self.cert_file is None or self.key_file is None else (str(self.cert_file), str(self.key_file))


@dataclass(frozen=True, kw_only=True)
class DrainSection:
    """`drain.*`: how the server stops (PROTOCOL 12)."""

    delay_secs: Annotated[Seconds, Setting("time between `/ready` answering 503 and the first closed stream")] = 0
    window_secs: Annotated[Seconds, Setting("time over which the streams are closed")] = 10


@dataclass(frozen=True, kw_only=True)
class DatabaseSection:
    """`database.*`: connections to PostgreSQL, and how long a statement may take."""

    pool_size: Annotated[
        int, Meta(le=500), AfterValidator(_pool_size), Setting("maximum number of connections per process")
    ] = 10
    statement_timeout_secs: Annotated[PositiveSeconds, Setting("time limit of a statement")] = 10
    statement_cache_size: Annotated[
        int, Meta(ge=0, le=MAX_STATEMENTS), Setting("prepared statements cached per connection; use 0 behind PgBouncer")
    ] = 100
    replica_urls: Annotated[
        tuple[DatabaseUrl, ...], Setting("URLs of streaming standbys that serve reads, each with its own pool")
    ] = ()
    replica_wait_secs: Annotated[
        PositiveSeconds,
        Setting("how long a read waits for a lagging standby before it goes to the primary"),
    ] = 0.25


@dataclass(frozen=True, kw_only=True)
class TracingSection:
    """`tracing.*`: the collector of spans."""

    otlp_endpoint: Annotated[HttpUrl | None, Setting("URL of the OTLP collector that receives spans over HTTP")] = None


@dataclass(frozen=True, kw_only=True)
class MediaSection:
    """`media.*`: accepted for existing deployments, but without effect yet (PROTOCOL 13.2.4)."""

    endpoint: Annotated[HttpUrl | None, Setting("accepted, but has no effect yet")] = None
    bucket: Annotated[Text | None, Setting("accepted, but has no effect yet")] = None
    access_key: Annotated[SecretText | None, Setting("accepted, but has no effect yet")] = None
    secret_key: Annotated[SecretText | None, Setting("accepted, but has no effect yet")] = None


class ServerConfig(Strict):
    """The whole configuration. Unless `storage` is set, `embedded` or `database_url` decides on it (PROTOCOL 11.4.4)."""

    bind_addr: Annotated[Address | None, Setting("address and port to listen on; overrides `host` and `port`")] = None
    host: Annotated[Ip, Setting("IP address to listen on")] = "0.0.0.0"  # noqa: S104 - the documented default; `make run` binds to loopback
    port: Annotated[int, Number, Field(ge=0, le=65_535), Setting("port to listen on; 0: any free port")] = 8080
    server_name: Annotated[ServerName, Setting("name of this server for users and other servers")] = "localhost"
    log_format: Annotated[Literal["compact", "json"], Lower, Setting("log format: `compact` or `json`")] = "compact"
    database_url: Annotated[DatabaseUrl | None, Setting("URL of the PostgreSQL database")] = None
    storage: Annotated[
        Literal["postgres", "memory"] | None, Setting("`postgres` or `memory`; with `memory` all data is lost at exit")
    ] = None
    embedded: Annotated[bool, Setting("run a private PostgreSQL and NATS under `data_dir`")] = False
    data_dir: Annotated[FilePath, Setting("data directory of the private servers")] = Path("data")
    admin_socket: Annotated[FilePath | None, Setting("Unix socket for `openguild-server admin`")] = None
    workers: Annotated[int, Number, Field(gt=0, le=64), Setting("number of worker processes")] = 1
    trusted_proxies: Annotated[tuple[Network, ...], Setting("proxies whose `X-Forwarded-For` is trusted")] = ()
    metrics: Annotated[MetricsSection, Declared()] = MetricsSection()
    cors: Annotated[CorsSection, Declared()] = CorsSection()
    messaging: Annotated[MessagingSettings, Declared()] = MessagingSettings()
    http: Annotated[HttpLimits, Declared()] = HttpLimits()
    websocket: Annotated[WebSocketSettings, Declared()] = WebSocketSettings()
    federation: Annotated[FederationSection, Declared()] = FederationSection()
    mls: Annotated[MlsSection, Declared()] = MlsSection()
    session: Annotated[SessionSection, Declared()] = SessionSection()
    guilds: Annotated[GuildSettings, Declared()] = GuildSettings()
    nats: Annotated[NatsSection, Declared()] = NatsSection()
    drain: Annotated[DrainSection, Declared()] = DrainSection()
    database: Annotated[DatabaseSection, Declared()] = DatabaseSection()
    registration: Annotated[RegistrationSettings, Declared()] = RegistrationSettings()
    search: Annotated[SearchSettings, Declared()] = SearchSettings()
    presence: Annotated[PresenceSettings, Declared()] = PresenceSettings()
    tracing: Annotated[TracingSection, Declared()] = TracingSection()
    media: Annotated[MediaSection, Declared()] = MediaSection()

    @model_validator(mode="after")
    def _together(self) -> ServerConfig:
        found = tuple(self._contradictions())
        if found:
            raise Contradictions(found)
        return self

    def _contradictions(self) -> Iterator[Contradiction]:
        if self.bind_addr is None and self.port == 0:
            yield Contradiction("invalid bind address: port: port cannot be zero; choose one, such as 8080", "port")
        yield from federation_contradictions(self.federation, self.server_name)
        yield from self._contradictions_of_parts()
        yield from self._contradictions_of_storage()
        if self.workers > 1 and self.storage == "memory":
            yield Contradiction(
                "workers: several workers cannot share memory storage: set workers to 1, or set storage to postgres",
                "workers",
                "storage",
            )
        if self.workers > 1 and not self.embedded and self.nats.url is None:
            yield Contradiction("workers: several workers need NATS: set nats.url, or set workers to 1", "workers")

    def _contradictions_of_parts(self) -> Iterator[Contradiction]:
        if not self.mls.ciphersuite.strip():
            yield Contradiction(
                "invalid MLS configuration: mls.ciphersuite must be provided when MLS is enabled: "
                "set it, or remove the key to use the default",
                "mls.ciphersuite",
            )
        if self.mls.enabled and not self.mls.identities:
            yield Contradiction(
                "invalid MLS configuration: mls.identities must include at least one identity when MLS is enabled",
                "mls.enabled",
            )
        if (self.nats.cert_file is None) != (self.nats.key_file is None):
            yield Contradiction(
                "nats.cert_file: is only valid together with nats.key_file: set both, or neither",
                "nats.cert_file",
                "nats.key_file",
            )
        if self.admin_path is not None and (problem := path_length_problem(self.admin_path)) is not None:
            key = "data_dir" if self.admin_socket is None else "admin_socket"
            yield Contradiction(f"{key}: {problem}", key)

    def _contradictions_of_storage(self) -> Iterator[Contradiction]:
        if self.embedded and (self.storage == "memory" or self.database_url is not None):
            yield Contradiction(
                "embedded: runs its own database: remove embedded, or remove database_url and storage",
                "embedded",
                "database_url",
                "storage",
            )
        if self.embedded and self.workers * self.database.pool_size > MAX_EMBEDDED_CONNECTIONS:
            yield Contradiction(
                f"database.pool_size: all workers together would use more than the {MAX_EMBEDDED_CONNECTIONS} connections of an "
                "embedded database: reduce it, or reduce workers",
                "database.pool_size",
                "workers",
            )
        if self.embedded and self.nats.url is not None:
            yield Contradiction(
                "embedded: runs its own NATS: remove embedded, or remove nats.url", "embedded", "nats.url"
            )
        if self.database.replica_urls and self.database_url is None:
            yield Contradiction(
                "database.replica_urls: requires database_url, which is not set: set it, or remove replica_urls",
                "database.replica_urls",
                "database_url",
            )
        if self.storage == "memory" and self.database_url is not None:
            yield Contradiction(
                "storage: memory and database_url contradict each other: remove one of them", "storage", "database_url"
            )

    @property
    def listen(self) -> tuple[str, int]:
        """Host and port of the main listener."""
        return split_address(self.bind_addr) if self.bind_addr is not None else (self.host, self.port)

    def shown(self) -> dict[str, Any]:
        """Return all keys with their values for display, secrets as `***`."""
        return dict(_flat(self, ""))

    def not_default(self) -> list[dict[str, Any]]:
        """Return the keys and values of `shown` that differ from the defaults, one dict for each section."""
        default = ServerConfig().shown()
        sections: dict[str, dict[str, Any]] = {}
        for key, value in self.shown().items():
            if value != default[key]:
                sections.setdefault(key.rpartition(".")[0], {})[key] = value
        return list(sections.values())

    @property
    def admin_path(self) -> Path | None:
        """The path of the admin socket, for an embedded server by default in its data directory, or None."""
        if self.admin_socket is not None or not self.embedded:
            return self.admin_socket
        return (self.data_dir / "admin.sock").absolute()

    def settings(self, version: str) -> Settings:
        """Return the settings for operations."""
        return Settings(
            server_name=self.server_name,
            version=version,
            messaging=self.messaging,
            websocket=self.websocket,
            session=self.session,
            guilds=self.guilds,
            registration=self.registration,
            search=self.search,
            presence=self.presence,
            federation=federation_policy(self.federation, self.server_name),
        )

    def key_ring(self) -> KeyRing:
        """Return the token keys. Raises ConfigError if `session.signing_key` is not set."""
        if self.session.signing_key is None:
            raise ConfigError(
                "session.signing_key: is not set: run `openguild-server keygen` and set it, the same on every replica"
            )
        keys = tuple(parse_public(key) for key in self.session.fallback_verifying_keys)
        return KeyRing(parse_seed(self.session.signing_key.get_secret_value()), keys)


def _flat(section: object, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values_of(section).items():
        if is_section(value):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, SecretStr):
            yield prefix + name, HIDDEN
        elif isinstance(value, tuple):
            yield prefix + name, [_shown_item(item) for item in value]
        elif isinstance(value, str):
            yield prefix + name, without_userinfo(value)
        else:
            yield prefix + name, str(value) if isinstance(value, Path) else value


def _shown_item(item: Any) -> Any:
    if isinstance(item, SecretStr):
        return HIDDEN
    return item.model_dump() if isinstance(item, BaseModel) else item


def load(flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> ServerConfig:
    """Collect the layers and check the result. Raises ConfigError: for each fault key, problem, fix; never a secret."""
    problems = Problems()
    collected = collect(flags, environ, directory, ServerConfig, problems)
    try:
        config = ServerConfig.model_validate(collected.values)
    except ValidationError as failure:  # contradictions are not reported if a layer could not be read
        problems.lines += lines_of(
            failure, ServerConfig, collected.sources, without_contradictions=bool(problems.lines)
        )
    problems.raise_all()
    return config
