"""Tests whether the database accepts the writes of a login and a post, in a transaction that is rolled back.

It runs at the start and after a failure, and detects revoked rights, a missing table, a full disk and a read-only server. Its
rows are new, so that it blocks no other transaction, except by the counter of the control log, which is locked last.
"""

from __future__ import annotations

import base64
import os
import time
import uuid

from openguild_proto.effects.attempts import AttemptKey, CountAttempt
from openguild_proto.effects.channels import AppendEvent
from openguild_proto.records import ControlKind
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.connecting import DatabaseUnusable
from openguild_runtime.storage.postgres.append import append_batch
from openguild_runtime.storage.postgres.attempts import count_attempt
from openguild_runtime.storage.postgres.tables import LOOK_AT_EACH
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, moment

EVENT_BYTES = 12_288  # incompressible, so that the table must grow by a page, which a full disk prevents
LOCK_TIMEOUT_MS = 500  # a lock timeout is not a fault of the database

USER = """
INSERT INTO users (user_id, username, username_key, password_hash, created_at, updated_at)
VALUES ($1, $2, $2, '', $3, $3)
"""
FAMILY = """
INSERT INTO refresh_families (family_id, user_id, device_id, created_at, last_seen_at, expires_at, secret, current_hash)
VALUES ($1, $2, '', $3, $3, $3, '', '')
"""
SESSION = "INSERT INTO sessions (session_id, family_id, user_id, issued_at, expires_at) VALUES ($1, $2, $3, $4, $4)"
REFRESH = "INSERT INTO refresh_tokens (token_hash, family_id, expires_at) VALUES ($1, $2, $3)"
GUILD = "INSERT INTO guilds (guild_id, name, created_at) VALUES ($1, '', $2)"
CHANNEL = """
WITH log AS (INSERT INTO logs (log_id, kind) VALUES ($1, 'channel'))
INSERT INTO channels (channel_id, guild_id, name, created_at) VALUES ($1, $2, '', $3)
"""


async def probe_writes(connection: Connection) -> None:
    """Test the writes, on a schema that this release can use. Raises asyncpg's exceptions."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(LOOK_AT_EACH)
    await connection.execute("SELECT set_config('lock_timeout', $1, true)", f"{LOCK_TIMEOUT_MS}ms")
    await _write(connection)
    await transaction.rollback()  # after a failure, the end of the session rolls back


async def check_writable(connection: Connection) -> None:
    """Raise DatabaseUnusable for a standby and for a server that is set to read-only."""
    if await connection.fetchval("SELECT current_setting('transaction_read_only')") != "off":
        raise DatabaseUnusable("read_only")


async def _write(connection: Connection) -> None:
    now_ms = int(time.time() * 1000)
    user, family, guild, channel = (str(uuid.uuid4()) for _ in range(4))
    await connection.execute(USER, user, f"probe {user}", moment(now_ms))
    await connection.execute(FAMILY, family, user, moment(now_ms))
    await connection.execute(SESSION, str(uuid.uuid4()), family, user, moment(now_ms))
    await connection.execute(REFRESH, os.urandom(32), family, moment(now_ms))
    await connection.execute(GUILD, guild, moment(now_ms))
    await connection.execute(CHANNEL, channel, guild, moment(now_ms))
    event = b'{"probe":"%b"}' % base64.b64encode(os.urandom(EVENT_BYTES))
    probe = AppendEvent(
        channel_id=channel, sender_id=user, event_id=f"$probe-{channel}", event_type="probe", wire=event,
        nonce=None, fingerprint=bytes(32), now_ms=now_ms, author=None,
    )  # fmt: skip
    await append_batch(connection, [probe], LOCK_TIMEOUT_MS, LogWriter())
    key = AttemptKey(digest=os.urandom(32), limit=1)
    await count_attempt(connection, CountAttempt(keys=(key,), window_secs=60, now_ms=now_ms))
    await Transaction(connection, LogWriter()).log(ControlKind.MEMBER_JOINED, guild_id=guild, user_id=user)
