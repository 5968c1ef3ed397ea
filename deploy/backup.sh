#!/bin/sh
# `deploy/backup.sh URL FILE`: the whole database as one consistent file. Runs beside a serving server.
set -eu
umask 077
pg_dump --format=custom --compress=6 --no-owner --no-privileges --dbname="$1" --file="$2.part"
mv "$2.part" "$2"
