# Answers decisions over HTTP, and scales deployments (`scalepilot operate`): no torch, no training. Build it from the
# repository's root (docs/images.md):
#
#   docker build -f docker/serve.Dockerfile -t scalepilot-serve .
#   docker run -p 127.0.0.1:8000:8000 -v ./policies:/policies:ro -v ./keys:/run/secrets/api_keys:ro scalepilot-serve

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
RUN python3 requirements.py serve operate > requirements.txt \
    && venv/bin/python -m pip wheel -c constraints.txt --no-deps --no-build-isolation --wheel-dir wheel .

# A change of our own code alone leaves requirements.txt, and so this stage and the layer it becomes, as they were.
FROM tools AS dependencies
COPY --from=wheel /build/requirements.txt ./
RUN python3 -m venv --without-pip /opt/scalepilot \
    && python3 -m pip --python /opt/scalepilot/bin/python install -c constraints.txt -r requirements.txt
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
    && install -d -o scalepilot -g scalepilot /policies
COPY --from=dependencies /opt/scalepilot /opt/scalepilot
COPY --from=code /code /opt/scalepilot
ENV PATH=/opt/scalepilot/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 ORT_DISABLE_TELEMETRY=1
USER 1000:1000
WORKDIR /home/scalepilot
LABEL org.opencontainers.image.title="scalepilot-serve" \
      org.opencontainers.image.description="Serves autoscaling policies over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8000/health/ready"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--"]
# Everything is asked for a key, /health aside (docs/serving.md).
CMD ["scalepilot", "serve", "--watch", "/policies", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/api_keys"]
