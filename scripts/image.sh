#!/usr/bin/env bash
# Builds the container images prelabel-serve and prelabel-train with docker, or with buildah where no docker engine runs.
#
# Usage: scripts/image.sh [serve|serve-cpu|train]...     without a name: serve train
#
# Environment: TRAIN_BASE and SERVE_BASE name other base images, SERVE_LOCK another lock file for the server,
# TAG the images' tag (default: latest; serve-cpu is prelabel-serve:TAG-cpu), IMAGE_ARGS further arguments of the build,
# ENGINE docker or buildah where the choice is not to be made by what runs.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${ENGINE:-}" ]; then
  engine=$ENGINE
elif docker info >/dev/null 2>&1; then
  engine=docker
elif command -v buildah >/dev/null; then
  engine=buildah
else
  echo "no engine to build images with: start docker, or install buildah (Debian: apt-get install buildah)" >&2
  exit 2
fi

revision=$(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
read -ra extra <<<"${IMAGE_ARGS:-}"

build() { # NAME TARGET [BUILD_ARG]...
  local name=$1 target=$2 value
  local -a arguments=(--target "$target" --tag "$name" --build-arg "REVISION=$revision")
  shift 2
  for value in "$@"; do arguments+=(--build-arg "$value"); done
  echo "building $name with $engine" >&2
  case $engine in
    docker) docker build "${arguments[@]}" "${extra[@]}" . ;;
    # HEALTHCHECK exists in the docker image format only; the chroot isolation works without user namespaces.
    buildah) BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot} buildah build --format docker "${arguments[@]}" "${extra[@]}" . ;;
    *) echo "unknown ENGINE $engine: wanted docker or buildah" >&2; exit 2 ;;
  esac
  built+=("$name")
}

tag=${TAG:-latest}
built=()
[ $# -gt 0 ] || set -- serve train
for image in "$@"; do
  case $image in
    serve) build "prelabel-serve:$tag" serve ${SERVE_BASE:+"SERVE_BASE=$SERVE_BASE"} ${SERVE_LOCK:+"SERVE_LOCK=$SERVE_LOCK"} ;;
    serve-cpu) build "prelabel-serve:$tag-cpu" serve "SERVE_BASE=${SERVE_BASE:-python:3.11-slim-bookworm}" \
      "SERVE_LOCK=${SERVE_LOCK:-locks/serve-cpu.txt}" ;;
    train) build "prelabel-train:$tag" train ${TRAIN_BASE:+"TRAIN_BASE=$TRAIN_BASE"} ;;
    *) echo "unknown image $image: wanted serve, serve-cpu or train" >&2; exit 2 ;;
  esac
done

for name in "${built[@]}"; do
  case $engine in
    docker) docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' "$name" ;;
    buildah) buildah images --format '{{.Name}}:{{.Tag}}  {{.Size}}' "$name" ;;
  esac
done
