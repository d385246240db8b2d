"""Where a request comes from, and which addresses may come.

Pure.  The law: a header says something about an address only when the peer that sent it is
listed as a trusted proxy; an address that cannot be told is in no list and passes none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from attrs import field, frozen
from twisted.internet.interfaces import IAddress
from twisted.web.http import Request

UNIX = "unix"
"""The address of whoever is at the other end of a Unix socket."""
UNKNOWN = "unknown"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@frozen
class Networks:
    """A list of networks, and perhaps Unix sockets."""

    networks: tuple[_Network, ...] = ()
    unix: bool = False

    @classmethod
    def of(cls, texts: Iterable[str]) -> Networks:
        """From addresses, networks (`10.0.0.0/8`) and `unix`.  Raises ValueError as `network` does."""
        listed = tuple(texts)
        return cls(tuple(network(text) for text in listed if text != UNIX), UNIX in listed)

    def __bool__(self) -> bool:
        return self.unix or bool(self.networks)

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return self.unix
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self.networks)


def network(text: str) -> _Network:
    """A network or a single address; raises ValueError whose message follows the text in a sentence."""
    try:
        parsed = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("is neither an address nor a network such as 10.0.0.0/8") from None
    if str(parsed.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise ValueError(f"has bits set behind its prefix; {parsed} is probably meant")
    if isinstance(parsed, ipaddress.IPv6Network) and parsed.subnet_of(_MAPPED):
        raise ValueError("is IPv4 written as IPv6; write it as IPv4")
    return parsed


@lru_cache(maxsize=1024)
def normalised(text: str) -> str | None:
    """An address as it is compared and shown: without zone, IPv4 as IPv4; None when it is none."""
    parsed = _parsed(text)
    return None if parsed is None else str(parsed)


def peer(address: IAddress) -> str:
    """Who is at the other end of a connection."""
    host = getattr(address, "host", None)
    return UNIX if host is None else normalised(str(host)) or UNKNOWN


def throttled_as(address: str) -> str:
    """Whom failures from this address count for: one host, which in IPv6 has a /64 to itself."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address


@frozen
class Perimeter:
    """The lists of addresses that an operator wrote."""

    allow: Networks = field(factory=Networks)
    """Empty: everyone."""
    deny: Networks = field(factory=Networks)
    """Goes before `allow`."""
    trusted_proxies: Networks = field(factory=Networks)

    @property
    def is_open(self) -> bool:
        """Whether it makes no difference where a request comes from, nor is that told by headers."""
        return not (self.allow or self.deny or self.trusted_proxies)

    def address(self, request: Request) -> str:
        """See `IGate.address`."""
        at = peer(request.getClientAddress())
        if at not in self.trusted_proxies:
            return at
        # As bytes: text would have to be UTF-8, and whatever came must not be an error.
        lines = request.requestHeaders.getRawHeaders(b"X-Forwarded-For", [])
        entries = [entry.strip() for line in lines for entry in line.decode("latin-1").split(",")]
        for entry in reversed([entry for entry in entries if entry]):
            at = normalised(_bare(entry)) or UNKNOWN
            if at not in self.trusted_proxies:
                return at
        return at

    def admits(self, address: str) -> bool:
        """Whether an address, as `address` gives it, may come in at all."""
        if address == UNKNOWN:
            return not self.allow and not self.deny
        return address not in self.deny and (not self.allow or address in self.allow)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> _Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _bare(entry: str) -> str:
    """An entry of X-Forwarded-For without the port and brackets that some proxies write."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::\d+)?", entry)
    if bracketed is not None:
        return bracketed.group(1)
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
