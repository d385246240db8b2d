# The base needs Python 3.10 or newer with venv and pip; both stages use the same one.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
# Where PyPI is out of reach: --build-arg PIP_INDEX_URL=https://pypi-mirror.example/simple
ARG PIP_INDEX_URL
COPY . /src
# The run of twistd writes Twisted's plugin cache: the user below may not write it.
RUN python3 -m venv /opt/docxy \
 && /opt/docxy/bin/pip install --no-cache-dir '/src[acme]' \
 && install -m 0755 /src/deploy/healthcheck.py /opt/docxy/bin/healthcheck.py \
 && /opt/docxy/bin/twistd --help > /dev/null \
 && /opt/docxy/bin/pip uninstall --yes --quiet pip

FROM ${BASE}
COPY --from=build /opt/docxy /opt/docxy
RUN install -d -o 10001 -g 10001 -m 0700 /var/cache/docxy
USER 10001:10001
WORKDIR /tmp
ENV PORT=8080 CACHE_DIR=/var/cache/docxy PYTHONUNBUFFERED=1
VOLUME /var/cache/docxy
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/opt/docxy/bin/python", "/opt/docxy/bin/healthcheck.py"]
ENTRYPOINT ["/opt/docxy/bin/twistd", "--nodaemon", "--pidfile=", "docxy"]
