#!/usr/bin/env bash
# Generates prelabel/v1 from protos/. Usage: scripts/protos.sh PYTHON [OUTPUT_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 out=${2:-.}
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc --proto_path=protos \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  protos/prelabel/v1/*.proto
