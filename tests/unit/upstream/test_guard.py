"""Which addresses are of the public internet, and that no name leads to another."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IAddress, IHostResolution, IReactorPluggableNameResolver, IResolutionReceiver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from docxy.addresses import is_public
from docxy.upstream.guard import PublicReactor, PublicResolver
from tests.unit.pull.several import Names

PUBLIC = (
    "93.184.216.34",
    "1.1.1.1",
    "2606:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
    "2002:101:101::1",
    *("192.0.1.1", "198.20.0.1", "203.0.114.1", "2001:200::1", "2001:db7::1", "3ffe::1", "2a00::1"),
)
NOT_PUBLIC = (
    # loopback, "this network", private, carrier-grade
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
    *("192.168.1.1", "100.64.0.1", "::1", "::", "fc00::1", "fd12:3456::1"),
    # link-local, and the metadata services of clouds
    *("169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200"),
    # multicast, broadcast, documentation, benchmarks, reserved
    *("224.0.0.1", "239.1.1.1", "ff02::1", "255.255.255.255", "192.0.2.1", "2001:db8::1", "198.18.0.1", "240.0.0.1"),
    # all of IANA's registries, to their last address, whatever this version of Python says
    *("192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.0.255", "192.31.196.1", "192.52.193.1", "192.88.99.1"),
    *("192.175.48.1", "198.19.255.255", "198.51.100.1", "203.0.113.255", "3fff::1", "3fff:fff:ffff::1", "2001::1"),
    *("2001:1::1", "2001:20::1", "2001:1ff:ffff::1", "2620:4f:8000::1", "100::1", "100:0:0:1::1", "5f00::1"),
    *("::ffff:192.0.0.192", "64:ff9b::c000:c0", "2002:c000:c0::1"),
    # the same in other clothes: IPv4-mapped, IPv4-compatible, NAT64, 6to4, Teredo
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::7f00:1", "2002:7f00:1::1", "2002:a9fe:a9fe::", "2001:0:7f00:1::", "fec0::1"),
    # no addresses at all
    *("", "localhost", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5", "[::1]"),
)


class IsPublic(SynchronousTestCase):
    def test_public(self) -> None:
        """Addresses of the internet are, in whatever form."""
        for address in PUBLIC:
            self.assertTrue(is_public(address), address)

    def test_not_public(self) -> None:
        """All others are not, in whatever form."""
        for address in NOT_PUBLIC:
            self.assertFalse(is_public(address), address)


@implementer(IResolutionReceiver)
@define
class Receiver:
    hosts: list[str] = field(factory=list)
    events: list[str] = field(factory=list)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.events.append("began")

    def addressResolved(self, address: IAddress) -> None:
        self.hosts.append(getattr(address, "host", ""))

    def resolutionComplete(self) -> None:
        self.events.append("complete")


class Resolving(SynchronousTestCase):
    def test_left_out(self) -> None:
        """Only public addresses come through; the others are named, and the resolution ends as it does."""
        resolver = PublicResolver(Names({"mixed.example": ["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1111"]}))
        receiver = Receiver()
        resolver.resolveHostName(receiver, "mixed.example", 443)
        self.assertEqual(receiver.hosts, ["1.1.1.1", "2606:4700::1111"])
        self.assertEqual(resolver.refused, ["10.0.0.1", "::1"])
        self.assertEqual(receiver.events, ["began", "complete"])

    def test_literals(self) -> None:
        """An address that stands in a URL is looked at like any other."""
        for literal in ("127.0.0.1", "169.254.169.254", "::1"):
            resolver, receiver = PublicResolver(Names({})), Receiver()
            resolver.resolveHostName(receiver, literal, 80)
            self.assertEqual((receiver.hosts, resolver.refused), ([], [literal]))


class Facade(SynchronousTestCase):
    def test_facade(self) -> None:
        """It is a reactor whose names are guarded, and whose resolver nobody exchanges."""

        class Reactor:
            nameResolver = Names({})
            marker = object()

        reactor: Any = Reactor()
        facade = PublicReactor(reactor)
        self.assertTrue(verifyObject(IReactorPluggableNameResolver, facade))
        self.assertIs(facade.marker, reactor.marker)
        self.assertRaises(NotImplementedError, facade.installNameResolver, Names({}))
