"""Tables for handovers of guilds between servers."""

HANDOVERS = """
CREATE TABLE federation_handovers (
    guild_id  uuid NOT NULL,
    term      bigint NOT NULL,
    statement bytea NOT NULL,
    PRIMARY KEY (guild_id, term)
);
COMMENT ON TABLE federation_handovers IS 'statements that this server has made or followed; they outlive the guild here';

CREATE TABLE federation_successions (
    guild_id  uuid PRIMARY KEY REFERENCES guilds ON DELETE CASCADE,
    statement bytea NOT NULL
);
COMMENT ON TABLE federation_successions IS 'the server that may go on with a guild of this server when it is lost';

CREATE TABLE federation_moves (
    guild_id uuid PRIMARY KEY REFERENCES guilds ON DELETE CASCADE,
    server   text NOT NULL,
    began_at timestamptz NOT NULL,
    term     bigint,
    note     text NOT NULL DEFAULT ''
);
COMMENT ON TABLE federation_moves IS 'guilds that are being moved to another server';
COMMENT ON COLUMN federation_moves.term IS 'of the hand-over; NULL: the guild is still of this server';

CREATE TABLE federation_history (
    log_id      uuid NOT NULL REFERENCES logs ON DELETE CASCADE,
    sequence    bigint NOT NULL,
    event_id    text NOT NULL,
    wire        bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    nonce       text,
    fingerprint bytea NOT NULL,
    PRIMARY KEY (log_id, sequence)
);
COMMENT ON TABLE federation_history IS 'of logs whose guild this server takes over, until it is a part of them';
CREATE UNIQUE INDEX federation_history_event ON federation_history (log_id, event_id);
"""
