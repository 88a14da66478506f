# The mini suite on any CPU: one environment, the one that `make setup` makes.
#
#   docker build -f docker/cpu.Dockerfile -t prism-ae:cpu .
#   docker compose run --rm --entrypoint make cpu mini     (compose.yaml keeps models, runs and drawings)
#
# A pip.conf of yours goes in as a secret, which no layer keeps: --secret id=pip,src=pip.conf. With one that names
# torch's CPU builds the image is several GB smaller.

# The Python that the lock files were made with.
FROM python:3.11.13-slim-bookworm

# No versions: a release of Debian keeps one of each package, and an older one could not be had.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner 10001 --group 10001 /prism-ae
WORKDIR /prism-ae
USER 10001:10001

# Any user may run it, also one without a home and a name.
ENV HOME=/tmp \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    USER=prism-ae

# What the set-up reads, before the code: a change of the code does not install everything again.
COPY --chown=10001:10001 Makefile pyproject.toml requirements.lock requirements-sglang-cpu.lock README.md LICENSE ./
COPY --chown=10001:10001 prism_ae/__init__.py prism_ae/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf,mode=0444 make setup
COPY --chown=10001:10001 . .

# Whoever runs it reads everything, whatever the modes of the files were outside, and writes only what is a result. What
# was copied last must not look newer than the set-up, which may come from a builder's cache: make would repeat it.
RUN chmod -R go=rX ./* \
    && mkdir -p models runs claims/out figures/out tables/out \
    && chmod 1777 models runs claims/out figures/out tables/out \
    && touch .venv/.installed
VOLUME ["/prism-ae/models", "/prism-ae/runs"]
ENV PATH=/prism-ae/.venv/bin:$PATH
USER 10002:10002
ENTRYPOINT ["prism-ae"]
CMD ["--help"]
