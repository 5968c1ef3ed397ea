"""Attempts to log in or register, counted for all replicas together. Expands only: the release before does not look."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE login_attempts (
    key      bytea NOT NULL,
    at       timestamptz NOT NULL,
    attempts integer NOT NULL,
    PRIMARY KEY (key, at)
) WITH (fillfactor = 70);
COMMENT ON TABLE login_attempts IS 'admitted attempts, in sixtieths of the window; `key` is a digest of an address or a name';
CREATE INDEX login_attempts_at ON login_attempts (at);
"""

# The locks make replicas that ask about one key take turns; each statement then sees what the one before committed.
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


def upgrade() -> None:
    for statement in TABLE.split(";\n"):
        if statement.strip():
            op.execute(statement.strip())
    op.execute(COUNT.strip())
