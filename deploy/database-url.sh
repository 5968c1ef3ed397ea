# Sourced by backup.sh and restore.sh, which then call `use_database URL`. Passes the password of a database URL to libpq in the
# environment, because process lists show arguments. `URL` may also be a file with the URL, such as the server's database-url.
# shellcheck shell=sh

use_database() { # sets `database`, the URL without its password, and PGPASSWORD if it has one
    case $1 in '' | *://*) database=$1 ;; *) database=$(cat -- "$1") ;; esac
    # without a URL, libpq would use the default database of this machine
    [ -n "$database" ] || { echo "no URL of a database: is it set, or in its file or secret?" >&2; exit 2; }
    case $database in *[?\&]password=*) echo "put the password before the @ of the URL, not behind its ?" >&2; exit 2 ;; esac
    rest=${database#*://}
    case ${rest%%\?*} in # libpq would take part of the password for the host
    *@*@* | */*@*) refuse_unencoded ;;
    *[/@]*) ;;
    *) case $rest in *@*) refuse_unencoded ;; esac ;; # an unencoded ? in the password
    esac
    secret=$(printf '%s\n' "$database" | sed -n 's|^[a-z]*://[^:@/?]*:\([^@/?]*\)@.*|\1|p')
    [ -n "$secret" ] || return 0
    database=$(printf '%s\n' "$database" | sed 's|^\([a-z]*://[^:@/?]*\):[^@/?]*@|\1@|')
    PGPASSWORD=$(printf '%s\n' "$secret" | LC_ALL=C awk '{ # percent-decoded, which libpq does in URLs only
        while (match($0, /%[0-9A-Fa-f][0-9A-Fa-f]/)) {
            high = index("0123456789abcdef", tolower(substr($0, RSTART + 1, 1))) - 1
            low = index("0123456789abcdef", tolower(substr($0, RSTART + 2, 1))) - 1
            printf "%s%c", substr($0, 1, RSTART - 1), high * 16 + low
            $0 = substr($0, RSTART + 3)
        }
        print
    }')
    export PGPASSWORD
}

refuse_unencoded() {
    echo "in the user name and the password of the URL, @ is written as %40, / as %2F and ? as %3F" >&2
    exit 2
}

# Poolers share sessions, so settings of pg_dump and pg_restore, such as an empty search_path, would affect the servers.
refuse_pooler() {
    PGOPTIONS="${PGOPTIONS-} -c openguild.session=own"
    export PGOPTIONS # poolers refuse or ignore it
    if own=$(psql --no-psqlrc --quiet --tuples-only --no-align --dbname="$database" \
        --command="SELECT current_setting('openguild.session', true)" 2>&1); then
        case $own in *own) return 0 ;; esac
    else
        case $own in *'startup parameter'*) ;; *) printf '%s\n' "$own" >&2; exit 1 ;; esac
    fi
    echo "the URL leads to a pooler, such as PgBouncer: name the address of PostgreSQL itself (docs/reliability.md)" >&2
    exit 2
}
