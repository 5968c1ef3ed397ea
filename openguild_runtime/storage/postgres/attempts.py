"""Login attempts, counted for all replicas by `count_attempt_v1` of the schema, and blocks of logins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openguild_proto.effects.attempts import BlockLogins, CountAttempt, ListLoginBlocks, LoginBlock, UnblockLogins
from openguild_proto.effects.performs import performs
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, moment, to_millis

if TYPE_CHECKING:
    from openguild_runtime.storage.postgres.transaction import Transaction


@performs(CountAttempt, Mode.CHANGE)
async def count_attempt(connection: Connection, effect: CountAttempt) -> float | None:
    wait: float | None = await connection.fetchval(
        "SELECT count_attempt_v1($1, $2, $3, $4)",
        [key.digest for key in effect.keys],
        [key.limit for key in effect.keys],
        effect.window_secs,
        moment(effect.now_ms),
    )
    return wait


@performs(BlockLogins, Mode.TRANSACTION)
async def block_logins(tx: Transaction, effect: BlockLogins) -> bool:
    block, connection = effect.block, tx.connection
    await connection.execute("LOCK TABLE login_blocks IN SHARE ROW EXCLUSIVE MODE")  # else two could exceed `most`
    await connection.execute("DELETE FROM login_blocks WHERE ends_at <= $1", moment(effect.now_ms))
    others = await connection.fetchval("SELECT count(*) FROM login_blocks WHERE key <> $1", block.digest)
    if others >= effect.most:
        return False
    await connection.execute(
        """
        INSERT INTO login_blocks (key, kind, name, ends_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (key) DO UPDATE SET ends_at = excluded.ends_at
        """,
        block.digest,
        block.kind,
        block.name,
        moment(block.ends_ms),
    )
    return True


@performs(UnblockLogins, Mode.CHANGE)
async def unblock_logins(connection: Connection, effect: UnblockLogins) -> bool:
    ends_at = await connection.fetchval("DELETE FROM login_blocks WHERE key = $1 RETURNING ends_at", effect.digest)
    return ends_at is not None and to_millis(ends_at) > effect.now_ms


@performs(ListLoginBlocks, Mode.QUERY)
async def list_login_blocks(connection: Connection, effect: ListLoginBlocks) -> list[LoginBlock]:
    rows = await connection.fetch(
        "SELECT key, kind, name, ends_at FROM login_blocks WHERE ends_at > $1 ORDER BY ends_at, kind, name",
        moment(effect.now_ms),
    )
    return [LoginBlock(row["kind"], row["name"], to_millis(row["ends_at"]), row["key"]) for row in rows]
