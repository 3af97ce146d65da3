#!/usr/bin/env bash
# Generates prelabel/v1 and serving/inference_v2 from protos/. Usage: scripts/protos.sh PYTHON [OUTPUT_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 out=${2:-.}
# A file's folder below protos/, not its proto package, is the Python package: imports need no patching.
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc --proto_path=protos \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  protos/prelabel/v1/*.proto protos/serving/inference_v2/open_inference.proto
