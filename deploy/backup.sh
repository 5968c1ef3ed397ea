#!/bin/sh
# `deploy/backup.sh URL FILE`: the whole database as one consistent file. Runs beside a serving server.
# `URL` may be a file that holds the URL; then no process's arguments show the password. A backup that fails leaves nothing behind.
set -eu
umask 077
case $#,${2-} in 2,*://* | [!2],*) echo "usage: deploy/backup.sh URL FILE" >&2; exit 2 ;; esac
. "$(dirname "$0")/database-url.sh"
use_database "$1"
trap 'rm -f -- "$2.part"' EXIT
trap 'exit 130' INT TERM HUP
pg_dump --format=custom --compress=6 --no-owner --no-privileges --dbname="$database" --file="$2.part"
mv -- "$2.part" "$2"
