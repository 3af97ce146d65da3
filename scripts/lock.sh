#!/usr/bin/env bash
# Writes locks/*.txt: names, versions and hashes, and no registry address. Usage: UV=path/to/uv scripts/lock.sh
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  "$UV" pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-annotate \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" "$@"
}
compile pyproject.toml --extra parquet --group dev --output-file locks/dev.txt
compile pyproject.toml --group export --output-file locks/train.txt
compile pyproject.toml --group serve --output-file locks/serve.txt
compile pyproject.toml --group serve-cpu --output-file locks/serve-cpu.txt
compile locks/proto.in --output-file locks/proto.txt
compile pyproject.toml --extra parquet locks/adapters.in --override locks/adapters-overrides.in --output-file locks/adapters.txt
