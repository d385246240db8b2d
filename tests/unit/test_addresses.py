"""Whose address counts, and which addresses may come."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.addresses import Networks, throttled_as
from tests.unit.access.harness import PASSWORDS, basic, door, lines, logged, write


class AddressTests(SynchronousTestCase):
    def assertAddress(self, wanted: str, at: str, *forwarded: str, trusted: tuple[str, ...] = ()) -> None:
        answer = door({"trusted_proxies": list(trusted)}).ask(
            "/v2/", at=at, headers=tuple(f"X-Forwarded-For: {line}" for line in forwarded)
        )
        self.assertEqual(answer.body["address"], wanted)

    def test_peer(self) -> None:
        """Without trusted proxies the peer's address counts, whatever it claims; IPv4 in IPv6 is IPv4."""
        self.assertAddress("192.0.2.1", "192.0.2.1")
        self.assertAddress("192.0.2.1", "192.0.2.1", "10.0.0.1")
        self.assertAddress("192.0.2.1", "::ffff:192.0.2.1")
        self.assertAddress("2001:db8::1", "2001:0db8:0:0::1")
        self.assertAddress("unix", "unix", "10.0.0.1")

    def test_stranger_claims(self) -> None:
        """X-Forwarded-For of a peer that is not listed is ignored though others are."""
        self.assertAddress("192.0.2.1", "192.0.2.1", "10.0.0.1", trusted=("127.0.0.1",))

    def test_trusted(self) -> None:
        """Of what a trusted proxy says, the rightmost entry that is no trusted proxy counts."""
        trusted = ("127.0.0.0/8", "unix", "2001:db8::/32")
        self.assertAddress("198.51.100.7", "127.0.0.1", "198.51.100.7", trusted=trusted)
        self.assertAddress("198.51.100.7", "unix", "198.51.100.7", trusted=trusted)
        self.assertAddress("198.51.100.7", "::ffff:127.0.0.1", "198.51.100.7", trusted=trusted)
        self.assertAddress("198.51.100.7", "127.0.0.1", "6.6.6.6, 198.51.100.7 , 127.0.0.2", trusted=trusted)
        self.assertAddress("198.51.100.7", "127.0.0.1", "6.6.6.6", "198.51.100.7", "2001:db8::9", trusted=trusted)

    def test_forms(self) -> None:
        """Ports, brackets and mapped addresses are understood."""
        for entry, wanted in (
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
        ):
            self.assertAddress(wanted, "127.0.0.1", entry, trusted=("127.0.0.1",))

    def test_only_proxies(self) -> None:
        """With nobody but trusted proxies the first of them is the client."""
        self.assertAddress("127.0.0.1", "127.0.0.1", trusted=("127.0.0.0/8",))
        self.assertAddress("127.0.0.3", "127.0.0.1", "127.0.0.3, 127.0.0.2", trusted=("127.0.0.0/8",))

    def test_unreadable(self) -> None:
        """An entry that is no address hides those left of it, and is no address that is in a list."""
        for entry in ("unknown", "10.0.0.1, unix:", "10.0.0.1, 1.2.3.4.5", "10.0.0.1, é"):
            self.assertAddress("unknown", "127.0.0.1", entry, trusted=("127.0.0.1",))
        for lists in ({"allow": ["0.0.0.0/0", "::/0", "unix"]}, {"deny": ["203.0.113.1"]}):
            refusing = door({"trusted_proxies": ["127.0.0.1"], **lists})
            answer = refusing.ask("/v2/", at="127.0.0.1", headers=("X-Forwarded-For: unknown",))
            self.assertEqual((answer.status, answer.code), (403, "DENIED"))


class ForwardedTests(SynchronousTestCase):
    """RFC 7239's header, where the trusted proxies write that one."""

    def assertAddress(self, wanted: str, *lines: str, other: str | None = None) -> None:
        table = {"trusted_proxies": ["127.0.0.0/8", "2001:db8::/32"], "address_header": "forwarded"}
        headers = tuple(f"Forwarded: {line}" for line in lines)
        if other is not None:
            headers += (f"X-Forwarded-For: {other}",)
        answer = door(table).ask("/v2/", at="127.0.0.1", headers=headers)
        self.assertEqual(answer.body["address"], wanted, lines)

    def test_forms(self) -> None:
        """Tokens, quotes, ports, other parameters, white space, and the address without its quotes."""
        for line in (
            "for=198.51.100.7",
            'For="198.51.100.7:4711";proto=https;by=203.0.113.43',
            "proto=http ;host=mirror.example; for=198.51.100.7",
            "for=198.51.100.7:4711",
            'for="198\\.51.100.7"',
            " for=198.51.100.7 , ",
        ):
            self.assertAddress("198.51.100.7", line)
        self.assertAddress("2001:db9::1", 'for="[2001:db9::1]:4711"')
        self.assertAddress("2001:db9::1", "for=[2001:DB9::1]")

    def test_rightmost(self) -> None:
        """Of elements and lines the rightmost that is no trusted proxy counts."""
        self.assertAddress("198.51.100.7", "for=6.6.6.6, for=198.51.100.7;by=x, for=127.0.0.2")
        self.assertAddress("198.51.100.7", "for=6.6.6.6", "for=198.51.100.7", 'for="[2001:db8::9]"')

    def test_untold(self) -> None:
        """What hides an address, or says two, makes a client of unknown address."""
        for line in ("for=unknown", "for=_hidden", "proto=https", "for=1.1.1.1;for=2.2.2.2", "for=1.1.1.1, by=x"):
            self.assertAddress("unknown", line)

    def test_open_quote(self) -> None:
        """A quote that a client leaves open does not swallow what the proxy writes behind it."""
        for line in ('for="', 'for=10.0.0.1;x="', 'for=10.0.0.1;x="\\'):
            self.assertAddress("unknown", f"{line}, for=198.51.100.7")
            self.assertAddress("unknown", f'{line}, for="[2001:db9::7]:4711"')
            self.assertAddress("198.51.100.7", line, "for=198.51.100.7")

    def test_long(self) -> None:
        """A line that takes long to be seen through is read once, not once for each of its blanks."""
        for line in (" " * 20_000 + '"', "for=a," + " " * 20_000 + '"', 'x="' + "\\\\" * 10_000, "," * 20_000 + "for="):
            self.assertAddress("unknown", line)

    def test_the_other(self) -> None:
        """The header that the proxies do not write is the client's, and counts for nothing."""
        self.assertAddress("198.51.100.7", "for=198.51.100.7", other="10.0.0.1")
        self.assertAddress("127.0.0.1", other="10.0.0.1")
        answer = door({"trusted_proxies": ["127.0.0.1"]}).ask(
            "/v2/", at="127.0.0.1", headers=("Forwarded: for=10.0.0.1", "X-Forwarded-For: 198.51.100.7")
        )
        self.assertEqual(answer.body["address"], "198.51.100.7")


class ListTests(SynchronousTestCase):
    def statuses(self, table: dict[str, object], *addresses: str) -> list[int]:
        return [door(table).ask("/v2/", at=address).status for address in addresses]

    def test_allow(self) -> None:
        """With an allow list nobody else comes in."""
        table: dict[str, object] = {"allow": ["10.0.0.0/8", "2001:db8::/32"]}
        addresses = ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "11.0.0.1", "2001:db9::1", "unix")
        self.assertEqual(self.statuses(table, *addresses), [200, 200, 200, 403, 403, 403])
        self.assertEqual(self.statuses({"allow": ["unix"]}, "unix", "127.0.0.1"), [200, 403])

    def test_deny(self) -> None:
        """What is denied is, though it be allowed too."""
        self.assertEqual(self.statuses({"deny": ["10.0.0.5"]}, "10.0.0.5", "10.0.0.6"), [403, 200])
        table: dict[str, object] = {"allow": ["10.0.0.0/8"], "deny": ["10.0.0.5"]}
        self.assertEqual(self.statuses(table, "10.0.0.5", "10.0.0.6", "9.0.0.1"), [403, 200, 403])

    def test_everything(self) -> None:
        """Pulls and token requests are refused as pings are, each with a line in the log."""
        refusing = door({"deny": ["192.0.2.0/24"]})
        for uri in ("/v2/", "/v2/library/alpine/manifests/latest", "/auth/token"):
            with logged() as said:
                answer = refusing.ask(uri)
            self.assertEqual((answer.status, answer.code), (403, "DENIED"))
            self.assertEqual(len([line for line in said if line.startswith("refused nobody at 192.0.2.1: ")]), 1)

    def test_with_accounts(self) -> None:
        """A right password or token is no way round the lists."""
        path = write(self.mktemp(), lines())
        guarded = door({"htpasswd": path, "deny": ["10.0.0.5"]})
        bearer = guarded.bearer("alice", "repository:a/b:pull")
        for authorization in (basic("alice", PASSWORDS["alice"]), bearer):
            for uri in ("/v2/", "/v2/a/b/manifests/c", "/auth/token?scope=repository:a/b:pull"):
                self.assertEqual(guarded.ask(uri, authorization, at="10.0.0.5").status, 403)
        self.assertEqual(guarded.ask("/v2/a/b/manifests/c", bearer).status, 200)

    def test_open(self) -> None:
        """Without accounts everybody is let in, whatever they send, and tokens are somebody else's business."""
        everyone = door({})
        self.assertFalse(everyone.gate.asks)
        for authorization in (None, "Basic !", "Bearer x", "Digest y"):
            self.assertEqual(everyone.ask("/v2/a/b/manifests/c", authorization).status, 200)
        self.assertIsNone(everyone.ask("/auth/token", "Bearer x").body)

    def test_networks(self) -> None:
        """A list of nothing is false and holds nothing."""
        self.assertFalse(Networks())
        self.assertNotIn("unix", Networks())
        self.assertTrue(Networks.of(["unix"]))

    def test_throttled_as(self) -> None:
        """A network of one IPv6 host counts as one address."""
        self.assertEqual(throttled_as("2001:db8::1"), throttled_as("2001:db8::ffff:1:2:3"))
        self.assertNotEqual(throttled_as("2001:db8::1"), throttled_as("2001:db8:0:1::1"))
        self.assertEqual(throttled_as("192.0.2.1"), "192.0.2.1")
        self.assertEqual(throttled_as("unix"), "unix")
