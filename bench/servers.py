"""The servers and their settings.

::

    curl, wrk -> docxy, nginx, proxy, proxy3 -> upstream (TLS)
    docker, skopeo -> docxy, proxy -> far (a slow line) -> registry

`registry` and `upstream` are Debian's docker-registry with the content, `proxy` is the same program
as a pull-through mirror, `proxy3` is distribution 3, built from its Go module where there is Go.
nginx has one worker; docxy is one process, unless a row says otherwise; the registries are one
process each that takes all cores.  Each writes its access log to a file.  All check the upstream's
certificate.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from bench.certificate import NAME
from bench.processes import HOST, Server, free_port
from bench.programs import TOP


@frozen
class Target:
    """A server as one kind of client sees it."""

    server: Server
    url: str


@frozen
class Stage:
    """The servers of most rows, by scheme and name."""

    targets: Mapping[str, Mapping[str, Target]]
    upstream: Target
    """Of the mirrors, over TLS: what `registry` has."""

    @property
    def registry(self) -> Server:
        """Where content is pushed."""
        return self.targets["http"]["registry"].server

    @property
    def servers(self) -> list[Server]:
        """Each once, in the order of their start."""
        servers = [target.server for by_name in self.targets.values() for target in by_name.values()]
        first = [self.registry, self.upstream.server]
        return [*first, *{id(each): each for each in servers if each not in first}.values()]


@frozen
class Setup:
    """Makes servers; all that they write is below one directory."""

    directory: Path
    programs: Mapping[str, str]
    certificate: Path
    key: Path
    profile: Path | None = None
    """Where docxy's profiles go, if it is to be profiled."""

    def stage(self, schemes: frozenset[str]) -> Stage:
        """Not started."""
        registry = self.registry("registry", "http", None)
        upstream = self.registry("upstream", "https", None)
        nginx = self.nginx(schemes | {"http"}, upstream.url)
        targets: dict[str, dict[str, Target]] = {}
        for scheme in sorted(schemes | {"http"}):
            targets[scheme] = {
                "docxy": self.docxy(f"docxy-{scheme}", upstream.url, scheme),
                "nginx": nginx[scheme],
                "proxy": self.registry(f"proxy-{scheme}", scheme, upstream.url),
                "registry": registry if scheme == "http" else self.registry("registry-https", scheme, None),
            }
            if "distribution" in self.programs:
                targets[scheme]["proxy3"] = self.registry(f"proxy3-{scheme}", scheme, upstream.url, "distribution")
        return Stage(targets, upstream)

    def docxy(self, name: str, upstream: str, scheme: str = "http", *options: str) -> Target:
        """`name`: of its cache and its logs; `options`: more of them."""
        twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
        if self.profile is not None:
            saved = str(self.profile / f"{name}.prof")
            twistd += ["--profile", saved, "--profiler", "cprofile", "--savestats"]
        port = free_port()
        listen = ["--port", str(port), "--cert", "off"]
        if scheme == "https":
            pair = ["--cert", str(self.certificate), "--key", str(self.key)]
            listen = ["--https-port", str(port), "--http-port", "0", *pair]
        config = self.directory / f"{name}.toml"
        authority = f'ca_file = "{self.certificate}"\n' if upstream.startswith("https:") else ""
        config.write_text(f'[[upstreams]]\nname = "bench.test"\nurl = "{upstream}"\n{authority}', "utf-8")
        argv = [*twistd, "docxy", "--interface", HOST, *listen, "--auth", "none", "--config", str(config)]
        argv += ["--cache", str(self.directory / name), "--access-log", str(self.directory / f"{name}-access.log")]
        if "--workers" not in options:
            argv += ["--workers", "1"]
        environ = {"PYTHONPATH": str(TOP)}
        return self._target("docxy", [*argv, *options], port, self.directory / f"{name}.log", scheme, environ)

    def site(self) -> Target:
        """A bare Site of Twisted's."""
        port = free_port()
        argv = [sys.executable, str(Path(__file__).with_name("bare.py")), str(port)]
        return self._target("site", argv, port, self.directory / "site.log", "http")

    def registry(self, name: str, scheme: str, upstream: str | None, program: str = "docker-registry") -> Target:
        """With an upstream a mirror with a storage of its own, else one that serves the content's."""
        storage = self.directory / ("content" if upstream is None else name)
        port = free_port()
        http: dict[str, object] = {"addr": f"{HOST}:{port}", "secret": "only one instance"}
        if scheme == "https":
            http["tls"] = {"certificate": str(self.certificate), "key": str(self.key)}
        settings: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(storage)}, "cache": {"blobdescriptor": "inmemory"}},
            "http": http,
        }
        if upstream is not None:
            settings["proxy"] = {"remoteurl": upstream}
        config = self.directory / f"{name}.yml"
        # JSON is YAML too.
        config.write_text(json.dumps(settings, indent=1), "utf-8")
        argv = [self.programs[program], "serve", str(config)]
        environ = {"SSL_CERT_FILE": str(self.certificate), "OTEL_TRACES_EXPORTER": "none"}
        return self._target(name.partition("-")[0], argv, port, self.directory / f"{name}.log", scheme, environ)

    def far(self, target: Target, latency: float, rate: float) -> Target:
        """A server behind a slow line: seconds of a round trip, and bytes a second of a connection."""
        port = free_port()
        slow = str(Path(__file__).with_name("slow.py"))
        argv = [sys.executable, slow, str(port), str(target.server.ports[0]), str(latency), str(rate)]
        return self._target("far", argv, port, self.directory / "far.log", "http")

    def nginx(self, schemes: frozenset[str], upstream: str) -> Mapping[str, Target]:
        """One server; as mirrors made of nginx have it: proxy_cache with a lock, sendfile."""
        directory = self.directory
        ports = {scheme: free_port() for scheme in sorted(schemes)}
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
    ssl_certificate {self.certificate};
    ssl_certificate_key {self.key};
    ssl_protocols TLSv1.3;
    proxy_cache_path {directory}/nginx-cache levels=1:2 keys_zone=cache:10m max_size=64g inactive=1d use_temp_path=off;
    proxy_cache cache;
    proxy_cache_valid 200 1d;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 880s;
    proxy_cache_lock_age 880s;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate {self.certificate};
    proxy_ssl_name {NAME};
    proxy_ssl_protocols TLSv1.3;
{listening}
}}
""",
            "utf-8",
        )
        argv = [self.programs["nginx"], "-c", str(config), "-e", str(directory / "nginx-error.log")]
        server = Server("nginx", argv, list(ports.values()), directory / "nginx.log")
        return {scheme: Target(server, f"{scheme}://{HOST}:{port}") for scheme, port in ports.items()}

    def _target(
        self,
        name: str,
        argv: Sequence[str],
        port: int,
        log: Path,
        scheme: str,
        environ: Mapping[str, str] | None = None,
    ) -> Target:
        return Target(Server(name, argv, [port], log, environ or {}), f"{scheme}://{HOST}:{port}")
