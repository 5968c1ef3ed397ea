#!/bin/sh
# `deploy/backup.sh URL FILE [METRICS]` writes the whole database to one consistent file. Servers may run meanwhile.
# `URL` may be a file with the URL, so that the password is not shown in process lists. A failed backup leaves no files behind.
# `METRICS` is a file for a textfile collector, for the alerts on failed or old backups (docs/runbooks.md, Backup).
set -eu
umask 077
case $#,${2-} in [23],*://* | [!23],*) echo "usage: deploy/backup.sh URL FILE [METRICS]" >&2; exit 2 ;; esac
file=$2 part=$2.part.$$ metrics=${3-} began=$(date +%s)

report() { # 1 for success; otherwise time and size of the last successful backup are kept
    [ -n "$metrics" ] || return 0
    {
        printf '# TYPE openguild_backup_success gauge\nopenguild_backup_success %s\n' "$1"
        if [ "$1" = 1 ]; then
            printf '# TYPE openguild_backup_timestamp_seconds gauge\nopenguild_backup_timestamp_seconds %s\n' "$began"
            printf '# TYPE openguild_backup_bytes gauge\nopenguild_backup_bytes %s\n' "$(wc -c <"$file" | tr -d ' ')"
        elif [ -e "$metrics" ]; then
            sed -n '/openguild_backup_\(timestamp_seconds\|bytes\)/p' "$metrics"
        fi
    } >"$metrics.part.$$" && chmod 644 "$metrics.part.$$" && mv -- "$metrics.part.$$" "$metrics"
}

end() {
    status=$?
    rm -f -- "$part"
    if [ "$status" = 0 ]; then report 1 || status=1; else report 0 || :; fi
    [ -z "$metrics" ] || rm -f -- "$metrics.part.$$"
    exit "$status"
}

trap end EXIT
trap 'exit 130' INT TERM HUP
[ ! -d "$file" ] || { echo "backup.sh: $file is a directory: name a file in it" >&2; exit 2; }
. "$(dirname "$0")/database-url.sh"
use_database "$1"
refuse_pooler
for left in "$file".part.*; do # left by killed backups; files of running ones are kept
    [ ! -e "$left" ] || kill -0 "${left##*.}" 2>/dev/null || rm -f -- "$left"
done
pg_dump --format=custom --compress=6 --no-owner --no-privileges --dbname="$database" --file="$part"
mv -- "$part" "$file"
