"""Whether the database takes what a login and a post write: all of it is stored in one transaction, and undone.

Asked after a write has failed, and at the start; a right that was revoked, a full disk and a read-only server show here
before a client has to try. Nobody waits for its rows: they are new, but for the control log's counter, the last one.
"""

from __future__ import annotations

import base64
import os
import time
import uuid

from openguild_proto.effects.attempts import AttemptKey, CountAttempt
from openguild_proto.effects.channels import AppendEvent
from openguild_proto.records import ControlKind
from openguild_runtime.storage.migrations import schema
from openguild_runtime.storage.migrations.schema import Schema
from openguild_runtime.storage.postgres.append import append_batch
from openguild_runtime.storage.postgres.attempts import count_attempt
from openguild_runtime.storage.postgres.faults import Unusable
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, moment

EVENT_BYTES = 12_288  # incompressible, so that the table has to grow by a page: a full disk is seen
LOCK_TIMEOUT_MS = 500  # for a lock: whoever holds one says nothing about the database

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


async def prove_usable(connection: Connection) -> Schema:
    """Its schema; one that does not serve is not written to. Raises Unusable and what asyncpg raises."""
    await check_writable(connection)
    found = await schema.read(connection)
    if not found.serves:
        return found
    undone = connection.transaction()
    await undone.start()
    await connection.execute("SELECT set_config('lock_timeout', $1, true)", f"{LOCK_TIMEOUT_MS}ms")
    await _write(connection)
    await undone.rollback()  # after a failure the end of the session does it
    return found


async def check_writable(connection: Connection) -> None:
    """Raises Unusable: a standby, or a server that is set to take no writes."""
    if await connection.fetchval("SELECT current_setting('transaction_read_only')") != "off":
        raise Unusable("read_only")


async def _write(connection: Connection) -> None:
    now_ms = int(time.time() * 1000)
    user, family, guild, channel = (str(uuid.uuid4()) for _ in range(4))
    await connection.execute(USER, user, f"proof {user}", moment(now_ms))
    await connection.execute(FAMILY, family, user, moment(now_ms))
    await connection.execute(SESSION, str(uuid.uuid4()), family, user, moment(now_ms))
    await connection.execute(REFRESH, os.urandom(32), family, moment(now_ms))
    await connection.execute(GUILD, guild, moment(now_ms))
    await connection.execute(CHANNEL, channel, guild, moment(now_ms))
    event = b'{"proof":"%b"}' % base64.b64encode(os.urandom(EVENT_BYTES))
    proof = AppendEvent(
        channel_id=channel, sender_id=user, event_id=f"$proof-{channel}", event_type="proof", wire=event,
        nonce=None, fingerprint=bytes(32), now_ms=now_ms, author=None,
    )  # fmt: skip
    await append_batch(connection, [proof], LOCK_TIMEOUT_MS)
    key = AttemptKey(digest=os.urandom(32), limit=1)
    await count_attempt(connection, CountAttempt(keys=(key,), window_secs=60, now_ms=now_ms))
    await Transaction(connection).log(ControlKind.MEMBER_JOINED, guild_id=guild, user_id=user)
