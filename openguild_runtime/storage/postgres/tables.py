"""The tables that this release uses: those of `migrations/first`, without partitions and the version of the schema."""

from __future__ import annotations

TABLES = (
    "channel_memberships", "channel_read_state", "channels", "control_head", "control_log", "deleted_logs", "federation_chains",
    "federation_checkpoints", "federation_cursors", "federation_guilds", "federation_handovers", "federation_history",
    "federation_keys", "federation_leases", "federation_mirrors", "federation_moves", "federation_nonces", "federation_partings",
    "federation_peer_keys", "federation_peers", "federation_rulings", "federation_successions", "guild_bans", "guild_memberships",
    "guild_timeouts",
    "guilds", "idempotency_keys", "invites", "log_events", "log_history", "login_attempts", "login_blocks", "logs", "mentions",
    "mentions_of_many", "message_states", "reactions", "refresh_families", "refresh_tokens", "schema_serves", "search_documents",
    "search_progress", "sessions", "user_roles", "users",
)  # fmt: skip

LOOK_AT_EACH = "; ".join(f"SELECT FROM {table} LIMIT 0" for table in TABLES)
"""Reads no rows, and fails with the name of a table that is missing or may not be read."""
