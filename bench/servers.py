"""The servers and their settings.

::

    curl, wrk -> docxy, nginx, proxy -> registry

`registry` is Debian's docker-registry with the content, `proxy` the same program as a
pull-through mirror.  nginx has one worker; docxy is one process; docker-registry is one
process that takes all cores.  Each writes its access log to a file, as by default.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from bench import certificate
from bench.processes import HOST, Server, free_port
from bench.programs import TOP


@frozen
class Target:
    """A server as one kind of client sees it."""

    server: Server
    url: str


@frozen
class Stage:
    """All servers: those to start, and by scheme and name those to ask."""

    registry: Server
    """The upstream of the others: to be started first, so that content can be pushed."""
    others: tuple[Server, ...]
    targets: Mapping[str, Mapping[str, Target]]
    ca: Path

    @property
    def servers(self) -> tuple[Server, ...]:
        return (self.registry, *self.others)


def build(directory: Path, found: Mapping[str, str], schemes: frozenset[str], profile: Path | None) -> Stage:
    """Write all settings below a directory.  `profile`: where docxy's profiles go, if it is to be profiled."""
    cert, key = certificate.make(directory)
    pairs: dict[str, tuple[Path, Path] | None] = {"http": None, "https": (cert, key)}
    ports = {scheme: {name: free_port() for name in ("docxy", "nginx", "proxy", "registry")} for scheme in pairs}
    upstream = f"http://{HOST}:{ports['http']['registry']}"
    nginx = _nginx(directory, found["nginx"], {scheme: ports[scheme]["nginx"] for scheme in pairs}, cert, key, upstream)
    started: dict[str, dict[str, Server]] = {}
    for scheme in sorted(schemes | {"http"}):
        pair = pairs[scheme]
        run = ports[scheme]
        started[scheme] = {
            "docxy": _docxy(directory, scheme, run["docxy"], pair, upstream, profile),
            "nginx": nginx,
            "proxy": _registry(directory, found, "proxy", scheme, run["proxy"], pair, upstream),
            "registry": _registry(directory, found, "registry", scheme, run["registry"], pair, None),
        }
    origin = started["http"]["registry"]
    others = {id(server): server for by_name in started.values() for server in by_name.values() if server is not origin}
    targets = {
        scheme: {name: Target(server, f"{scheme}://{HOST}:{ports[scheme][name]}") for name, server in by_name.items()}
        for scheme, by_name in started.items()
    }
    return Stage(origin, tuple(others.values()), targets, cert)


def _docxy(
    directory: Path, scheme: str, port: int, pair: tuple[Path, Path] | None, upstream: str, profile: Path | None
) -> Server:
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
    if profile is not None:
        saved = str(profile / f"docxy-{scheme}.prof")
        twistd += ["--profile", saved, "--profiler", "cprofile", "--savestats"]
    listen = ["--port", str(port), "--cert", "off"]
    if pair is not None:
        listen = ["--https-port", str(port), "--http-port", "0", "--cert", str(pair[0]), "--key", str(pair[1])]
    common = ["--interface", HOST, "--auth", "none", "--upstream", upstream]
    cache = ["--cache", str(directory / f"docxy-{scheme}")]
    argv = [*twistd, "docxy", *listen, *common, *cache]
    return Server("docxy", argv, [port], directory / f"docxy-{scheme}.log", {"PYTHONPATH": str(TOP)})


def _registry(
    directory: Path,
    found: Mapping[str, str],
    name: str,
    scheme: str,
    port: int,
    pair: tuple[Path, Path] | None,
    upstream: str | None,
) -> Server:
    """With an upstream a mirror with a storage of its own, else one that serves the content's."""
    storage = directory / ("content" if upstream is None else f"proxy-{scheme}")
    http: dict[str, object] = {"addr": f"{HOST}:{port}", "secret": "only one instance"}
    if pair is not None:
        http["tls"] = {"certificate": str(pair[0]), "key": str(pair[1])}
    settings: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "cache": {"blobdescriptor": "inmemory"}},
        "http": http,
    }
    if upstream is not None:
        settings["proxy"] = {"remoteurl": upstream}
    config = directory / f"{name}-{scheme}.yml"
    # JSON is YAML too.
    config.write_text(json.dumps(settings, indent=1), "utf-8")
    argv = [found["docker-registry"], "serve", str(config)]
    return Server(name, argv, [port], directory / f"{name}-{scheme}.log")


def _nginx(
    directory: Path, program: str, ports: Mapping[str, int], certificate: Path, key: Path, upstream: str
) -> Server:
    """As mirrors made of nginx have it: proxy_cache with a lock, sendfile."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n    ".join(f"{kind}_temp_path {directory}/nginx-{kind};" for kind in kinds)
    listening = "\n".join(
        f"""    server {{
        listen {HOST}:{port}{" ssl" if scheme == "https" else ""} backlog=1024;
        location / {{ proxy_pass {upstream}; }}
    }}"""
        for scheme, port in ports.items()
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"""daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    {temporary}
    access_log {directory}/nginx-access.log;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    proxy_cache_path {directory}/nginx-cache levels=1:2 keys_zone=cache:10m max_size=64g inactive=1d use_temp_path=off;
    proxy_cache cache;
    proxy_cache_valid 200 1d;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 880s;
    proxy_cache_lock_age 880s;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
{listening}
}}
""",
        "utf-8",
    )
    argv = [program, "-c", str(config), "-e", str(directory / "nginx-error.log")]
    return Server("nginx", argv, list(ports.values()), directory / "nginx.log")
