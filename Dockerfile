# emojax as a BIDS App, on the CPU:
#   docker build -t emojax .
#   docker run --rm -u "$(id -u):$(id -g)" -v STUDY:/data:ro -v OUT:/out emojax /data /out group
# and for clusters: apptainer build emojax.sif docker-daemon:emojax:latest
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /src
COPY . .
# Versions that the tests ran on, where the checkout has them.
RUN if [ -f constraints/py312.txt ]; then set -- -c constraints/py312.txt; else set --; fi \
    && pip install "$@" . \
    && rm -rf /src/* \
    && useradd --create-home --uid 1000 emojax

ARG TAG=emojax
# HOME may be written by any user id, and holds caches only.
ENV HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    EMOJAX_CONTAINER_TYPE=docker \
    EMOJAX_CONTAINER_TAG=${TAG}

USER 1000
WORKDIR /out
ENTRYPOINT ["emojax", "bids"]
