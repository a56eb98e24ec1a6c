# The image of Serinus. What is installed is locked by hashes; what builds it stays behind.
#
#   docker build -t serinus .
#   docker run --rm --read-only -p 8080:8080 -v "$PWD/conf:/etc/serinus:ro" --stop-timeout 40 serinus
#
# Why Debian's own Python, and not python:3.x-slim: those images build Python with --enable-shared, where each call inside
# of the interpreter goes through a table of the shared library. Debian links its interpreter statically, with LTO and PGO;
# under load Serinus took 20 to 25 % less CPU with it than with a shared build without LTO. Why Debian 12: its Python 3.11
# is the one that the tests run on. The tag follows Debian's security updates: build anew to have them.

FROM debian:12-slim AS build
# Debian keeps one version of each package, so that one cannot be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements-build.lock requirements-otel.lock requirements.lock ./
# The image's environment has no pip of its own: that of the builder's installs into it.
RUN python3 -m venv /opt/build \
    && python3 -m venv --without-pip /opt/serinus \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
    && /opt/build/bin/pip --python /opt/serinus/bin/python install --no-cache-dir --only-binary :all: --require-hashes \
        -r requirements.lock -r requirements-otel.lock
COPY LICENSE README.md pyproject.toml ./
COPY proxy proxy
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
    && /opt/build/bin/pip --python /opt/serinus/bin/python install --no-cache-dir --no-deps /opt/wheels/*.whl

FROM debian:12-slim
# ca-certificates: whom upstreams' certificates are checked against.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 serinus \
    && useradd --uid 10001 --gid serinus --no-create-home --home-dir /var/lib/serinus --shell /usr/sbin/nologin serinus \
    && install -d -o serinus -g serinus -m 0700 /var/lib/serinus \
    && install -d -m 0755 /etc/serinus
COPY --from=build /opt/serinus /opt/serinus
# SERINUS_ADMIN is where `serinus status` and the others look, and the health check below.
ENV PATH=/opt/serinus/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    SERINUS_ADMIN=http://127.0.0.1:9090
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
# A configuration without `state_dir` has its state here too, in .serinus. Nothing else is ever written.
WORKDIR /var/lib/serinus
VOLUME ["/var/lib/serinus"]
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Python and nothing of Serinus: 0.05 s of CPU, where one of its commands takes 0.6 s.
HEALTHCHECK --interval=15s --timeout=3s --start-period=15s --retries=3 \
    CMD ["/usr/bin/python3", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection(os.environ['SERINUS_ADMIN'].removeprefix('http://'), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
LABEL org.opencontainers.image.title="Serinus" \
      org.opencontainers.image.description="A load-balancing reverse proxy for LLM APIs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:12-slim"
ENTRYPOINT ["serinus"]
CMD ["serve", "--config", "/etc/serinus/serinus.yaml"]
