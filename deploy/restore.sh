#!/bin/sh
# `deploy/restore.sh FILE URL` restores a backup into an empty database, in one transaction. Stop the database's servers first.
# `URL` may be a file with the URL, so that the password is not shown in process lists.
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
# New epochs tell clients that events they have read may be lost. Mirrored logs keep the epoch of their origin, or they would
# start again, empty.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$database" <<'SQL' ||
BEGIN;
UPDATE log_history SET renewals = renewals + 1, lineage = NULL, database = gen_random_uuid();
UPDATE logs SET epoch = 2 + trunc(random() * 9007199254740990)::bigint
WHERE NOT EXISTS (SELECT FROM federation_mirrors AS m WHERE m.log_id = logs.log_id);
COMMIT;
SQL
    { echo "restore.sh: restored, but channels have their old epochs: run openguild-server migrate --new-epoch" >&2; exit 1; }
