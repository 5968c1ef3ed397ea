#!/usr/bin/env bash
# Installs packages into a virtual environment and shows the progress: deploy/install.sh PYTHON LOG REQUIREMENT...
# On a terminal it updates one line. LOG has the whole output, the end of which is shown if the installation fails.
set -euo pipefail
python=$1 log=$2
shift 2
columns=0
if [ -t 1 ]; then columns=$(tput cols 2>/dev/null || echo 80); fi
tick=()
if [ "${BASH_VERSINFO[0]}" -ge 4 ]; then tick=(-t 1); fi # in older versions, a timeout looks like the end of the input

follow() { # shows pip's output as one line of a terminal, or as a line for each step
    local line step="asking for packages" shown="" packages=0 status text
    while true; do
        status=0
        IFS= read -r ${tick[@]+"${tick[@]}"} line || status=$?
        if [ "$status" -eq 1 ]; then break; fi
        if [ "$status" -eq 0 ]; then
            case $line in
            "Collecting "*)
                packages=$((packages + 1))
                line=${line#Collecting }
                step="package $packages: ${line%%[^A-Za-z0-9._-]*}"
                ;;
            *"Installing build dependencies"*) step="getting the compiler of the extension (Cython)" ;;
            *"Building editable"* | *"Building wheel"*) step="building the extension" ;;
            "Installing collected packages"*) step="unpacking the packages" ;;
            esac
        fi
        if [ "$columns" -gt 0 ]; then
            text="  $SECONDS s: $step"
            printf '\r%s\033[K' "${text:0:$((columns - 1))}"
        elif [ "$step" != "$shown" ] && [ "${step#package }" = "$step" ]; then
            shown=$step
            echo "  $step"
        fi
    done
    if [ "$columns" -gt 0 ]; then printf '\r\033[K'; fi
}

# warnings of the build are of no use to users
export PYTHONWARNINGS=ignore PYTHONUNBUFFERED=1
interrupted=
trap 'interrupted=yes' INT
if "$python" -m pip --disable-pip-version-check --no-input install --progress-bar off "$@" 2>&1 | tee "$log" | follow; then
    echo "  installed in $SECONDS s"
elif [ -n "$interrupted" ]; then
    echo "  interrupted: the same command begins the installation again" >&2
    exit 130
else
    tail -n 30 "$log" >&2
    echo "the installation failed; its whole output is in $log" >&2
    exit 1
fi
