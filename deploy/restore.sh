#!/bin/sh
# `deploy/restore.sh FILE URL`: into an empty database, in one transaction. Stop the servers of that database first.
# `URL` may be a file that holds the URL; then no process's arguments show the password.
set -eu
[ $# = 2 ] || { echo "usage: deploy/restore.sh FILE URL" >&2; exit 2; }
[ -r "$1" ] || { echo "restore.sh: no backup can be read at $1 (usage: deploy/restore.sh FILE URL)" >&2; exit 2; }
. "$(dirname "$0")/database-url.sh"
use_database "$2"
refuse_pooler
tables=$(psql --no-psqlrc --quiet --tuples-only --no-align --dbname="$database" --command="SELECT count(*) FROM pg_catalog.pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)")
if [ "${tables:-0}" != 0 ]; then
    echo "restore.sh: the database has $tables tables: rename it, create an empty one and restore into that (docs/operations.md, Restore)" >&2
    exit 1
fi
pg_restore --no-owner --no-privileges --exit-on-error --single-transaction --dbname="$database" "$1"
# Clients may have read what is gone now: a new epoch tells them so. A mirrored log counts in the epoch of its origin: it would begin anew, empty.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$database" <<'SQL' ||
BEGIN;
UPDATE log_history SET renewals = renewals + 1, lineage = NULL, database = gen_random_uuid();
UPDATE logs SET epoch = 2 + trunc(random() * 9007199254740990)::bigint
WHERE NOT EXISTS (SELECT FROM federation_mirrors AS m WHERE m.log_id = logs.log_id);
COMMIT;
SQL
    { echo "restore.sh: restored, but channels have their old epochs: run openguild-server migrate --new-epoch" >&2; exit 1; }
