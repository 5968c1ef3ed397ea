#!/bin/sh
# `deploy/set-version.sh v0.2.0` (or v0.2.0rc1) writes the version to pyproject.toml, from which the package takes it, and to the
# overlays' image tag and Job. The format is valid for Python, image tags and Kubernetes names.
set -eu
form='v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)((a|b|rc)(0|[1-9][0-9]*))?'
if [ $# -ne 1 ] || [ "$(printf '%s\n' "$1" | wc -l)" -ne 1 ] || ! printf '%s\n' "$1" | grep -qxE "$form"; then
    echo "usage: deploy/set-version.sh VERSION, such as v0.2.0 or v0.2.0rc1" >&2
    exit 2
fi
version=${1#v}
cd "$(dirname "$0")/.."
sed -i "s/^version = \".*\"/version = \"$version\"/" pyproject.toml
for overlay in deploy/k8s/overlays/*/kustomization.yaml; do
    sed -i -e "s/newTag: v.*/newTag: v$version/" \
        -e "s/value: openguild-migrate-v.*/value: openguild-migrate-v$(printf %s "$version" | tr . -)/" "$overlay"
done
