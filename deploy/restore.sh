#!/bin/sh
# `deploy/restore.sh FILE URL`: into an empty database, in one transaction. Stop the servers of that database first.
set -eu
pg_restore --no-owner --no-privileges --exit-on-error --single-transaction --dbname="$2" "$1"
