#!/bin/sh
# What tests use where the machine has it: Prometheus and promtool, Alertmanager and amtool, PgBouncer, Chromium. `.ci/run` calls this first, so that those tests
# run and do not skip. It installs only what is missing, only with apt-get and as root, leaves no service running, and never fails:
# it says what is not there, and the tests that need it say that they are skipped.
set -u

missing() { # packages whose program is not there
    for found in prometheus:prometheus prometheus-alertmanager:prometheus-alertmanager,alertmanager pgbouncer:pgbouncer \
        chromium:chromium,chromium-browser,google-chrome; do
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
        ! command -v systemctl > /dev/null || as_root systemctl --quiet disable "$package" > /dev/null 2>&1
        echo "tools: installed $package"
    done
fi
for package in $(missing); do
    echo "tools: no $package here, its tests are skipped"
done
exit 0
