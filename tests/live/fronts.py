"""An nginx between docxy and a registry, which can be told to misbehave.

The law: it passes on what it does not spoil, byte for byte, redirects and challenges too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from attrs import define, field

from tests.harness.processes import Daemon, accepts, free_port, which
from tests.live.watching import Request, blobs_line


def nginx(directory: Path, servers: str, port: int, host: str = "127.0.0.1") -> Daemon:
    """An nginx with these `server` blocks, one of which listens on `port`; it logs to `directory`/access.log."""
    temporary = "\n".join(
        f"{kind}_temp_path {directory}/nginx-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "access.log").touch()
    config = directory / "nginx.conf"
    config.write_text(
        f"""
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    {temporary}
    log_format requests escape=json
        '{{"method":"$request_method","path":"$request_uri","status":"$status","sent":"$body_bytes_sent","range":"$http_range"}}';
    access_log {directory}/access.log requests;
    default_type application/octet-stream;
    sendfile on;
    {servers}
}}
"""
    )
    argv = [which("nginx") or "nginx", "-c", str(config), "-e", str(directory / "error.log")]
    return Daemon("nginx", argv, directory / "nginx.log", accepts(port, host))


def challenging(directory: Path, port: int, registry: int, realm: str, service: str) -> Daemon:
    """An nginx that lets those with a token read from the registry on this port, whoever made the token."""
    challenge = f'Bearer realm="{realm}",service="{service}",scope="repository:$repository:pull"'
    return nginx(
        directory,
        f"""
    map $uri $repository {{
        "~^/v2/(?<name>.+)/(manifests|blobs|tags|referrers)/" $name;
    }}
    map $http_authorization $challenge {{
        "~^Bearer " "";
        default '{challenge}';
    }}
    server {{
        listen 127.0.0.1:{port};
        add_header WWW-Authenticate $challenge always;
        location / {{
            if ($challenge) {{
                return 401;
            }}
            proxy_pass http://127.0.0.1:{registry};
            proxy_set_header Host $http_host;
        }}
    }}
""",
        port,
    )


@define
class Front:
    """Passes everything to one origin, until told to answer with a status instead."""

    directory: Path
    """Its own, existing and empty."""
    origin: str
    """URL, no path."""
    rate: int = 0
    """Bytes a second of an answer; 0: as fast as it can."""
    port: int = field(factory=free_port)
    daemon: Daemon = field(init=False)

    def __attrs_post_init__(self) -> None:
        refusals = "\n".join(f"if (-f {self._refusal(status)}) {{ return {status}; }}" for status in (429, 503))
        self.daemon = nginx(
            self.directory,
            f"""
    server {{
        listen 127.0.0.1:{self.port};
        {refusals}
        limit_rate {self.rate};
        location / {{
            proxy_pass {self.origin};
            proxy_set_header Host $http_host;
            proxy_redirect off;
            proxy_buffering off;
        }}
    }}
""",
            self.port,
        )

    @property
    def url(self) -> str:
        """Its own."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it."""
        self.daemon.start()

    def stop(self) -> None:
        """Stop it."""
        self.daemon.stop()

    def refuse(self, status: int) -> None:
        """Answer everything with 429 or 503 from now on."""
        self._refusal(status).touch()

    def requests(self) -> list[Request]:
        """What it was asked so far, as far as it has been answered."""
        lines = (self.directory / "access.log").read_text().splitlines()
        return [blobs_line(line) for line in lines if json.loads(line)["path"] != "/"]

    def _refusal(self, status: int) -> Path:
        return self.directory / f"refuse-{status}"
