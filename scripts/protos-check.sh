#!/usr/bin/env bash
# Fails if the committed generated code differs from what protos/ generates. Usage: scripts/protos-check.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/protos.sh "$1" "$fresh" 2>/dev/null
for package in prelabel/v1 serving/inference_v2; do
  if ! diff -r --exclude=__init__.py --exclude=__pycache__ "$fresh/$package" "$package"; then
    echo "$package is not what protos/ generates: run make proto and commit the result" >&2
    exit 1
  fi
done
