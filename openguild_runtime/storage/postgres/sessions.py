"""Sessions and refresh families in PostgreSQL. Tokens are stored as hashes only (PROTOCOL 4.6.1)."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from openguild_proto.effects.accounts import (
    ChangePassword,
    FindRefreshFamily,
    FindSession,
    ListDevices,
    ListSessionAddresses,
    OpenSession,
    RevokeDevice,
    RevokeRefresh,
    RotateRefresh,
    SetPassword,
)
from openguild_proto.effects.performs import performs, performs_many
from openguild_proto.limits import MAX_SESSIONS_PER_RECORD
from openguild_proto.policy.logins import Login, decide_login, is_alive
from openguild_proto.records import (
    ControlKind,
    DeviceRecord,
    RefreshFamily,
    ReusedRefresh,
    RotatedRefresh,
    SessionRecord,
)
from openguild_proto.schemas.log_entries import logged_in, logged_out
from openguild_proto.sessions.refresh import Rotation, decide_rotation
from openguild_runtime.storage.postgres.authority import hold_users, require_author
from openguild_runtime.storage.postgres.columns import Columns
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import (
    Connection,
    Row,
    moment,
    rows_changed,
    to_millis,
    to_millis_or_none,
)

DEVICE = Columns(DeviceRecord)
STORED_HASH = "SELECT password_hash FROM users WHERE user_id = $1"
STORE_HASH = "UPDATE users SET password_hash = $2, updated_at = $3 WHERE user_id = $1"


@performs(OpenSession, Mode.TRANSACTION)
async def open_session(tx: Transaction, effect: OpenSession) -> bool:
    connection, now = tx.connection, moment(effect.now_ms)
    # serialises logins of one user, because two logins on one device must not both be the first
    await hold_users(tx, [effect.user_id])
    if await connection.fetchval(STORED_HASH, effect.user_id) != effect.checked_hash:
        return False
    await prune_users(tx, [effect.user_id], effect.now_ms)
    rows = await connection.fetch(
        """
        SELECT family_id, device_id, last_seen_at, expires_at FROM refresh_families
        WHERE user_id = $1 AND revoked_at IS NULL
        """,
        effect.user_id,
    )
    logins = [
        Login(str(row["family_id"]), row["device_id"], to_millis(row["last_seen_at"]), to_millis(row["expires_at"]))
        for row in rows
    ]
    former = decide_login(logins, device_id=effect.device_id, now_ms=effect.now_ms, limit=effect.limit)
    ended = await _end_families(tx, former, effect.now_ms)
    await connection.execute(
        """
        INSERT INTO refresh_families (family_id, user_id, device_id, device_name, user_agent, ip_address,
            created_at, last_seen_at, expires_at, current_hash, secret)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10)
        """,
        effect.family_id,
        effect.user_id,
        effect.device_id,
        effect.device_name,
        effect.user_agent,
        effect.ip_address,
        now,
        moment(effect.refresh_expires_ms),
        effect.refresh_hash,
        effect.refresh_secret,
    )
    await _add_token(
        tx, effect.family_id, effect.user_id, effect.refresh_hash, effect.session_id,
        effect.now_ms, effect.access_expires_ms, effect.refresh_expires_ms,
    )  # fmt: skip
    devices = {login.device_id for login in logins if login.family_id in former} - {effect.device_id}
    entries = (
        *logged_out(effect.user_id, devices),
        *logged_in(effect.user_id, effect.device_id, effect.device_name),
    )
    await tx.append(entries, sender=effect.user_id, now_ms=effect.now_ms)
    await log_revoked(tx, effect.user_id, ended)
    return True


@performs(ChangePassword, Mode.TRANSACTION)
async def change_password(tx: Transaction, effect: ChangePassword) -> bool:
    author = effect.author
    await require_author(tx, author, changing=[author.user_id])
    if await tx.connection.fetchval(STORED_HASH, author.user_id) != effect.checked_hash:
        return False
    await tx.connection.execute(STORE_HASH, author.user_id, effect.password_hash, moment(effect.now_ms))
    await _log_out_all(tx, author.user_id, effect.now_ms, sender=author.user_id, kept=author.session_id)
    return True


@performs(SetPassword, Mode.TRANSACTION)
async def set_password(tx: Transaction, effect: SetPassword) -> int | None:
    await hold_users(tx, [effect.user_id])
    status = await tx.connection.execute(
        f"{STORE_HASH} AND origin IS NULL", effect.user_id, effect.password_hash, moment(effect.now_ms)
    )
    if not rows_changed(status):
        return None
    return await _log_out_all(tx, effect.user_id, effect.now_ms, sender=None, kept=None)


@performs_many(FindSession, Mode.GROUPED)
async def find_sessions(connection: Connection, effects: Sequence[FindSession]) -> list[SessionRecord | None]:
    rows = await connection.fetch(
        """
        SELECT s.session_id, s.user_id, u.username, f.revoked_at IS NOT NULL AS revoked
        FROM sessions AS s JOIN refresh_families AS f USING (family_id) LEFT JOIN users AS u ON u.user_id = s.user_id
        WHERE session_id = ANY ($1::uuid[])
        """,
        list({effect.session_id for effect in effects}),
    )
    found = {str(row["session_id"]): row for row in rows}
    return [_session(found.get(effect.session_id)) for effect in effects]


def _session(row: Row | None) -> SessionRecord | None:
    if row is None:
        return None
    user_id = str(row["user_id"])
    return SessionRecord(str(row["session_id"]), user_id, row["username"], revoked=row["revoked"])


@performs(FindRefreshFamily, Mode.QUERY)
async def find_refresh_family(connection: Connection, effect: FindRefreshFamily) -> RefreshFamily | None:
    row = await connection.fetchrow(
        """
        SELECT f.user_id, f.secret FROM refresh_tokens AS t JOIN refresh_families AS f USING (family_id)
        WHERE t.token_hash = $1 AND t.expires_at > $2 AND f.expires_at > $2 AND f.revoked_at IS NULL
        """,
        effect.refresh_hash,
        moment(effect.now_ms),
    )
    return RefreshFamily(user_id=str(row["user_id"]), secret=row["secret"]) if row is not None else None


@performs(RotateRefresh, Mode.TRANSACTION)
async def rotate_refresh(tx: Transaction, effect: RotateRefresh) -> RotatedRefresh | ReusedRefresh | None:
    family = await _lock_family(tx, effect.refresh_hash, effect.now_ms)
    if family is None:
        return None
    user_id, family_id = str(family["user_id"]), str(family["family_id"])
    decision = decide_rotation(
        presented=effect.refresh_hash,
        current=family["current_hash"],
        previous=family["previous_hash"],
        rotated_at_ms=to_millis_or_none(family["rotated_at"]),
        revoked=family["revoked_at"] is not None,
        expires_at_ms=to_millis(family["expires_at"]),
        now_ms=effect.now_ms,
        grace_ms=effect.grace_ms,
    )
    match decision:
        case Rotation.DEAD:
            return None
        case Rotation.REUSED:
            await _log_out(tx, user_id, family_id, family["device_id"], effect.now_ms)
            return ReusedRefresh(user_id=user_id, family_id=family_id)
        case Rotation.ROTATE | Rotation.GRACE:
            await tx.connection.execute(
                """
                UPDATE refresh_families SET previous_hash = $2, current_hash = $3, rotated_at = $4,
                    last_seen_at = $5, expires_at = $6
                WHERE family_id = $1
                """,
                family_id,
                effect.refresh_hash,
                effect.new_refresh_hash,
                moment(effect.now_ms) if decision is Rotation.ROTATE else family["rotated_at"],
                moment(effect.now_ms),
                moment(effect.refresh_expires_ms),
            )
            await _add_token(
                tx, family_id, user_id, effect.new_refresh_hash, effect.new_session_id,
                effect.now_ms, effect.access_expires_ms, effect.refresh_expires_ms,
            )  # fmt: skip
            await prune_users(tx, [user_id], effect.now_ms)
            return RotatedRefresh(user_id=user_id, username=family["username"])


@performs(RevokeRefresh, Mode.TRANSACTION)
async def revoke_refresh(tx: Transaction, effect: RevokeRefresh) -> bool:
    family = await _lock_family(tx, effect.refresh_hash, effect.now_ms)
    if family is None:
        return False
    revoked, expires_at_ms = family["revoked_at"] is not None, to_millis(family["expires_at"])
    if not is_alive(revoked=revoked, expires_at_ms=expires_at_ms, now_ms=effect.now_ms):
        return False
    await _log_out(tx, str(family["user_id"]), str(family["family_id"]), family["device_id"], effect.now_ms)
    return True


@performs(ListDevices, Mode.QUERY)
async def list_devices(connection: Connection, effect: ListDevices) -> tuple[DeviceRecord, ...]:
    rows = await connection.fetch(
        f"""
        SELECT {DEVICE} FROM refresh_families
        WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
        ORDER BY last_seen_at DESC, device_id LIMIT $3
        """,
        effect.user_id,
        moment(effect.now_ms),
        effect.limit,
    )
    return tuple(DEVICE.record(row) for row in rows)


@performs(ListSessionAddresses, Mode.QUERY)
async def list_session_addresses(connection: Connection, effect: ListSessionAddresses) -> tuple[str, ...]:
    rows = await connection.fetch(
        """
        SELECT ip_address FROM refresh_families
        WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 AND ip_address IS NOT NULL
        GROUP BY ip_address ORDER BY max(last_seen_at) DESC, ip_address LIMIT $3
        """,
        effect.user_id,
        moment(effect.now_ms),
        effect.limit,
    )
    return tuple(row["ip_address"] for row in rows)


@performs(RevokeDevice, Mode.TRANSACTION)
async def revoke_device(tx: Transaction, effect: RevokeDevice) -> bool:
    user_id = effect.author.user_id
    await require_author(tx, effect.author, changing=[user_id])
    rows = await tx.connection.fetch(
        """
        SELECT family_id FROM refresh_families
        WHERE user_id = $1 AND device_id = $2 AND revoked_at IS NULL AND expires_at > $3
        ORDER BY family_id FOR UPDATE
        """,
        user_id,
        effect.device_id,
        moment(effect.now_ms),
    )
    for row in rows:  # at most one
        await _log_out(tx, user_id, str(row["family_id"]), effect.device_id, effect.now_ms)
    return bool(rows)


# --- families --------------------------------------------------------------------------------------


async def _lock_family(tx: Transaction, refresh_hash: bytes, now_ms: int) -> Row | None:
    """Lock and return the family of an unexpired token. Locks the user first, because the family may be revoked."""
    user_id = await tx.connection.fetchval(
        "SELECT user_id FROM refresh_tokens JOIN refresh_families USING (family_id) WHERE token_hash = $1", refresh_hash
    )
    if user_id is None:
        return None
    await hold_users(tx, [user_id])
    row: asyncpg.Record | None = await tx.connection.fetchrow(
        """
        SELECT f.family_id, f.user_id, f.device_id, f.current_hash, f.previous_hash, f.rotated_at,
            f.revoked_at, f.expires_at, u.username
        FROM refresh_tokens AS t JOIN refresh_families AS f USING (family_id)
        JOIN users AS u USING (user_id)
        WHERE t.token_hash = $1 AND t.expires_at > $2 FOR UPDATE OF f
        """,
        refresh_hash,
        moment(now_ms),
    )
    return row


async def _add_token(
    tx: Transaction,
    family_id: str,
    user_id: str,
    refresh_hash: bytes,
    session_id: str,
    now_ms: int,
    access_expires_ms: int,
    refresh_expires_ms: int,
) -> None:
    await tx.connection.execute(
        # exists already in a repeated rotation
        "INSERT INTO refresh_tokens (token_hash, family_id, expires_at) VALUES ($1, $2, $3) "
        "ON CONFLICT (token_hash) DO UPDATE SET expires_at = EXCLUDED.expires_at",
        refresh_hash,
        family_id,
        moment(refresh_expires_ms),
    )
    await tx.connection.execute(
        "INSERT INTO sessions (session_id, family_id, user_id, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        session_id,
        family_id,
        user_id,
        moment(now_ms),
        moment(access_expires_ms),
    )


async def _end_families(tx: Transaction, family_ids: Sequence[str], now_ms: int) -> list[str]:
    """Revoke families, and return the IDs of their sessions with unexpired access tokens."""
    if not family_ids:
        return []
    await tx.connection.execute(
        "UPDATE refresh_families SET revoked_at = $2 WHERE family_id = ANY ($1::uuid[])", family_ids, moment(now_ms)
    )
    rows = await tx.connection.fetch(
        "SELECT session_id FROM sessions WHERE family_id = ANY ($1::uuid[]) AND expires_at > $2 ORDER BY session_id",
        family_ids,
        moment(now_ms),
    )
    return [str(row["session_id"]) for row in rows]


async def _log_out(tx: Transaction, user_id: str, family_id: str, device_id: str, now_ms: int) -> None:
    """Revoke the family of a device, and append to the user's log and to the control log."""
    session_ids = await _end_families(tx, [family_id], now_ms)
    await tx.append(logged_out(user_id, [device_id]), sender=user_id, now_ms=now_ms)
    await log_revoked(tx, user_id, session_ids)


async def _log_out_all(tx: Transaction, user_id: str, now_ms: int, *, sender: str | None, kept: str | None) -> int:
    """Revoke the active families of a user, except that of the session `kept`, as `_log_out` does; return their number."""
    rows = await tx.connection.fetch(
        """
        SELECT family_id, device_id FROM refresh_families
        WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
        AND family_id IS DISTINCT FROM (SELECT family_id FROM sessions WHERE session_id = $3)
        ORDER BY family_id FOR UPDATE
        """,
        user_id,
        moment(now_ms),
        kept,
    )
    session_ids = await _end_families(tx, [str(row["family_id"]) for row in rows], now_ms)
    await tx.append(logged_out(user_id, {row["device_id"] for row in rows}), sender=sender, now_ms=now_ms)
    await log_revoked(tx, user_id, session_ids)
    return len(rows)


async def log_revoked(tx: Transaction, user_id: str, session_ids: Sequence[str]) -> None:
    """Append ended sessions to the control log; must be the last statements of the transaction."""
    for start in range(0, len(session_ids), MAX_SESSIONS_PER_RECORD):
        some = session_ids[start : start + MAX_SESSIONS_PER_RECORD]
        await tx.log(ControlKind.SESSIONS_REVOKED, user_id=user_id, session_ids=some)


async def prune_users(tx: Transaction, user_ids: Sequence[str], now_ms: int) -> None:
    """Delete the expired sessions, tokens and families of these users (PROTOCOL 11.6.3)."""
    now = moment(now_ms)
    await tx.connection.execute(
        "DELETE FROM sessions WHERE user_id = ANY ($1::uuid[]) AND expires_at <= $2", user_ids, now
    )
    await tx.connection.execute(
        """
        DELETE FROM refresh_tokens AS t USING refresh_families AS f
        WHERE t.family_id = f.family_id AND f.user_id = ANY ($1::uuid[]) AND t.expires_at <= $2
        """,
        user_ids,
        now,
    )
    await tx.connection.execute(
        """
        DELETE FROM refresh_families AS f WHERE user_id = ANY ($1::uuid[]) AND expires_at <= $2
        AND NOT EXISTS (SELECT FROM sessions AS s WHERE s.family_id = f.family_id)
        """,
        user_ids,
        now,
    )
