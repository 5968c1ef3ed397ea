"""Tables of accounts, guilds, the control log, and the state of the database itself. For the logs of events see logs.py."""

ACCOUNTS = """
CREATE TABLE users (
    user_id       uuid PRIMARY KEY,
    username      text NOT NULL,
    username_key  text NOT NULL UNIQUE,
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    display_name  text,
    origin        text
);
COMMENT ON COLUMN users.origin IS 'home server of a remote user, who cannot log in here; NULL: this server';
COMMENT ON COLUMN users.username_key IS 'case-folded NFKC name: unique whatever the case';
CREATE INDEX users_origin ON users (origin, user_id) WHERE origin IS NOT NULL;

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
    secret        bytea NOT NULL,
    current_hash  bytea NOT NULL,
    previous_hash bytea,
    rotated_at    timestamptz,
    revoked_at    timestamptz
);
COMMENT ON TABLE refresh_families IS 'a login on one device and every refresh token rotated out of it; tokens as hashes only';
COMMENT ON COLUMN refresh_families.secret IS 'what its tokens are derived from; without the token before it is worth nothing';
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
    created_at timestamptz NOT NULL,
    origin     text,
    term       bigint NOT NULL DEFAULT 1,
    serial     bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN guilds.origin IS 'owner server of a mirrored guild; NULL: this server';
COMMENT ON COLUMN guilds.term IS 'of its owner server, one more with each hand-over';
COMMENT ON COLUMN guilds.serial IS 'of the newest naming of a successor';
CREATE INDEX guilds_created ON guilds (created_at, guild_id);
CREATE INDEX guilds_origin ON guilds (origin, guild_id) WHERE origin IS NOT NULL;

CREATE TABLE guild_memberships (
    guild_id  uuid NOT NULL REFERENCES guilds ON DELETE CASCADE,
    user_id   uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role      text NOT NULL,
    joined_at timestamptz NOT NULL,
    PRIMARY KEY (guild_id, user_id)
);
CREATE INDEX guild_memberships_user ON guild_memberships (user_id);
CREATE INDEX guild_memberships_joined ON guild_memberships (guild_id, joined_at, user_id);
CREATE INDEX guild_memberships_owners ON guild_memberships (guild_id) WHERE role = 'owner';

CREATE TABLE guild_bans (
    guild_id  uuid NOT NULL REFERENCES guilds ON DELETE CASCADE,
    user_id   uuid NOT NULL,
    banned_by uuid NOT NULL,
    banned_at timestamptz NOT NULL,
    username  text,
    reason    text,
    PRIMARY KEY (guild_id, user_id)
);
COMMENT ON TABLE guild_bans IS 'who may not join a guild; the user need not be known here';
CREATE INDEX guild_bans_banned ON guild_bans (guild_id, banned_at, user_id);

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

# A contracting step raises `serves_from` in its transaction, so that releases that cannot use the new schema refuse to serve.
HISTORY = """
CREATE TABLE log_history (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    lineage  text,
    renewals bigint NOT NULL DEFAULT 0,
    database uuid NOT NULL DEFAULT gen_random_uuid()
);
COMMENT ON COLUMN log_history.lineage IS 'cluster and timeline for which the logs have their epochs; NULL: not recorded yet';
COMMENT ON COLUMN log_history.renewals IS 'how often every log was given a new epoch';
COMMENT ON COLUMN log_history.database IS 'by which replicas of one database know each other; given anew with the epochs';
INSERT INTO log_history DEFAULT VALUES;

CREATE TABLE schema_serves (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    serves_from text NOT NULL
);
COMMENT ON COLUMN schema_serves.serves_from IS 'releases whose own newest step is this one or later work with this schema';
INSERT INTO schema_serves (serves_from) VALUES ('0001');
"""

KEYS = """
CREATE TABLE idempotency_keys (
    user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    answer      bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);
COMMENT ON TABLE idempotency_keys IS 'what creations with a key made, for a day: a repeat gets the same answer';
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
"""

ATTEMPTS = """
CREATE TABLE login_attempts (
    key      bytea NOT NULL,
    at       timestamptz NOT NULL,
    attempts integer NOT NULL,
    PRIMARY KEY (key, at)
) WITH (fillfactor = 70);
COMMENT ON TABLE login_attempts IS 'admitted attempts, in sixtieths of the window; `key` is a digest of an address or a name';
CREATE INDEX login_attempts_at ON login_attempts (at);

CREATE TABLE login_blocks (
    key     bytea PRIMARY KEY,
    kind    text NOT NULL,
    name    text NOT NULL,
    ends_at timestamptz NOT NULL
);
COMMENT ON TABLE login_blocks IS 'logins that operators refuse for a while; `key` as in login_attempts';
"""

# Calls with the same key wait for each other's locks, so that each statement sees what the previous one has committed.
COUNT = """
CREATE FUNCTION count_attempt_v1(keys bytea[], limits integer[], window_secs integer, moment timestamptz)
RETURNS double precision LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    width interval := make_interval(secs => window_secs / 60.0);
    start timestamptz := moment - make_interval(secs => window_secs) - width;
    wait  double precision;
BEGIN
    PERFORM pg_advisory_xact_lock(hash) FROM (
        SELECT DISTINCT hashtextextended(encode(key, 'hex'), 0) AS hash FROM unnest(keys) AS key ORDER BY hash
    ) AS ordered;

    SELECT max(extract(epoch FROM b.ends_at - moment)) INTO wait FROM login_blocks AS b
    WHERE b.key = ANY (keys) AND b.ends_at > moment;
    IF wait IS NOT NULL THEN
        RETURN wait;
    END IF;

    SELECT max(extract(epoch FROM found.oldest - start)) INTO wait
    FROM unnest(keys, limits) AS asked (key, most), LATERAL (
        SELECT min(at) AS oldest, sum(attempts) AS admitted FROM login_attempts AS a
        WHERE a.key = asked.key AND a.at > start
    ) AS found
    WHERE found.admitted >= asked.most;

    IF wait IS NULL THEN
        INSERT INTO login_attempts AS a (key, at, attempts)
        SELECT key, date_bin(width, moment, 'epoch'), 1 FROM unnest(keys) AS key
        ON CONFLICT (key, at) DO UPDATE SET attempts = a.attempts + 1;
    END IF;

    DELETE FROM login_attempts WHERE (key, at) IN (
        SELECT a.key, a.at FROM login_attempts AS a WHERE a.at < start - make_interval(secs => window_secs)
        ORDER BY a.at LIMIT 20 FOR UPDATE SKIP LOCKED
    );
    RETURN wait;
END
$function$
"""
