"""`openguild-server federation verify`: checks the receipts in the database (PROTOCOL 16.9)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import asyncpg

from openguild_proto.canonical.receipts import receipt_message
from openguild_proto.canonical.signing import verify
from openguild_proto.effects.deliveries import ChainPoint
from openguild_proto.log.chains import fold
from openguild_proto.records import LogPosition
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.embedded.private import private_servers
from openguild_runtime.server.failures import CommandFailed
from openguild_runtime.storage.connecting import connect

READ_IDS = 10_000
POINTS = """
SELECT log_id, epoch, sequence, hash FROM (
    SELECT log_id, epoch, sequence, hash FROM federation_chains
    UNION SELECT c.log_id, c.epoch, c.sequence, c.hash FROM federation_checkpoints AS c JOIN federation_chains USING (log_id, epoch)
) AS points ORDER BY log_id, sequence
"""
MIRRORS = """
SELECT m.log_id, l.epoch, l.head_sequence, m.hash, m.receipt, m.first_sequence, m.first_hash, g.origin, ARRAY(
    SELECT public_key FROM federation_peer_keys AS k WHERE k.server = g.origin
) AS keys
FROM federation_mirrors AS m JOIN logs AS l USING (log_id) JOIN guilds AS g ON g.guild_id = m.guild_id ORDER BY m.log_id
"""


class Verified(NamedTuple):
    """The numbers of checked items, and a line for each problem."""

    chains: int
    events: int
    receipts: int
    without: int  # mirrored logs without a receipt: no events since the mirror began, or the owner has no key
    problems: list[str]
    mirrored: int = 0  # events of mirrored logs


def add_federation_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `federation verify`."""
    federation = commands.add_parser("federation", help="check the receipts that servers have exchanged")
    federation.add_argument("action", choices=("verify",))


async def federation(config: ServerConfig, arguments: dict[str, Any]) -> int:
    """Check all receipts and return 0, or 1 if there are problems. Raises CommandFailed and asyncpg's exceptions."""
    del arguments
    async with private_servers(config) as completed:
        if completed.database_url is None:
            raise CommandFailed("database_url must be configured to check receipts")
        found = await verify_receipts(completed.database_url.get_secret_value())
    for problem in found.problems:
        sys.stdout.write(f"WRONG {problem}\n")
    sys.stdout.write(
        f"{found.chains} receipt chains of own logs over {found.events} events, {found.receipts} receipts of mirrored logs "
        f"over {found.mirrored} events, {found.without} mirrored logs without one: {len(found.problems)} problems\n"
    )
    return 1 if found.problems else 0


async def verify_receipts(url: str) -> Verified:
    """Recompute all receipt chains, and verify the owners' receipts for mirrored logs."""
    connection = await connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            chains, events, problems = await _verify_chains(connection)
            receipts = without = mirrored = 0
            for row in await connection.fetch(MIRRORS):
                if row["hash"] is not None and row["first_hash"] is not None:
                    read, problem = await _verify_mirror(connection, row)
                    mirrored += read
                    problems += problem
                if row["receipt"] is None or row["hash"] is None:
                    without += 1
                    continue
                receipts += 1
                message = receipt_message(row["hash"], str(row["log_id"]), row["epoch"], row["head_sequence"])
                if not any(verify(key, message, row["receipt"]) for key in row["keys"]):
                    problems.append(
                        f"log {row['log_id']} of {row['origin']}: no key of that server made the receipt at "
                        f"sequence {row['head_sequence']}"
                    )
    finally:
        await connection.close()
    return Verified(chains, events, receipts, without, problems, mirrored)


async def _verify_mirror(
    connection: asyncpg.Connection[asyncpg.Record], row: asyncpg.Record
) -> tuple[int, tuple[str, ...]]:
    """Recompute the chain of a mirrored log from the start of the mirror. Return the number of events, and problems."""
    log_id, epoch, head = str(row["log_id"]), row["epoch"], row["head_sequence"]
    known = ChainPoint(LogPosition(log_id, epoch, row["first_sequence"]), row["first_hash"])
    events = 0
    async for ids in _ids(connection, known.place, head):
        known = fold(known, ids, [])
        events += len(ids)
    if known == ChainPoint(LogPosition(log_id, epoch, head), row["hash"]):
        return events, ()
    return events, (f"log {log_id} of {row['origin']}: its events up to sequence {head} are not those of its receipts",)


async def _verify_chains(connection: asyncpg.Connection[asyncpg.Record]) -> tuple[int, int, list[str]]:
    chains = events = 0
    problems: list[str] = []
    known: ChainPoint | None = None
    for row in await connection.fetch(POINTS):
        point = ChainPoint(LogPosition(str(row["log_id"]), row["epoch"], row["sequence"]), row["hash"])
        if known is None or known.place.log_id != point.place.log_id:
            known, chains = point, chains + 1
            continue
        async for ids in _ids(connection, known.place, point.place.sequence):
            known = fold(known, ids, [])
            events += len(ids)
        if known != point:
            problems.append(
                f"log {point.place.log_id}: its events up to sequence {point.place.sequence} are not those of its receipts"
            )
            known = point
    return chains, events, problems


async def _ids(
    connection: asyncpg.Connection[asyncpg.Record], after: LogPosition, upto: int
) -> AsyncIterator[list[str]]:
    start = after.sequence
    while start < upto:
        rows = await connection.fetch(
            "SELECT event_id FROM log_events WHERE log_id = $1 AND sequence > $2 AND sequence <= $3 ORDER BY sequence",
            after.log_id,
            start,
            min(upto, start + READ_IDS),
        )
        if not rows:
            return
        start += len(rows)
        yield [row["event_id"] for row in rows]
