"""`--embedded`: a private PostgreSQL and NATS under the data directory, and the configuration that points to them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import structlog
from pydantic import SecretStr

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.canonical.signing import SEED_BYTES
from openguild_runtime.config import ServerConfig
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres, write_private
from openguild_runtime.storage import migrations

log = structlog.get_logger("openguild.embedded")


@asynccontextmanager
async def private_servers(config: ServerConfig) -> AsyncIterator[ServerConfig]:
    """Start both, bring the schema up to date, yield the completed configuration; stop both at the end.

    Raises EmbeddedError with one line for the operator. Without `embedded` the configuration comes back as it is.
    """
    if not config.embedded:
        yield config
        return
    servers = (EmbeddedPostgres(config.data_dir), EmbeddedNats(config.data_dir))
    try:
        async with anyio.create_task_group() as starting:
            for server in servers:
                starting.start_soon(anyio.to_thread.run_sync, server.start)
        postgres, nats = servers
        await migrations.upgrade(postgres.url)
        log.info("private PostgreSQL and NATS started", data_dir=str(config.data_dir))
        yield completed(config, postgres.url, nats.url)
    finally:
        with anyio.CancelScope(shield=True):
            for server in reversed(servers):
                await anyio.to_thread.run_sync(server.stop)


def completed(config: ServerConfig, database_url: str, nats_url: str) -> ServerConfig:
    """`config` with the private servers' addresses, and with a signing key that lasts as long as the data (A8)."""
    session = config.session
    if session.signing_key is None:
        session = session.model_copy(update={"signing_key": SecretStr(kept_signing_key(config.data_dir))})
    nats = config.nats.model_copy(update={"url": SecretStr(nats_url)})
    return config.model_copy(update={"database_url": SecretStr(database_url), "nats": nats, "session": session})


def kept_signing_key(data_dir: Path) -> str:
    """The key in `<data_dir>/signing.key`; made once, readable by its owner only."""
    path = data_dir / "signing.key"
    if not path.exists():
        write_private(path, encode_unpadded(secrets.token_bytes(SEED_BYTES)))
    return path.read_text().strip()
