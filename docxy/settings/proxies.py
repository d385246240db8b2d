"""Which HTTP proxy leads to an upstream, as an operator or the environment says.

Pure.  The law: the environment is read once, when the daemon starts; a proxy's URL, which may hold a
password, is never part of an error.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from attrs import field, frozen


@frozen
class Proxy:
    """Where the proxy is."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """From `http://user:password@proxy.example:3128`; raises ValueError in words for the operator."""
        wrong = "is not the URL of an http proxy, as http://proxy.example:3128"
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            # Its message may hold what it took for a port: the password of a URL without its @.
            raise ValueError(wrong) from None
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(wrong)
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + b64encode(pair.encode("utf-8")).decode("ascii")
        return cls(parts.hostname, port or 3128, authorization)


def from_environment(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name for an upstream's URL.

    None for loopback, even if they name one: a proxy on another machine has another loopback.
    """
    lowered = {name.lower(): value for name, value in environ.items() if value}
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or _bypassed(host, lowered.get("no_proxy", "")):
        return None
    return lowered.get(f"{parts.scheme}_proxy") or lowered.get("all_proxy")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bypassed(host: str, no_proxy: str) -> bool:
    """Whether `NO_PROXY` covers a host: itself, a domain above it, a network of addresses, or `*`."""
    for entry in (entry.strip().strip("[]").lower() for entry in no_proxy.split(",")):
        name = entry.removeprefix("*").lstrip(".").partition(":")[0] if entry.count(":") == 1 else entry.lstrip("*.")
        if entry == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
        try:
            if ip_address(host) in ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
