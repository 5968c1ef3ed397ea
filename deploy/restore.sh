#!/bin/sh
# `deploy/restore.sh FILE URL`: into an empty database, in one transaction. Stop the servers of that database first.
# `URL` may be a file that holds the URL; then no process's arguments show the password.
set -eu
. "$(dirname "$0")/database-url.sh"
use_database "$2"
pg_restore --no-owner --no-privileges --exit-on-error --single-transaction --dbname="$database" "$1"
