#!/usr/bin/env bash
# Fails if the committed prelabel/v1 differs from what protos/ generates. Usage: scripts/protos-check.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/protos.sh "$1" "$fresh" 2>/dev/null
if ! diff -r --exclude=__init__.py --exclude=__pycache__ "$fresh/prelabel/v1" prelabel/v1; then
  echo "prelabel/v1 is not what protos/ generates: run make proto and commit the result" >&2
  exit 1
fi
