#!/bin/sh
# What tests use where the machine has it: Prometheus and promtool, Alertmanager and amtool, PgBouncer, Chromium, a Docker engine, haproxy, kubectl, valgrind; and what checks and drives docs/web.
# `.ci/run` calls this first, so that those tests run and do not skip. It installs only what is missing: with apt-get and as root, with npm into build/npm, and with pip into build/python_tools.
# It leaves no service running, and never fails: it says what is not there, and the tests that need it say that they are skipped.
set -u

missing() { # packages whose program is not there
    for found in prometheus:prometheus prometheus-alertmanager:prometheus-alertmanager,alertmanager pgbouncer:pgbouncer \
        chromium:chromium,chromium-browser,google-chrome docker.io:dockerd iptables:iptables mmdebstrap:mmdebstrap haproxy:haproxy kubectl:kubectl,kustomize valgrind:valgrind; do
        for program in $(echo "${found#*:}" | tr , ' '); do
            PATH=$PATH:/usr/sbin command -v "$program" > /dev/null && continue 2
        done
        echo "${found%%:*}"
    done
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
quietly() { as_root env DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq -o Dpkg::Use-Pty=0 "$@" < /dev/null > /dev/null 2>&1; }

wanted=$(missing)
if [ -n "$wanted" ] && command -v apt-get > /dev/null && as_root true 2> /dev/null; then
    policy=/usr/sbin/policy-rc.d # Debian starts a service when it is installed, unless this says no
    ours=
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' | as_root tee $policy > /dev/null && as_root chmod 755 $policy && ours=1; }
    trap '[ -z "$ours" ] || as_root rm -f $policy' EXIT
    quietly update || echo "tools: apt-get update failed"
    for package in $wanted; do # one by one: where one is unknown, the others are installed all the same
        quietly install --yes --no-install-recommends "$package" || continue
        units=$package
        [ "$package" != docker.io ] || units="docker.service docker.socket containerd.service"
        # shellcheck disable=SC2086
        ! command -v systemctl > /dev/null || as_root systemctl --quiet disable $units > /dev/null 2>&1
        echo "tools: installed $package"
    done
fi

here=${0%/*}
npm=$here/../../build/npm # exact versions
if command -v npm > /dev/null; then
    wanted=$(cat "$here/npm_tools.txt")
    # shellcheck disable=SC2086
    [ "$(cat "$npm/installed" 2> /dev/null)" = "$wanted" ] || {
        mkdir -p "$npm" && timeout 300 npm install --silent --no-audit --no-fund --no-save --prefix "$npm" $wanted < /dev/null > /dev/null 2>&1 \
            && echo "$wanted" > "$npm/installed" && echo "tools: installed" $wanted
    }
fi
[ -e "$npm/installed" ] || echo "tools: no npm packages here, the checks and tests of docs/web and make descriptions that need them are skipped"

venv=$here/../../build/python_tools # apart from the project's own, which they would change
if command -v python3 > /dev/null; then
    wanted=$(cat "$here/python_tools.txt")
    # shellcheck disable=SC2086
    [ "$(cat "$venv/installed" 2> /dev/null)" = "$wanted" ] || { python3 -m venv "$venv" > /dev/null 2>&1 \
        && timeout 300 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $wanted > /dev/null 2>&1 \
        && echo "$wanted" > "$venv/installed" && echo "tools: installed" $wanted; }
fi
[ -e "$venv/installed" ] || echo "tools: no Python tools here, what needs them in make descriptions is skipped"
for package in $(missing); do
    echo "tools: no $package here, its tests are skipped"
done
exit 0
