# Two images: `train` (TensorFlow: train and export) and `serve` (ONNX Runtime: the gRPC server, no TensorFlow).
#
#   docker build --target serve -t prelabel-serve .
#   docker run --gpus all --read-only --tmpfs /tmp -p 50051:50051 -v "$PWD/runs/demo:/run-folder:ro" prelabel-serve \
#     --model /run-folder/bundle --device cuda
#
# The small CPU server takes another base and another lock file:
#
#   docker build --target serve -t prelabel-serve:cpu \
#     --build-arg SERVE_BASE=python:3.11-slim-bookworm --build-arg SERVE_LOCK=locks/serve-cpu.txt .
#
# Any Debian or Ubuntu with Python 3.11 or newer (`train`: to 3.13), or with such a Python in its package archive, can be the base.

# TensorFlow finds a GPU only where the base brings CUDA 12 and cuDNN 9; this one trains on the CPU. For a GPU, not yet
# tried: one of nvidia/cuda:12.*-cudnn-runtime-ubuntu24.04 (make image TRAIN_BASE=...), and `docker run --gpus all`.
ARG TRAIN_BASE=python:3.11-slim-bookworm
# onnxruntime-gpu is built for CUDA 13 and cuDNN 9, which are not in its wheel: the base brings them. Overriding the
# tag is normal, NVIDIA deletes old ones. scripts/image-check.sh measures the CPU variant; this base is not measured
# on a GPU there. `--device cuda` refuses to start where CUDA does not work, so a wrong base cannot pass unseen.
ARG SERVE_BASE=nvidia/cuda:13.1.1-cudnn-runtime-ubuntu24.04

# --- serve -----------------------------------------------------------------------------------------------------------

FROM ${SERVE_BASE} AS serve-python
# The CUDA images have no Python; the uid is fixed so that volumes and Kubernetes policies can name it.
RUN if ! command -v python3 >/dev/null; then \
      apt-get update \
      && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \
      && apt-get clean && rm -rf /var/lib/apt/lists/*; \
    fi \
    && groupadd --gid 10001 prelabel \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin prelabel

FROM serve-python AS serve-build
RUN if ! python3 -c 'import ensurepip' 2>/dev/null; then \
      apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv; \
    fi
# pip stays in an environment of its own: the image that runs has none. Wheels only: nothing is compiled.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
ARG SERVE_LOCK=locks/serve.txt
COPY ${SERVE_LOCK} /opt/lock.txt
RUN /opt/pip/bin/python -m pip --python /opt/venv/bin/python install \
      --no-cache-dir --only-binary=:all: --require-hashes -r /opt/lock.txt
COPY prelabel /app/prelabel
COPY serving /app/serving
# Bytecode is made here because a read-only container cannot write it; a private umask of the checkout must not lock
# the unprivileged user out.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /app && chmod -R a+rX /app

FROM serve-python AS serve
COPY --from=serve-build /opt/venv /opt/venv
COPY --from=serve-build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Not arguments of the entry point: `docker run -e`, and those of `docker run`, change them.
ENV PRELABEL_OPTION_MODEL=/model PRELABEL_OPTION_HOST=0.0.0.0 PRELABEL_OPTION_PORT=50051
WORKDIR /app
USER 10001:10001
# A bundle is mounted at /model, read-only; for one that is exported anew while it is served, the folder above it, with --model.
EXPOSE 50051
# A stopping server answers what is in flight, for up to 25 s; `docker stop` kills after 10 s unless given --time 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-m", "serving.health", "--timeout-s", "3"]
# The exec form: Python is process 1 and gets SIGTERM itself. Arguments of `docker run` replace those of CMD.
ENTRYPOINT ["python", "-m", "serving"]
CMD ["--device", "auto"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="prelabel-serve" \
      org.opencontainers.image.description="gRPC server that pre-labels images with a prelabel model bundle" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"

# --- train -----------------------------------------------------------------------------------------------------------

FROM ${TRAIN_BASE} AS train-python
RUN if ! command -v python3 >/dev/null; then \
      apt-get update \
      && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \
      && apt-get clean && rm -rf /var/lib/apt/lists/*; \
    fi \
    && groupadd --gid 10001 prelabel \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin prelabel

FROM train-python AS train-build
RUN if ! python3 -c 'import ensurepip' 2>/dev/null; then \
      apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv; \
    fi
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
COPY locks/train.txt /opt/lock.txt
RUN /opt/pip/bin/python -m pip --python /opt/venv/bin/python install \
      --no-cache-dir --only-binary=:all: --require-hashes -r /opt/lock.txt
COPY prelabel /app/prelabel
COPY training /app/training
COPY export /app/export
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /app && chmod -R a+rX /app

FROM train-python AS train
COPY --from=train-build /opt/venv /opt/venv
COPY --from=train-build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib TF_CPP_MIN_LOG_LEVEL=2
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
# mkdir -p runs    else docker makes it, and it is root's
# docker run --user "$(id -u):$(id -g)" -v "$PWD/data:/app/data:ro" -v "$PWD/runs:/app/runs" prelabel-train \
#   training --data data/mnist --output runs/mnist
ENTRYPOINT ["python", "-m"]
CMD ["training", "--help"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="prelabel-train" \
      org.opencontainers.image.description="Trains a semi-supervised GAN on few labels and exports its classifier" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
