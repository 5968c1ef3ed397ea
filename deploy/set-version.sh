#!/bin/sh
# One version everywhere: `deploy/set-version.sh v0.2.0` writes it to pyproject.toml and to the overlays' image tag and Job.
set -eu
case $1 in v[0-9]*.[0-9]*.[0-9]*) version=${1#v} ;; *) echo "expected a version such as v0.2.0" >&2; exit 1 ;; esac
cd "$(dirname "$0")/.."
sed -i "s/^version = \".*\"/version = \"$version\"/" pyproject.toml
for overlay in deploy/k8s/overlays/*/kustomization.yaml; do
    sed -i -e "s/newTag: v.*/newTag: v$version/" \
        -e "s/value: openguild-migrate-v.*/value: openguild-migrate-v$(echo "$version" | tr . -)/" "$overlay"
done
