"""Where a request comes from, and which addresses may come.

Pure.  The law: a header says something about an address only when the peer that sent it is
listed as a trusted proxy, and only the one header that those proxies write: they pass the other on as
the client sent it.  An address that cannot be told is in no list and passes none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache

from attrs import field, frozen

UNIX = "unix"
"""Stands for the address of a peer on a Unix socket."""
UNKNOWN = "unknown"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: an IPv4 address is in the last four bytes."""
_SPECIAL_IPV4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        ),
    )
)
_SPECIAL_IPV6 = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"))
)
"""IANA's registries of special-purpose addresses, and multicast: no registry is there.  What Python calls
global differs from version to version."""
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that the internet routes (RFC 4291); not so ::a.b.c.d, whatever Python says of it."""


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


def peer(address: object) -> str:
    """Who is at the other end of a connection; `address`: an `IAddress`."""
    host = getattr(address, "host", None)
    return UNIX if host is None else normalised(str(host)) or UNKNOWN


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet (no loopback, link-local, private, metadata…)."""
    parsed: _Address
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        embedded = parsed.ipv4_mapped or parsed.sixtofour
        if embedded is None and parsed in _NAT64:
            embedded = ipaddress.IPv4Address(parsed.packed[-4:])
        if embedded is None:
            return parsed in _UNICAST and not any(parsed in network for network in _SPECIAL_IPV6)
        parsed = embedded
    return not any(parsed in network for network in _SPECIAL_IPV4)


def throttled_as(address: str) -> str:
    """Whom failures from this address count for: one host, which in IPv6 has a /64 to itself."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address


class AddressHeader(Enum):
    """Where trusted proxies write whom they speak for."""

    X_FORWARDED_FOR = "X-Forwarded-For"
    FORWARDED = "Forwarded"
    """RFC 7239."""


@frozen
class Perimeter:
    """The lists of addresses that an operator wrote."""

    allow: Networks = field(factory=Networks)
    """Empty: everyone."""
    deny: Networks = field(factory=Networks)
    """Goes before `allow`."""
    trusted_proxies: Networks = field(factory=Networks)
    proxy_protocol_from: Networks = field(factory=Networks)
    """Those whose connections begin with a PROXY header."""
    address_header: AddressHeader = AddressHeader.X_FORWARDED_FOR

    def client(self, at: str, forwarded: Sequence[bytes]) -> str:
        """The address of the client, of whom a peer sent a request with these lines of `address_header`.

        `at`: the peer's, as `peer` gives it.  See `IGate.address`.
        """
        if at not in self.trusted_proxies:
            return at
        lines = [line.decode("latin-1") for line in forwarded]
        if self.address_header is AddressHeader.FORWARDED:
            entries = [entry for line in lines for entry in _forwarded(line)]
        else:
            entries = [entry.strip() for line in lines for entry in line.split(",")]
        for entry in reversed([entry for entry in entries if entry]):
            at = normalised(_bare(entry)) or UNKNOWN
            if at not in self.trusted_proxies:
                return at
        return at

    def admits(self, address: str) -> bool:
        """Whether an address, as `client` gives it, may come in at all."""
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


_PAIR = re.compile(r'[ \t]*(?:([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^ \t";,]+)[ \t]*)?([;,]|\Z)')
"""A parameter of `Forwarded`, and what ends it.  Blanks match in one way only, or a line of them would take the square
of its length.  An address without the quotes that RFC 7239 asks for is read, too."""


def _forwarded(line: str) -> list[str]:
    """Who an element's `for` says it is, for each element of a line of `Forwarded`; UNKNOWN where it says nothing.

    A line that cannot be read says nothing of anybody: a quote that a client left open would swallow what a proxy
    wrote behind it.
    """
    entries: list[str] = []
    said: list[str] = []
    empty = True
    at = 0
    while True:
        found = _PAIR.match(line, at)
        if found is None:
            return [UNKNOWN]
        name, value, end = found.groups()
        if name is not None:
            empty = False
            if name.lower() == "for":
                said.append(re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value)
        if end != ";":
            if not empty:
                entries.append(said[0] if len(said) == 1 else UNKNOWN)
            said, empty = [], True
        if not end:
            return entries
        at = found.end()


def _bare(entry: str) -> str:
    """An entry without the port and brackets that some proxies write."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::\d+)?", entry)
    if bracketed is not None:
        return bracketed.group(1)
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def is_literal(host: str) -> bool:
    """Whether a host is an address, without brackets around IPv6, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
