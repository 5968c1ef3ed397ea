"""Tables of guilds mirrored by other servers, and of mirrors of other servers' guilds."""

OWNER = """
CREATE TABLE federation_guilds (
    peer     text NOT NULL,
    guild_id uuid NOT NULL,
    since    timestamptz NOT NULL,
    ended_at timestamptz,
    last_sequence bigint,
    purged_at timestamptz,
    PRIMARY KEY (peer, guild_id)
);
COMMENT ON TABLE federation_guilds IS 'guilds of this server that a peer mirrors, or still has to purge';
COMMENT ON COLUMN federation_guilds.ended_at IS 'without a member of the peer, or with the guild: it must purge its mirror';
COMMENT ON COLUMN federation_guilds.last_sequence IS 'of the guild log, where it has ended: the last event that the peer gets';
COMMENT ON COLUMN federation_guilds.purged_at IS 'when the peer said that it has';
CREATE INDEX federation_guilds_guild ON federation_guilds (guild_id);

CREATE TABLE federation_cursors (
    peer     text NOT NULL,
    log_id   uuid NOT NULL REFERENCES logs ON DELETE CASCADE,
    epoch    bigint NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (peer, log_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE federation_cursors IS 'up to where a peer has a log; without a row for a channel of a guild it mirrors: 0';
CREATE INDEX federation_cursors_log ON federation_cursors (log_id);

CREATE TABLE federation_leases (
    peer   text PRIMARY KEY,
    holder text NOT NULL,
    until  timestamptz NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE federation_leases IS 'which process delivers to a peer';

CREATE TABLE federation_chains (
    log_id   uuid PRIMARY KEY REFERENCES logs ON DELETE CASCADE,
    epoch    bigint NOT NULL,
    sequence bigint NOT NULL,
    hash     bytea NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE federation_chains IS 'the receipt chain of a log, as far as it has been computed';

CREATE TABLE federation_checkpoints (
    log_id   uuid NOT NULL REFERENCES federation_chains ON DELETE CASCADE,
    epoch    bigint NOT NULL,
    sequence bigint NOT NULL,
    hash     bytea NOT NULL,
    PRIMARY KEY (log_id, epoch, sequence)
);
COMMENT ON TABLE federation_checkpoints IS 'values of receipt chains: where each begins, and some on the way';
"""

MIRROR = """
CREATE TABLE federation_mirrors (
    log_id   uuid PRIMARY KEY,
    guild_id uuid NOT NULL REFERENCES guilds ON DELETE CASCADE,
    hash     bytea,
    receipt  bytea,
    first_sequence bigint,
    first_hash     bytea,
    copied   bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN federation_mirrors.copied IS 'up to here the history of the log is here, for a server that takes the guild';
COMMENT ON TABLE federation_mirrors IS 'logs of mirrored guilds, with the receipt chain at their heads';
COMMENT ON COLUMN federation_mirrors.first_hash IS 'of the chain at first_sequence, where the mirror began';
CREATE INDEX federation_mirrors_guild ON federation_mirrors (guild_id);

CREATE TABLE federation_partings (
    origin   text NOT NULL,
    guild_id uuid NOT NULL,
    user_id  uuid NOT NULL,
    due_at   timestamptz NOT NULL,
    PRIMARY KEY (origin, guild_id, user_id)
);
COMMENT ON TABLE federation_partings IS
    'users who are no members of a guild, and whom its owner may hold for members; also those whose account is deleted';
CREATE INDEX federation_partings_due ON federation_partings (due_at);
"""
