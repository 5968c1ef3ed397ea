"""The first schema: accounts, sessions, guilds, channels with dense logs, read positions, the control log."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ACCOUNTS = """
CREATE TABLE users (
    user_id       uuid PRIMARY KEY,
    username      text NOT NULL,
    username_key  text NOT NULL UNIQUE,
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);
COMMENT ON COLUMN users.username_key IS 'case-folded NFKC name: unique whatever the case';

CREATE TABLE user_roles (
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role       text NOT NULL,
    granted_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, role)
);

CREATE TABLE refresh_families (
    family_id     uuid PRIMARY KEY,
    user_id       uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    device_id     text NOT NULL,
    device_name   text,
    user_agent    text,
    ip_address    text,
    created_at    timestamptz NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    current_hash  bytea NOT NULL,
    previous_hash bytea,
    rotated_at    timestamptz,
    revoked_at    timestamptz
);
COMMENT ON TABLE refresh_families IS 'a login on one device and every refresh token rotated out of it; tokens as hashes only';
CREATE UNIQUE INDEX refresh_families_living ON refresh_families (user_id, device_id) WHERE revoked_at IS NULL;
CREATE INDEX refresh_families_user ON refresh_families (user_id, expires_at);

CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    family_id  uuid NOT NULL REFERENCES refresh_families ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family_id);

CREATE TABLE sessions (
    session_id uuid PRIMARY KEY,
    family_id  uuid NOT NULL REFERENCES refresh_families ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_family ON sessions (family_id);
CREATE INDEX sessions_user ON sessions (user_id);
"""

GUILDS = """
CREATE TABLE guilds (
    guild_id   uuid PRIMARY KEY,
    name       text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX guilds_created ON guilds (created_at, guild_id);

CREATE TABLE guild_memberships (
    guild_id  uuid NOT NULL REFERENCES guilds ON DELETE CASCADE,
    user_id   uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role      text NOT NULL,
    joined_at timestamptz NOT NULL,
    PRIMARY KEY (guild_id, user_id)
);
CREATE INDEX guild_memberships_user ON guild_memberships (user_id);
CREATE INDEX guild_memberships_joined ON guild_memberships (guild_id, joined_at, user_id);

CREATE TABLE invites (
    code       text PRIMARY KEY,
    guild_id   uuid NOT NULL REFERENCES guilds ON DELETE CASCADE,
    created_by uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    max_uses   integer,
    uses       integer NOT NULL DEFAULT 0,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    CHECK (uses >= 0 AND (max_uses IS NULL OR uses <= max_uses))
);
CREATE INDEX invites_guild ON invites (guild_id);
CREATE INDEX invites_creator ON invites (created_by);
"""

CHANNELS = """
CREATE TABLE channels (
    channel_id    uuid PRIMARY KEY,
    guild_id      uuid NOT NULL REFERENCES guilds ON DELETE CASCADE,
    name          text NOT NULL,
    created_at    timestamptz NOT NULL,
    head_sequence bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
COMMENT ON COLUMN channels.head_sequence IS 'sequence of the newest event; raised under the lock of this row';
CREATE INDEX channels_guild ON channels (guild_id, created_at, channel_id);

CREATE TABLE channel_memberships (
    channel_id uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role       text NOT NULL,
    joined_at  timestamptz NOT NULL,
    PRIMARY KEY (channel_id, user_id)
);
CREATE INDEX channel_memberships_user ON channel_memberships (user_id);

CREATE TABLE channel_events (
    channel_id  uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    sequence    bigint NOT NULL CHECK (sequence > 0),
    event_id    text NOT NULL UNIQUE,
    event_type  text NOT NULL,
    sender_id   text NOT NULL,
    canonical   bytea NOT NULL,
    wire        bytea NOT NULL,
    body        jsonb NOT NULL,
    nonce       text,
    fingerprint bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (channel_id, sequence)
);
COMMENT ON COLUMN channel_events.canonical IS 'the hashed bytes: jsonb rewrites numbers, so it cannot give them back';
COMMENT ON COLUMN channel_events.wire IS 'the event as clients get it, id and signatures filled in';
CREATE UNIQUE INDEX channel_events_nonce ON channel_events (channel_id, sender_id, nonce) WHERE nonce IS NOT NULL;

CREATE TABLE channel_read_state (
    channel_id         uuid NOT NULL REFERENCES channels ON DELETE CASCADE,
    user_id            uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    last_read_sequence bigint NOT NULL,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (channel_id, user_id)
);
CREATE INDEX channel_read_state_user ON channel_read_state (user_id);
"""

CONTROL = """
CREATE TABLE control_log (
    sequence    bigint PRIMARY KEY,
    kind        text NOT NULL,
    guild_id    uuid,
    channel_id  uuid,
    user_id     uuid,
    session_ids uuid[] NOT NULL,
    body        json,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE control_log IS 'what replicas must hear about; numbered without holes, in the order of commits';

CREATE TABLE control_head (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    sequence bigint NOT NULL
);
INSERT INTO control_head (sequence) VALUES (0);
"""

# Two statements in one round trip. The second sees what was committed before the first got its locks, because each
# statement of a volatile function has its own snapshot. No two rows of a call share a nonce or an event id.
APPEND = """
CREATE FUNCTION append_events_v1(
    channel_ids uuid[], sender_ids text[], event_ids text[], event_types text[], canonicals bytea[], wires bytea[],
    nonces text[], fingerprints bytea[], moments timestamptz[]
) RETURNS TABLE (
    place bigint, sequence bigint, stored boolean, event_id text, fingerprint bytea, wire bytea, created_at timestamptz
) LANGUAGE sql VOLATILE AS $function$
SELECT FROM channels WHERE channel_id = ANY (channel_ids) ORDER BY channel_id FOR NO KEY UPDATE;

WITH given AS (
    SELECT * FROM unnest(
        channel_ids, sender_ids, event_ids, event_types, canonicals, wires, nonces, fingerprints, moments
    ) WITH ORDINALITY AS row (
        channel_id, sender_id, event_id, event_type, canonical, wire, nonce, fingerprint, created_at, place
    )
), known AS (
    SELECT given.place, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at, e.channel_id = given.channel_id AS here
    FROM given, LATERAL (
        SELECT * FROM channel_events AS e
        WHERE e.channel_id = given.channel_id AND e.sender_id = given.sender_id AND e.nonce = given.nonce
        UNION
        SELECT * FROM channel_events AS e WHERE e.event_id = given.event_id
        LIMIT 1
    ) AS e
), fresh AS (
    SELECT given.*,
        c.head_sequence + row_number() OVER (PARTITION BY given.channel_id ORDER BY given.place) AS sequence
    FROM given JOIN channels AS c USING (channel_id)
    WHERE NOT EXISTS (SELECT FROM known WHERE known.place = given.place)
), raised AS (
    UPDATE channels AS c SET head_sequence = last.sequence
    FROM (SELECT channel_id, max(sequence) AS sequence FROM fresh GROUP BY channel_id) AS last
    WHERE c.channel_id = last.channel_id
), inserted AS (
    INSERT INTO channel_events
        (channel_id, sequence, event_id, event_type, sender_id, canonical, wire, body, nonce, fingerprint, created_at)
    SELECT channel_id, sequence, event_id, event_type, sender_id, canonical, wire,
        convert_from(wire, 'UTF8')::jsonb, nonce, fingerprint, created_at
    FROM fresh
)
SELECT place, sequence, true, NULL::text, NULL::bytea, NULL::bytea, NULL::timestamptz FROM fresh
UNION ALL
SELECT place, CASE WHEN here THEN sequence END, false, event_id, fingerprint, wire, created_at FROM known
$function$;
"""


def upgrade() -> None:
    for part in (ACCOUNTS, GUILDS, CHANNELS, CONTROL):
        for statement in part.split(";\n"):
            if statement.strip():
                op.execute(statement.strip())
    op.execute(APPEND.strip().removesuffix(";"))
