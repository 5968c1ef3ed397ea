"""Other servers, their nonces, and the keys of this server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from openguild_proto.effects.federation import (
    FederatedGuild,
    FindPeer,
    FindReadable,
    ListFederatedGuilds,
    ListGuildHomes,
    ListOwnKeys,
    ListPeers,
    NoteContact,
    OwnKey,
    Peer,
    PublishedKey,
    RecordOwnKey,
    RememberNonce,
    RevokeOwnKey,
    RuleServer,
    Ruling,
    StorePeer,
)
from openguild_proto.effects.performs import performs
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import (
    Connection,
    Row,
    moment,
    moment_or_none,
    rows_changed,
    texts,
    to_millis_or_none,
)

if TYPE_CHECKING:
    from openguild_runtime.storage.postgres.transaction import Transaction

MS = "(extract(epoch FROM {0}) * 1000)::bigint"
KEY = f"""jsonb_build_object(
    'key_id', key_id, 'public_key', encode(public_key, 'base64'), 'not_before', {MS.format("not_before")},
    'not_after', {MS.format("not_after")}, 'revoked_at', {MS.format("revoked_at")}
)"""
PEER = f"""
SELECT p.server, p.base_url, p.checked_at, p.contacted_at,
    (SELECT jsonb_agg({KEY} ORDER BY not_before DESC, key_id) FROM federation_peer_keys AS k WHERE k.server = p.server)::text
        AS keys,
    (SELECT jsonb_agg(jsonb_build_object('standing', standing, 'reason', reason, 'guild_id', nullif(guild_id, ''))
        ORDER BY guild_id) FROM federation_rulings AS r WHERE r.server = p.server)::text AS rulings
FROM federation_peers AS p
"""
STORE_KEYS = """
INSERT INTO federation_peer_keys AS k (server, key_id, public_key, not_before, not_after, revoked_at)
SELECT $1, * FROM unnest($2::text[], $3::bytea[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[])
ON CONFLICT (server, key_id) DO UPDATE SET
    not_before = least(k.not_before, excluded.not_before), not_after = greatest(k.not_after, excluded.not_after),
    revoked_at = least(k.revoked_at, excluded.revoked_at)
WHERE k.public_key = excluded.public_key
"""
# Committed without waiting for the disk: a crash of the database loses the nonces of a fraction of a second.
NONCE = """
WITH gone AS (
    DELETE FROM federation_nonces WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM federation_nonces WHERE until < $4 ORDER BY until LIMIT 4 FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO federation_nonces (server, nonce, until)
SELECT $1::text, $2::text, $3::timestamptz FROM set_config('synchronous_commit', 'off', true)
ON CONFLICT DO NOTHING RETURNING true
"""
OWN_KEY = """
INSERT INTO federation_keys AS k (key_id, public_key, not_before, not_after) SELECT $1, $2, $3, $4
WHERE (SELECT count(*) FROM federation_keys WHERE key_id <> $1) < $5
ON CONFLICT (key_id) DO UPDATE SET not_after = greatest(k.not_after, excluded.not_after)
WHERE k.public_key = excluded.public_key AND k.revoked_at IS NULL
RETURNING true
"""
GUILDS = """
SELECT guild_id, g.name, g.origin,
    coalesce(array_agg(f.peer ORDER BY f.peer) FILTER (WHERE f.peer IS NOT NULL AND f.ended_at IS NULL), '{}') AS mirrored_by,
    coalesce(array_agg(f.peer ORDER BY f.peer) FILTER (WHERE f.ended_at IS NOT NULL AND f.purged_at IS NULL), '{}') AS purging
FROM guilds AS g FULL JOIN federation_guilds AS f USING (guild_id)
WHERE g.origin IS NOT NULL OR f.peer IS NOT NULL
GROUP BY guild_id, g.name, g.origin ORDER BY guild_id LIMIT $1
"""
READABLE = """
SELECT c.guild_id FROM channels AS c WHERE c.channel_id = $2 AND c.origin IS NULL AND (
    EXISTS (
        SELECT FROM guild_memberships AS m JOIN users AS u USING (user_id)
        WHERE m.guild_id = c.guild_id AND u.origin = $1
    ) OR EXISTS (
        SELECT FROM channel_memberships AS m JOIN users AS u USING (user_id)
        WHERE m.channel_id = c.channel_id AND u.origin = $1
    )
)
"""

_keys = msgspec.json.Decoder(tuple[PublishedKey, ...])
_rulings = msgspec.json.Decoder(tuple[Ruling, ...])


def peer_of(row: Row) -> Peer:
    """Return the peer of a row of PEER."""
    return Peer(
        row["server"],
        row["base_url"],
        _keys.decode(row["keys"] or "[]"),
        to_millis_or_none(row["checked_at"]) or 0,
        to_millis_or_none(row["contacted_at"]) or 0,
        _rulings.decode(row["rulings"] or "[]"),
    )


@performs(FindPeer, Mode.QUERY)
async def find_peer(connection: Connection, effect: FindPeer) -> Peer | None:
    row = await connection.fetchrow(f"{PEER} WHERE p.server = $1", effect.server)
    return peer_of(row) if row is not None else None


@performs(StorePeer, Mode.TRANSACTION)
async def store_peer(tx: Transaction, effect: StorePeer) -> None:
    await tx.connection.execute(
        """
        INSERT INTO federation_peers (server, base_url, checked_at) VALUES ($1, $2, $3)
        ON CONFLICT (server) DO UPDATE SET base_url = excluded.base_url, checked_at = excluded.checked_at
        """,
        effect.server,
        effect.base_url,
        moment(effect.checked_ms),
    )
    await tx.connection.execute(
        STORE_KEYS,
        effect.server,
        [key.key_id for key in effect.keys],
        [key.public_key for key in effect.keys],
        [moment(key.not_before) for key in effect.keys],
        [moment(key.not_after) for key in effect.keys],
        [moment_or_none(key.revoked_at) for key in effect.keys],
    )


@performs(NoteContact, Mode.CHANGE)
async def note_contact(connection: Connection, effect: NoteContact) -> None:
    await connection.execute(
        """
        INSERT INTO federation_peers AS p (server, contacted_at) VALUES ($1, $2)
        ON CONFLICT (server) DO UPDATE SET contacted_at = greatest(p.contacted_at, excluded.contacted_at)
        """,
        effect.server,
        moment(effect.contacted_ms),
    )


@performs(RememberNonce, Mode.CHANGE)
async def remember_nonce(connection: Connection, effect: RememberNonce) -> bool:
    new = await connection.fetchval(NONCE, effect.server, effect.nonce, moment(effect.until_ms), moment(effect.now_ms))
    return new is not None


@performs(RecordOwnKey, Mode.CHANGE)
async def record_own_key(connection: Connection, effect: RecordOwnKey) -> OwnKey:
    recorded = await connection.fetchval(
        OWN_KEY, effect.key_id, effect.public_key, moment(effect.now_ms), moment(effect.not_after), effect.at_most
    )
    if recorded:
        return OwnKey.IN_USE
    is_known = await connection.fetchval("SELECT true FROM federation_keys WHERE key_id = $1", effect.key_id)
    return OwnKey.REFUSED if is_known else OwnKey.TOO_MANY


@performs(ListOwnKeys, Mode.QUERY)
async def list_own_keys(connection: Connection, effect: ListOwnKeys) -> tuple[PublishedKey, ...]:
    del effect
    text = await connection.fetchval(
        f"SELECT jsonb_agg({KEY} ORDER BY not_before DESC, key_id)::text FROM federation_keys"
    )
    return _keys.decode(text or "[]")


@performs(RevokeOwnKey, Mode.CHANGE)
async def revoke_own_key(connection: Connection, effect: RevokeOwnKey) -> bool:
    status = await connection.execute(
        "UPDATE federation_keys SET revoked_at = $2 WHERE key_id = $1 AND revoked_at IS NULL",
        effect.key_id,
        moment(effect.revoked_at),
    )
    return rows_changed(status) > 0


@performs(ListPeers, Mode.QUERY)
async def list_peers(connection: Connection, effect: ListPeers) -> tuple[Peer, ...]:
    rows = await connection.fetch(
        f'{PEER} WHERE p.server > $1 COLLATE "C" ORDER BY p.server COLLATE "C" LIMIT $2', effect.after, effect.limit
    )
    return tuple(peer_of(row) for row in rows)


@performs(RuleServer, Mode.TRANSACTION)
async def rule_server(tx: Transaction, effect: RuleServer) -> None:
    guild_id = effect.guild_id or ""
    if effect.standing is None:
        await tx.connection.execute(
            "DELETE FROM federation_rulings WHERE server = $1 AND guild_id = $2", effect.server, guild_id
        )
        return
    await tx.connection.execute(
        "INSERT INTO federation_peers (server) VALUES ($1) ON CONFLICT DO NOTHING", effect.server
    )
    await tx.connection.execute(
        """
        INSERT INTO federation_rulings (server, guild_id, standing, reason, decided_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (server, guild_id) DO UPDATE SET standing = excluded.standing, reason = excluded.reason,
            decided_at = excluded.decided_at
        """,
        effect.server,
        guild_id,
        effect.standing.value,
        effect.reason,
        moment(effect.now_ms),
    )


@performs(ListFederatedGuilds, Mode.QUERY)
async def list_federated_guilds(connection: Connection, effect: ListFederatedGuilds) -> tuple[FederatedGuild, ...]:
    return tuple(
        FederatedGuild(
            str(row["guild_id"]), row["name"], row["origin"], texts(row["mirrored_by"]), texts(row["purging"])
        )
        for row in await connection.fetch(GUILDS, effect.limit)
    )


@performs(ListGuildHomes, Mode.QUERY)
async def list_guild_homes(connection: Connection, effect: ListGuildHomes) -> tuple[str, ...]:
    rows = await connection.fetch(
        """
        SELECT DISTINCT u.origin COLLATE "C" AS origin FROM guild_memberships AS m JOIN users AS u USING (user_id)
        WHERE m.guild_id = $1 AND u.origin IS NOT NULL ORDER BY 1
        """,
        effect.guild_id,
    )
    return tuple(row["origin"] for row in rows)


@performs(FindReadable, Mode.QUERY)
async def find_readable(connection: Connection, effect: FindReadable) -> str | None:
    guild_id = await connection.fetchval(READABLE, effect.server, effect.channel_id)
    return str(guild_id) if guild_id is not None else None
