#!/bin/sh
# `deploy/backup.sh URL FILE`: the whole database as one consistent file. Runs beside a serving server.
# `URL` may be a file that holds the URL; then no process's arguments show the password. A backup that fails leaves nothing behind.
set -eu
umask 077
case $#,${2-} in 2,*://* | [!2],*) echo "usage: deploy/backup.sh URL FILE" >&2; exit 2 ;; esac
[ ! -d "$2" ] || { echo "backup.sh: $2 is a directory: name a file in it" >&2; exit 2; }
. "$(dirname "$0")/database-url.sh"
use_database "$1"
trap 'rm -f -- "$2.part"' EXIT
trap 'exit 130' INT TERM HUP
pg_dump --format=custom --compress=6 --no-owner --no-privileges --dbname="$database" --file="$2.part"
mv -- "$2.part" "$2"
