# Runs policies on live deployments (`scalepilot operate`): neither Ray nor torch, no shell, no package manager. Build it from the
# repository's root (docs/images.md):
#
#   docker build -f docker/operate.Dockerfile -t scalepilot-operate .
#   docker run -v ./operate.yaml:/etc/scalepilot/operate.yaml:ro -v ./policies:/policies:ro scalepilot-operate

# A digest fixes it for good: --build-arg BASE=debian:bookworm-slim@sha256:…
ARG BASE=debian:bookworm-slim

# Python 3.11 and pip, for the stages that install something.
FROM ${BASE} AS tools
# Debian takes a package's old version away when it publishes a new one: a pinned version breaks the build within weeks.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY constraints.txt ./

FROM tools AS wheel
RUN python3 -m venv venv && venv/bin/python -m pip install -c constraints.txt hatchling
COPY pyproject.toml README.md LICENSE docker/requirements.py ./
COPY platform platform
COPY envs envs
# Arrow reads and writes Parquet, which takes as much room as all else together and which no controller needs.
RUN python3 requirements.py operate -pyarrow > requirements.txt \
    && venv/bin/python -m pip wheel -c constraints.txt --no-deps --no-build-isolation --wheel-dir wheel .

FROM tools AS dependencies
COPY --from=wheel /build/requirements.txt ./
RUN python3 -m venv --without-pip /opt/scalepilot \
    && python3 -m pip --python /opt/scalepilot/bin/python install --no-compile -c constraints.txt -r requirements.txt
COPY docker/prune.sh ./
# Nobody can write bytecode later: of the libraries, what is imported is compiled, and nothing that is not.
RUN ./prune.sh /opt/scalepilot/lib/python3.11/site-packages operate \
    && /opt/scalepilot/bin/python -c "import google.protobuf.message, grpc.aio, gymnasium, httpx2, jinja2, lightkube, numpy, onnxruntime, \
prometheus_client, pydantic, redis, rich.console, rich.table, yaml"

FROM dependencies AS code
COPY --from=wheel /build/wheel wheel
RUN python3 -m pip --python /opt/scalepilot/bin/python install -c constraints.txt --no-deps --prefix /code wheel/*.whl

# What Python needs of Debian, unpacked and nothing else of it: no shell, no apt, no perl.
FROM tools AS root
COPY docker/root.sh ./
RUN ./root.sh /root-of-image

FROM scratch
COPY --from=root /root-of-image /
COPY --from=dependencies /opt/scalepilot /opt/scalepilot
COPY --from=code /code /opt/scalepilot
ENV PATH=/opt/scalepilot/bin:/usr/bin PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1 HOME=/home/scalepilot LANG=C.UTF-8 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 1000:1000
WORKDIR /home/scalepilot
LABEL org.opencontainers.image.title="scalepilot-operate" \
      org.opencontainers.image.description="Runs autoscaling policies on live deployments" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
EXPOSE 9464
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--"]
CMD ["scalepilot", "operate", "--config", "/etc/scalepilot/operate.yaml"]
