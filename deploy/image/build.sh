#!/bin/sh
# Build the server into PREFIX (the image's /app): `deploy/image/build.sh PREFIX`, from the top of the checkout.
# The Dockerfile runs it in its first stage; `make image-layout` runs it in a clean directory without Docker.
set -eu
prefix=$1
python=${PYTHON:-python3}
constraints=$(pwd)/deploy/image/constraints.txt

"$python" -m venv "$prefix"
export PIP_CONSTRAINT="$constraints" PIP_BUILD_CONSTRAINT="$constraints" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
"$prefix/bin/pip" install --quiet '.[server,otel]' # tracing is a setting, not another image
"$prefix/bin/python" -I -c 'from openguild_proto.fanout import native; raise SystemExit(not native.NATIVE)' || {
    echo "the compiled ring was not built: a C compiler is needed here" >&2
    exit 1
}
"$prefix/bin/pip" uninstall -qq --yes pip setuptools # the latter comes with a venv of Python 3.11
find "$prefix" -name __pycache__ -type d -prune -exec rm -rf {} +
"$prefix/bin/python" -m compileall -q "$prefix/lib" || true # a file for another Python's syntax is none of ours
