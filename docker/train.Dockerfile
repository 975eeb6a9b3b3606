# Trains, and is every node of a Ray cluster: head, worker, job. Build it from the repository's root (docs/images.md):
#
#   docker build -f docker/train.Dockerfile -t scalepilot-train .                           # torch for CPUs
#   docker build -f docker/train.Dockerfile -t scalepilot-train:0.1.0-cuda --build-arg TORCH=cuda .

# A digest fixes it for good: --build-arg BASE=debian:bookworm-slim@sha256:…
ARG BASE=debian:bookworm-slim

# Python 3.11 and pip, for the two stages that install something.
FROM ${BASE} AS tools
# Debian takes a package's old version away when it publishes a new one: a pinned version breaks the build within weeks.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-pip python3-venv && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY constraints.txt ./

FROM tools AS wheel
RUN python3 -m venv venv && venv/bin/python -m pip install -c constraints.txt hatchling
COPY pyproject.toml README.md LICENSE docker/requirements.py ./
COPY platform platform
COPY envs envs
RUN python3 requirements.py train atari > requirements.txt \
    && venv/bin/python -m pip wheel -c constraints.txt --no-deps --no-build-isolation --wheel-dir wheel .

# A change of our own code alone leaves requirements.txt, and so this stage and the layer it becomes, as they were.
FROM tools AS dependencies
ARG TORCH=cpu
# Empty leaves it to pip's configuration where the CPU build is.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m venv --without-pip /opt/scalepilot \
    && case "$TORCH" in \
         cpu) set -- ${TORCH_CPU_INDEX:+--index-url "$TORCH_CPU_INDEX"} --no-deps ;; \
         cuda) set -- ;; \
         *) echo "TORCH: '$TORCH' is not allowed; allowed: cpu, cuda" >&2; exit 2 ;; \
       esac \
    && python3 -m pip --python /opt/scalepilot/bin/python install -c constraints.txt "$@" torch
COPY --from=wheel /build/requirements.txt ./
RUN python3 -m pip --python /opt/scalepilot/bin/python install -c constraints.txt -r requirements.txt
COPY docker/prune.sh ./
RUN ./prune.sh /opt/scalepilot/lib/python3.11/site-packages

FROM dependencies AS code
COPY --from=wheel /build/wheel wheel
RUN python3 -m pip --python /opt/scalepilot/bin/python install -c constraints.txt --no-deps --prefix /code wheel/*.whl

FROM ${BASE}
# tini takes in the processes that Ray orphans; KubeRay's probes ask with wget. A new volume gets its owner from the last folder.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /bin/bash scalepilot \
    && install -d -o scalepilot -g scalepilot /home/scalepilot/runs
COPY --from=dependencies /opt/scalepilot /opt/scalepilot
COPY --from=code /code /opt/scalepilot
ENV PATH=/opt/scalepilot/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 ORT_DISABLE_TELEMETRY=1
USER 1000:1000
WORKDIR /home/scalepilot
COPY --chown=1000:1000 tune_configs tune_configs
LABEL org.opencontainers.image.title="scalepilot-train" \
      org.opencontainers.image.description="Trains autoscaling policies, and is every node of a Ray cluster that does" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--"]
CMD ["scalepilot", "--help"]
