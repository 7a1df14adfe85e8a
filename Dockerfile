# Any Debian-like image with Python 3.11 or newer and its venv module will do.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
# Extras of pyproject.toml, separated by commas: distributed,parquet,legacy
ARG EXTRAS=distributed
# pip runs outside of what it fills, so that the image has none.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/doc-classify
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# Behind a mirror of the package index: docker build --secret id=pip.conf,src=FILE .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    /opt/pip/bin/pip --python /opt/doc-classify/bin/python --disable-pip-version-check \
    install ".[${EXTRAS}]"

FROM ${BASE}
LABEL org.opencontainers.image.title="doc-classify" \
      org.opencontainers.image.description="Puts large piles of mixed documents into your own categories" \
      org.opencontainers.image.licenses="Apache-2.0"
# The working folder is open to all, so that the image also runs as another user (--user).
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /work --shell /usr/sbin/nologin \
        doc-classify \
    && install -d -m 1777 /work
COPY --from=build /opt/doc-classify /opt/doc-classify
ENV PATH=/opt/doc-classify/bin:$PATH \
    HOME=/work \
    PYTHONUNBUFFERED=1
WORKDIR /work
# Where a platform lays an empty volume over these, it takes their rights from here; Amazon ECS does
# so only for folders that are declared (Developer Guide, "Use bind mounts"), else root alone writes.
VOLUME ["/work", "/tmp"]
USER 10001:10001
# No HEALTHCHECK: what is healthy depends on the command. docker-compose-workers.yml has them.
CMD ["doc-classify", "--help"]
