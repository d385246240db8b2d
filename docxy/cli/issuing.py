"""What `docxy doctor` looks at where docxy gets its certificate from an ACME server: names and port 80.

The law: only the names that are configured are asked, for a challenge that nobody has open.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException

from docxy.cli.checks import PATIENCE, Finding
from docxy.settings.model import Config

PORT = 80
"""Where an ACME server asks (RFC 8555, section 8.3)."""
_PROBE = "/.well-known/acme-challenge/docxy-doctor"
_OURS = b"no such challenge is open"


def acme(
    config: Config, is_running: bool, port: int = PORT, resolve: Callable[..., object] = socket.getaddrinfo
) -> Iterator[Finding]:
    """Whether an ACME server can come to docxy, as far as this machine can tell; `is_running`: whether docxy does."""
    if config.issuing is None or config.issuing.acme is None:
        return
    for name in config.issuing.names:
        try:
            resolve(name, port)
        except OSError as error:
            why = error.strerror or "unknown"
            yield Finding("bad", name, f"has no address: {why}", f"add an A or AAAA record for {name} that leads here")
            continue
        if is_running:
            yield _reached(name, port)


def _reached(name: str, port: int) -> Finding:
    """Who answers at the port of a name; from here another may answer than from the internet."""
    what = f"port {port} of {name}"
    mend = f"lead port {port} of {name} to docxy's http_port, in DNS, firewall and router"
    connection = HTTPConnection(name, port, timeout=PATIENCE)
    try:
        connection.request("GET", _PROBE)
        body = connection.getresponse().read(4096)
    except (OSError, HTTPException) as error:
        words = f"does not answer this machine: {getattr(error, 'strerror', None) or error}"
        return Finding("warn", what, words, f"{mend}; behind a router it may answer the internet all the same")
    finally:
        connection.close()
    if _OURS in body:
        return Finding("good", what, "leads to docxy")
    return Finding("bad", what, "is answered by another program than docxy", mend)
