"""Tables of other servers and of this server's keys."""

PEERS = """
CREATE TABLE federation_peers (
    server       text PRIMARY KEY,
    base_url     text,
    checked_at   timestamptz,
    contacted_at timestamptz
) WITH (fillfactor = 70);
COMMENT ON COLUMN federation_peers.checked_at IS 'when base_url and keys were read from the server';
COMMENT ON COLUMN federation_peers.contacted_at IS 'when it was last heard of with a good signature';

CREATE TABLE federation_peer_keys (
    server     text NOT NULL REFERENCES federation_peers ON DELETE CASCADE,
    key_id     text NOT NULL,
    public_key bytea NOT NULL,
    not_before timestamptz NOT NULL,
    not_after  timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (server, key_id)
);
COMMENT ON TABLE federation_peer_keys IS 'all keys that a server ever had: old events are verified with them';

CREATE TABLE federation_rulings (
    server     text NOT NULL REFERENCES federation_peers ON DELETE CASCADE,
    guild_id   text NOT NULL,
    standing   text NOT NULL CHECK (standing IN ('allow', 'deny', 'quarantine')),
    reason     text NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (server, guild_id)
);
COMMENT ON COLUMN federation_rulings.guild_id IS 'empty: for everything of the server';

CREATE UNLOGGED TABLE federation_nonces (
    server text NOT NULL,
    nonce  text NOT NULL,
    until  timestamptz NOT NULL,
    PRIMARY KEY (server, nonce)
);
COMMENT ON TABLE federation_nonces IS 'of requests of other servers, until they are too old; empty after a crash of the database';
CREATE INDEX federation_nonces_until ON federation_nonces (until);

CREATE TABLE federation_keys (
    key_id     text PRIMARY KEY,
    public_key bytea NOT NULL,
    not_before timestamptz NOT NULL,
    not_after  timestamptz NOT NULL,
    revoked_at timestamptz
);
COMMENT ON TABLE federation_keys IS 'the public keys that this server ever had; not_after moves on while one is in use';
"""
