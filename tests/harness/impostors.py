"""Certificates that no client may take, for whatever it connects to."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from ipaddress import ip_address

from attrs import frozen
from cryptography import x509

from tests.harness.certificates import Issued, issue


class Fault(Enum):
    """What is wrong with a certificate."""

    NAME = "name"
    EXPIRED = "expired"
    EARLY = "early"
    AUTHORITY = "authority"


@frozen
class Impostor:
    """Who presents a certificate to those who want to speak to `host`."""

    what: str
    host: str
    fault: Fault
    issued: Issued


def impostors(ca: Issued, host: str, address: str) -> Iterator[Impostor]:
    """All kinds.  `ca`: an authority that clients trust; the common name is right everywhere."""

    def named(host: str, *general: x509.GeneralName) -> Issued:
        return issue(general=general, by=ca, common_name=host)

    dns = x509.DNSName
    for what, issued in (
        ("no subjectAltName", named(host)),
        ("an e-mail address alone", named(host, x509.RFC822Name(f"x@{host}"))),
        ("a URL alone", named(host, x509.UniformResourceIdentifier(f"https://{host}"))),
        ("a partial wildcard", named(host, dns(f"{host[:3]}*"))),
        ("a wildcard for all", named(host, dns("*"))),
        ("another name", named(host, dns("other.example"))),
        ("an address", named(host, x509.IPAddress(ip_address(address)))),
    ):
        yield Impostor(what, host, Fault.NAME, issued)
    for what, issued in (
        ("an address as DNS name", named(address, dns(address))),
        ("an address as common name", named(address)),
        ("another address", named(address, x509.IPAddress(ip_address("192.0.2.1")))),
    ):
        yield Impostor(what, address, Fault.NAME, issued)
    yield Impostor("expired", host, Fault.EXPIRED, issue(host, by=ca, days=-1))
    yield Impostor("not valid yet", host, Fault.EARLY, issue(host, by=ca, begins=10))
    yield Impostor("another CA", host, Fault.AUTHORITY, issue(host, by=issue(common_name="another CA")))
    yield Impostor("signed by itself", host, Fault.AUTHORITY, issue(host))
