#!/usr/bin/env bash
# Builds the server's image without a docker engine, runs the server in it, and pre-labels through it.
#
# The base image is made with debootstrap (Debian 12), the image with buildah; packages come from wherever this host's
# apt and pip get theirs. The server runs from the image's own ENTRYPOINT as the image's own user; 1,000 images are
# pre-labelled through it and compared with the embedded engine; SIGTERM must end it with status 0.
# The figures go to docs/results/image.json.
#
# Usage: PYTHON=.venv/bin/python scripts/image-check.sh [--train]     (as root; --train also builds prelabel-train, 2 GB)
# Environment: BUNDLE (default runs/demo/bundle), WORK (default runs/image-check; keeps the base image between runs),
# RESULT (default docs/results/image.json).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
BUNDLE=${BUNDLE:-runs/demo/bundle}
WORK=${WORK:-runs/image-check}
RESULT=${RESULT:-docs/results/image.json}
INPUT=data/mnist/t10k-images-idx3-ubyte.gz
LIMIT=1000

fail() { echo "image-check: $*" >&2; exit 1; }
step() { echo "image-check: $*" >&2; }

with_train=no
case ${1:-} in
  '') ;;
  --train) with_train=yes ;;
  *) fail "unknown argument $1: wanted --train or nothing" ;;
esac
[ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root: run it as root, for example in a virtual machine"
for tool in buildah debootstrap; do
  command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install buildah debootstrap"
done
[ -f "$BUNDLE/bundle.json" ] || fail "there is no model bundle in $BUNDLE: run make demo first, or set BUNDLE="

mkdir -p "$WORK"
WORK=$(realpath "$WORK") BUNDLE=$(realpath "$BUNDLE")
case $WORK in *[[:space:]]*) fail "WORK is $WORK: give a folder without blanks in its path, buildah's arguments are split at them" ;; esac
# An image store of its own: nothing of this host's images is seen or touched. vfs works on every file system.
export CONTAINERS_STORAGE_CONF=$WORK/storage.conf BUILDAH_ISOLATION=chroot
cat >"$CONTAINERS_STORAGE_CONF" <<CONF
[storage]
driver = "${STORAGE_DRIVER:-vfs}"
graphroot = "$WORK/storage"
runroot = "$WORK/storage-run"
CONF
BASE=localhost/prelabel-base:bookworm
# image.sh must take buildah here even where a docker engine runs.
export ENGINE=buildah

container='' server=''
finish() {
  if [ -n "$server" ] && kill -0 "$server" 2>/dev/null; then
    kill -KILL "$(leaf "$server")" 2>/dev/null || true
    wait "$server" || true
  fi
  if [ -n "$container" ]; then
    buildah umount "$container" >/dev/null 2>&1 || true
    buildah rm "$container" >/dev/null
  fi
  # The built images are some GB under vfs; the base stays, it is what takes time to download.
  buildah images --quiet --filter label=org.opencontainers.image.title | sort -u | xargs --no-run-if-empty buildah rmi --force >/dev/null
}

# The last process of a chain of only children: the one that an engine would call process 1 of the container.
leaf() {
  local process=$1 child
  while child=$(pgrep -P "$process" | head -1) && [ -n "$child" ]; do process=$child; done
  echo "$process"
}
trap finish EXIT

if ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
  step "making the base image with debootstrap"
  mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "bookworm" {print $2; exit}')
  rm -rf "$WORK/rootfs"
  debootstrap --variant=minbase bookworm "$WORK/rootfs" ${mirror:+"$mirror"} >"$WORK/debootstrap.log" 2>&1 \
    || fail "debootstrap failed, see $WORK/debootstrap.log"
  # What slim images leave out too.
  rm -rf "$WORK"/rootfs/var/cache/apt/archives/*.deb "$WORK"/rootfs/var/lib/apt/lists/* \
    "$WORK"/rootfs/usr/share/{doc,man,locale,info}/*
  base=$(buildah from scratch)
  buildah add --quiet "$base" "$WORK/rootfs" / >/dev/null
  buildah commit --quiet --rm "$base" "$BASE" >/dev/null
  rm -rf "$WORK/rootfs"
fi

# This host's package settings are mounted while building; only empty mount points stay in the image.
apt-config dump Acquire | grep -v '^Acquire::IndexTargets' >"$WORK/apt.conf"
IMAGE_ARGS="--volume $WORK/apt.conf:/etc/apt/apt.conf.d/99host:ro --volume $WORK/pip.conf:/etc/pip.conf:ro"
for mount in $("$PYTHON" scripts/host_pip.py "$WORK/pip.conf"); do IMAGE_ARGS+=" --volume $mount:ro"; done
export IMAGE_ARGS TAG=check SERVE_BASE=$BASE TRAIN_BASE=$BASE
scripts/image.sh serve-cpu
image=localhost/prelabel-serve:check-cpu

container=$(buildah from "$image")
root=$(buildah mount "$container")
in_image() { buildah run "$container" -- "$@"; }

step "looking into the image"
user=$(in_image id -u)
[ "$user" != 0 ] || fail "the image runs as root"
unwanted=$(in_image python -c 'import onnxruntime, prelabel, serving; from importlib.util import find_spec
print(*filter(find_spec, ["tensorflow", "keras", "tf2onnx", "onnx", "training", "export", "pip"]))')
[ -z "$unwanted" ] || fail "the server's image holds $unwanted"
unwanted=$(in_image sh -c 'for tool in cc gcc g++ clang make; do command -v $tool || true; done')
[ -z "$unwanted" ] || fail "the server's image holds a compiler or build tool: $unwanted"
image_bytes=$(du -s --block-size=1 --one-file-system "$root" | cut -f1)
environment_bytes=$(du -s --block-size=1 "$root/opt/venv" | cut -f1)

step "starting the server"
port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mapfile -t entrypoint < <(buildah inspect --type image --format '{{range .Docker.Config.Entrypoint}}{{println .}}{{end}}' "$image" | sed '/^$/d')
mapfile -t health < <(buildah inspect --type image --format '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' "$image" | sed '/^$/d;1d')
touch "$WORK/started"
# A chroot shares the host's network, so the port is a free one; the last --port counts. Both sides compute in float32,
# whatever is faster on this machine, so that their answers can be compared.
buildah run --volume "$BUNDLE:/model:ro" "$container" -- "${entrypoint[@]}" --port "$port" --precision float32 >"$WORK/server.log" 2>&1 &
server=$!
deadline=$((SECONDS + 120))
until in_image "${health[@]}" --address "127.0.0.1:$port" >"$WORK/health.log" 2>&1; do
  kill -0 "$server" 2>/dev/null || { cat "$WORK/server.log" >&2; fail "the server stopped before it was healthy"; }
  [ $SECONDS -lt $deadline ] || { cat "$WORK/server.log" "$WORK/health.log" >&2; fail "not healthy within 120 s"; }
done
step "healthy; pre-labelling $LIMIT images through it"
rm -rf "$WORK/served" "$WORK/embedded"
"$PYTHON" -m prelabel run --input "$INPUT" --limit "$LIMIT" --server "127.0.0.1:$port" --output "$WORK/served"
"$PYTHON" -m prelabel run --input "$INPUT" --limit "$LIMIT" --model "$BUNDLE" --precision float32 \
  --output "$WORK/embedded"

step "stopping it with SIGTERM"
process=$(leaf "$server")
[ "$(stat --format %u "/proc/$process")" = "$user" ] || fail "process $process does not run as user $user"
kill -TERM "$process"
status=0
wait "$server" || status=$?
server=''
[ "$status" = 0 ] || { cat "$WORK/server.log" >&2; fail "the server ended with status $status after SIGTERM"; }
written=$(find "$root" -xdev -newer "$WORK/started" -type f -not -path "$root/tmp/*" -not -path "$root/run/*" \
  -not -path "$root/etc/*" -print)
[ -z "$written" ] || fail "the server wrote outside /tmp, a read-only container would stop it: $written"

if [ $with_train = yes ]; then
  scripts/image.sh train
  buildah umount "$container" >/dev/null
  buildah rm "$container" >/dev/null
  container=$(buildah from localhost/prelabel-train:check)
  root=$(buildah mount "$container")
  train_bytes=$(du -s --block-size=1 --one-file-system "$root" | cut -f1)
  step "training a few steps in the image, and exporting them"
  rm -rf "$WORK/train"
  install --directory --owner "$user" "$WORK/train"
  in_training() {
    buildah run --volume "$PWD/data:/app/data:ro" --volume "$WORK/train:/app/runs" "$container" -- python -m "$@"
  }
  in_training training --data data/mnist --labels 100 --steps 20 --output runs/short
  in_training export --run runs/short
  [ -f "$WORK/train/short/bundle/bundle.json" ] || fail "the export in the image made no bundle"
fi

"$PYTHON" -m scripts.image_report --served "$WORK/served" --embedded "$WORK/embedded" --images "$LIMIT" --user "$user" \
  --serve-image-bytes "$image_bytes" --serve-environment-bytes "$environment_bytes" \
  ${train_bytes:+--train-image-bytes "$train_bytes"} --output "$RESULT"
step "all well"
