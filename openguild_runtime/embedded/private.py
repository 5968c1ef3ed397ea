"""`--embedded`: runs a private PostgreSQL and NATS under the data directory and points the configuration to them."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import asyncpg
import structlog
from pydantic import SecretStr

from openguild_proto.canonical.keys import KeyFormatError, encode_unpadded, parse_seed
from openguild_proto.canonical.signing import SEED_BYTES
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.embedded import (
    EmbeddedError,
    EmbeddedNats,
    EmbeddedPostgres,
    EmbeddedServer,
    data_dir_error,
    running_url,
)
from openguild_runtime.process.shutdown import SERVERS_SECS, Shutdown
from openguild_runtime.storage import migrations
from openguild_runtime.system.atomic_file import (
    owner_for_new_file,
    read_stripped,
    remove_temporary_files,
    write_atomically,
)
from openguild_runtime.system.threads import start_thread, wait_for_thread

STABLE_SECS = 10.0  # a server that lived this long is restarted at once
MAX_BACKOFF_SECS = 5.0
MAX_FAILURES = 5  # in a row
MIN_CONNECTIONS = 200
OTHER_CONNECTIONS = 20  # for commands, and those that PostgreSQL reserves

NO_TLS = "?sslmode=disable"  # loopback; otherwise asyncpg looks for certificates in HOME, which may be unreadable

log = structlog.get_logger("openguild.embedded")


class _ManagedServer:
    """A private server and its blocking calls, which run on threads, one at a time."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self._work: asyncio.Future[None] | None = None

    async def run(self, work: Callable[[], None]) -> None:
        """Run `work()` on a thread after the previous call, and raise its exception. Cancellation does not stop the thread."""
        if self._work is not None:
            await asyncio.wait({self._work})
        self._work = start_thread(work)
        await wait_for_thread(self._work)


@asynccontextmanager
async def private_servers(config: ServerConfig, shutdown: Shutdown | None = None) -> AsyncIterator[ServerConfig]:
    """Start both servers, migrate the schema, yield the completed configuration, and stop both at the end.

    A server that misses the deadline of `shutdown` is left to its guard, which stops it when this process exits. While
    the body runs, a server that dies is restarted; if restarts fail, the body is cancelled. Raises EmbeddedError with one
    line for the operator, possibly in an exception group. Without `embedded`, yields the configuration unchanged.
    """
    if not config.embedded:
        yield config
        return
    connections = max(MIN_CONNECTIONS, config.workers * config.database.pool_size + OTHER_CONNECTIONS)
    postgres = EmbeddedPostgres(config.data_dir, max_connections=connections)
    nats = EmbeddedNats(config.data_dir)
    servers = (_ManagedServer(postgres), _ManagedServer(nats))
    try:
        async with anyio.create_task_group() as starting:
            for kept in servers:
                starting.start_soon(kept.run, kept.server.start)
        await _migrate(postgres)
        log.info("private PostgreSQL and NATS started", data_dir=str(config.data_dir))
        async with anyio.create_task_group() as keeping:
            for kept in servers:
                keeping.start_soon(_keep_running, kept)
            yield complete_config(config, postgres.url + NO_TLS, nats.url)
            keeping.cancel_scope.cancel()
    finally:
        limit = (
            anyio.CancelScope(shield=True) if shutdown is None else shutdown.deadline("private servers", SERVERS_SECS)
        )
        with limit:
            async with anyio.create_task_group() as stopping:
                for kept in servers:
                    stopping.start_soon(kept.run, kept.server.stop)


async def _keep_running(kept: _ManagedServer) -> None:
    """Restart the server whenever it exits, until cancelled: at once after STABLE_SECS, else with backoff. Raises EmbeddedError."""
    server = kept.server
    failures, started, problem = 0, time.monotonic(), "it exits soon after each start"
    while True:
        if server.lifeline is not None:
            await anyio.wait_readable(server.lifeline)
        failures = 0 if time.monotonic() - started > STABLE_SECS else failures + 1
        if failures > MAX_FAILURES:
            raise EmbeddedError(f"embedded {server.name} cannot be kept running: {problem}")
        delay = 0.0 if failures == 0 else random.uniform(0.1, min(MAX_BACKOFF_SECS, 0.2 * 2**failures))  # noqa: S311 - jitter
        log.error("a private server died and is restarted", server=server.name, delay_secs=round(delay, 2))
        await anyio.sleep(delay)
        started = time.monotonic()
        try:
            await kept.run(server.restart_after_exit)
        except (EmbeddedError, OSError) as failure:
            problem = str(failure)
            log.error("a private server cannot be started", server=server.name, problem=problem)  # noqa: TRY400 - one line
        else:
            log.info("a private server is running again", server=server.name)


def with_running_database(config: ServerConfig) -> ServerConfig:
    """Return the configuration for a command, with the database of the server that runs on the data directory, if any.

    Blocks while a server is starting there. Raises EmbeddedError.
    """
    url = running_url(config.data_dir) if config.embedded else None
    if url is None:
        return config
    return config.model_copy(update={"embedded": False, "database_url": SecretStr(url + NO_TLS)})


def complete_config(config: ServerConfig, database_url: str, nats_url: str) -> ServerConfig:
    """Return `config` with the private servers' URLs and the signing key of the data directory (PROTOCOL 4.4.1)."""
    session = config.session
    if session.signing_key is None:
        session = replace(session, signing_key=SecretStr(load_or_create_signing_key(config.data_dir)))
    nats = replace(config.nats, url=SecretStr(nats_url))
    return config.model_copy(update={"database_url": SecretStr(database_url), "nats": nats, "session": session})


def load_or_create_signing_key(data_dir: Path) -> str:
    """Return the key in `<data_dir>/signing.key`, created on first use, readable by its owner only. Raises EmbeddedError.

    An empty file is replaced. Any other invalid file is kept, because the operator may still have the right key.
    """
    path = data_dir / "signing.key"
    try:
        remove_temporary_files(path)
        kept = read_stripped(path)
        if kept is None:
            if path.exists():
                log.warning(
                    "the signing key is lost and a new one is created: all users must log in again", path=str(path)
                )
            kept = encode_unpadded(secrets.token_bytes(SEED_BYTES))
            write_atomically(path, kept, owner=owner_for_new_file(data_dir))
        parse_seed(kept)
    except OSError as failure:
        raise data_dir_error(data_dir.absolute(), failure) from failure
    except KeyFormatError:
        raise EmbeddedError(
            f"data_dir: {path.absolute()} does not contain a signing key (43 characters of base64url): restore the right file, "
            "or remove the file: a new key is created, and all users must log in again"
        ) from None
    return kept


async def _migrate(postgres: EmbeddedPostgres) -> None:
    """Migrate the schema. First replace the password if PostgreSQL refuses it, for example after a partial copy of the data."""
    try:
        await (await asyncpg.connect(postgres.url + NO_TLS)).close()
    except asyncpg.InvalidPasswordError:
        log.warning("PostgreSQL refuses the password in the data directory: setting a new one")
        await anyio.to_thread.run_sync(postgres.restart_with_new_password)
    schema = await migrations.upgrade(postgres.url + NO_TLS)
    if schema.origin is not migrations.Origin.THIS:
        log.warning(schema.origin.value)
