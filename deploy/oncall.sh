# The commands of docs/runbooks.md. Source this file in bash, with the deployment to work on:
#   . deploy/oncall.sh prod                         a namespace of the current kubectl context
#   . deploy/oncall.sh compose                      deploy/compose.yaml on this host
#   . deploy/oncall.sh http://127.0.0.1:8080 [LOG]  a server on this host; LOG is its log file, by default the journal of openguild-server.service
# It defines og, ready, logs and metrics, which query every replica, og_one, which queries one, and sql and pg_ready for the database.
# shellcheck shell=bash
oncall_directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/database-url.sh
. "$oncall_directory/database-url.sh"
oncall_target=${1:?name a namespace, compose or the URL of a server}
oncall_log=${2:-}
oncall_page='import sys, urllib.error, urllib.request as u
try: print(u.urlopen(sys.argv[1], timeout=9).read().decode())
except urllib.error.HTTPError as e: print(e.read().decode())' # the image has no curl

# oncall_each FILTER COMMAND: run the command at each replica, through the filter; `cat` means no filter and keeps the exit status
oncall_filter() { if [ "$1" = cat ]; then "${@:2}"; else "${@:2}" | "$1"; fi; }
case $oncall_target in
http*://*)
    oncall_each() { oncall_filter "$@"; }
    oncall_get() { oncall_each "$1" curl -sS --max-time 9 "$oncall_target$3"; }
    oncall_metrics() { # from the metrics' own listener, if the server has one
        oncall_bound=${OPENGUILD_SERVER__METRICS__BIND_ADDR:-}
        oncall_text=$(curl -sS --fail --max-time 9 "${oncall_bound:+http://}${oncall_bound:-$oncall_target}/metrics") || {
            echo "metrics: where the server has metrics.bind_addr: export OPENGUILD_SERVER__METRICS__BIND_ADDR as it has it" >&2
            return 1
        }
        oncall_samples <<<"$oncall_text"
    }
    oncall_lines() { if [ -n "$oncall_log" ]; then oncall_since "$1" <"$oncall_log"; else journalctl --unit openguild-server --output cat --since "-$1 min"; fi; }
    oncall_since() { jq -Rr --argjson minutes "$1" '(now - 60 * $minutes | todate[:19]) as $since | select((fromjson? | .timestamp? // "") >= $since)'; }
    oncall_database() {
        if [ -n "${OPENGUILD_SERVER__DATABASE_URL_FILE:-}" ]; then cat -- "$OPENGUILD_SERVER__DATABASE_URL_FILE"; else
            printf '%s\n' "${OPENGUILD_SERVER__DATABASE_URL:?set it, or OPENGUILD_SERVER__DATABASE_URL_FILE, as the server has it}"
        fi
    }
    ;;
compose)
    oncall_compose() { docker compose --file "$oncall_directory/compose.yaml" "$@"; }
    oncall_each() { oncall_filter "$1" oncall_compose exec -T server "${@:2}"; }
    oncall_get() { oncall_each "$1" python -c "$oncall_page" "http://127.0.0.1:$2$3"; }
    oncall_lines() { oncall_compose logs --no-log-prefix --since "$1m" server; }
    oncall_database() { oncall_compose exec -T server printenv OPENGUILD_SERVER__DATABASE_URL; }
    ;;
*)
    oncall_pods() {
        kubectl get pods -n "$oncall_target" -l app.kubernetes.io/component=server \
            -o jsonpath='{range .items[*]}{.metadata.name}={.status.podIP}{"\n"}{end}'
    }
    oncall_each() { # prints the pod's name and its address (`instance` in alerts) before each answer
        oncall_found=$(oncall_pods) || return
        [ -n "$oncall_found" ] || { echo "no pod of the server in namespace $oncall_target: check the name, and kubectl config current-context" >&2; return 1; }
        [ -z "${oncall_one:-}" ] || oncall_found=${oncall_found%%$'\n'*}
        for oncall_pod in $oncall_found; do
            echo "# pod/${oncall_pod%%=*} at ${oncall_pod#*=}"
            oncall_filter "$1" kubectl exec -n "$oncall_target" "pod/${oncall_pod%%=*}" -c server -- "${@:2}"
        done
    }
    oncall_get() { oncall_each "$1" python -c "$oncall_page" "http://127.0.0.1:$2$3"; }
    oncall_lines() {
        kubectl logs -n "$oncall_target" -l app.kubernetes.io/component=server --tail=-1 --since="$1m" --prefix=false --max-log-requests=20
    }
    oncall_database() { kubectl get secret openguild-server -n "$oncall_target" -o jsonpath='{.data.database-url}' | base64 -d; }
    ;;
esac

# og ARGUMENTS: run `openguild-server ARGUMENTS` at each replica
og() { oncall_each cat openguild-server "$@"; }

# og_one ARGUMENTS: the same at one replica, for commands that must run only once
og_one() { local oncall_one=yes && oncall_each cat openguild-server "$@"; }

# ready: show the status of each component, and its problem
ready() { oncall_get oncall_parts 8080 /ready; }
oncall_parts() { # `pending` components are missing, not needed or unknown; the details tell which
    jq -r '"\(.status)", (.components[] | "  \(.name): \(if .status == "pending" then "" else .status + " " end)\(.details // "")")'
}

# logs [MINUTES]: show the JSON records of the last 15 minutes, without lines that are not JSON
logs() { oncall_lines "${1:-15}" | jq -Rc 'fromjson?' | oncall_any; }
oncall_any() { # on a host, an empty result may mean that it is the wrong log
    case $oncall_target in
    http*)
        awk -v place="${oncall_log:-the journal of openguild-server.service}" '{ print } END {
            if (!NR) print "logs: no JSON record in " place ": does the server log there, and log_format json?" >"/dev/stderr" }'
        ;;
    *) cat ;;
    esac
}

# metrics PATTERN: show the samples that match, except those with value 0
metrics() {
    oncall_pattern=$1
    case $oncall_target in http*) oncall_metrics ;; *) oncall_get oncall_samples 9100 /metrics ;; esac
}
oncall_samples() { grep -E "^($oncall_pattern)" | grep -v ' 0\.0$'; }

# sql STATEMENT: run a statement in the servers' database, with this machine's psql
sql() (url=$(oncall_database) && use_database "$url" && psql --no-psqlrc --dbname="$database" --command="$1")

# pg_ready: check whether PostgreSQL accepts connections from this machine, at the host and port of database_url
pg_ready() (url=$(oncall_database) && use_database "$url" && pg_isready --dbname="$database")
