"""What every catalog promises, but of history.  Mixed into one SynchronousTestCase for each catalog."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from docxy.catalog import interfaces, schema
from docxy.catalog.interfaces import HeldManifest, ICatalog, ListingRecord, RelayedToken, TagRecord, is_recent
from docxy.catalog.known import MAX_MESSAGE, MAX_MISSING, MAX_PAGE_NAME
from docxy.names import Digest
from tests.unit.catalog.case import ONE, TWO, CatalogCase


class CatalogContract(CatalogCase):
    """Tags, rights, listings, claims, and upkeep."""

    def test_interfaces(self) -> None:
        """Every part has the methods it promises."""
        verifyObject(ICatalog, self.catalog)
        for interface, part in (
            (interfaces.ITags, self.known.tags),
            (interfaces.IHeld, self.known.held),
            (interfaces.IVerdicts, self.known.verdicts),
            (interfaces.IListings, self.known.listings),
            (interfaces.IMissing, self.known.missing),
            (interfaces.IHistory, self.known.history),
            (interfaces.ITokens, self.catalog.tokens),
            (interfaces.IFacts, self.catalog.facts),
            (interfaces.IClaims, self.catalog.claims),
        ):
            verifyObject(interface, part)

    # -- tags

    def test_tag(self) -> None:
        """A tag's record: kept, postponed, kept anew, dropped, each for its own upstream, repository and name."""
        tags = self.known.tags
        self.assertIsNone(self.now(tags.get("r", "t")))
        tags.keep("r", "t", ONE, "type", 7)
        tags.postpone("r", "t", self.now(tags.get("r", "t")), 1010)
        self.assertEqual(self.now(tags.get("r", "t")), TagRecord(ONE, "type", 7, 1000, 1010))
        self.clock.advance(5)
        tags.keep("r", "t", TWO, "other", 8)
        for latest in (False, True):
            self.assertEqual(self.now(tags.get("r", "t", latest)), TagRecord(TWO, "other", 8, 1005, 0))
        for others, repository, tag in ((self.other.tags, "r", "t"), (tags, "s", "t"), (tags, "r", "T")):
            self.assertIsNone(self.now(others.get(repository, tag)))
            others.drop(repository, tag)
        self.assertIsNotNone(self.now(tags.get("r", "t")))
        tags.drop("r", "t")
        self.assertIsNone(self.now(tags.get("r", "t")))
        self.assertIsNone(self.now(tags.get("r", "t", latest=True)))

    def test_newest(self) -> None:
        """The tags of one repository of one upstream, the newest first, no more than asked for."""
        tags = self.known.tags
        for tag in ("a", "b", "c"):
            tags.keep("r", tag, ONE, "type", 7)
            self.clock.advance(1)
        tags.keep("s", "d", ONE, "type", 7)
        self.other.tags.keep("r", "e", ONE, "type", 7)
        record = TagRecord(ONE, "type", 7, 1002, 0)
        self.assertEqual(self.now(tags.newest("r", 1)), [("c", record)])
        self.assertEqual([tag for tag, _ in self.now(tags.newest("r", 10))], ["c", "b", "a"])
        self.assertEqual(self.now(tags.newest("none", 10)), [])

    def test_drop_all_of(self) -> None:
        """Tags that point at a digest go with it, whatever they are called; others stay."""
        tags = self.known.tags
        for repository, tag, digest in (("r", "a", ONE), ("r", "b", ONE), ("r", "c", TWO), ("s", "a", ONE)):
            tags.keep(repository, tag, digest, "type", 7)
        self.other.tags.keep("r", "a", ONE, "type", 7)
        self.now(tags.drop_all_of("r", ONE))
        self.assertEqual([self.now(tags.get("r", each)) is None for each in "abc"], [True, True, False])
        self.assertIsNotNone(self.now(tags.get("s", "a")))
        self.assertIsNotNone(self.now(self.other.tags.get("r", "a")))

    def test_postpone_of_a_dropped_tag(self) -> None:
        """To postpone a tag that is gone does not bring it back."""
        tags = self.known.tags
        tags.keep("r", "t", ONE, "type", 7)
        record = self.now(tags.get("r", "t"))
        tags.drop("r", "t")
        self.now(self.catalog.flushed())
        tags.postpone("r", "t", record, 1010)
        self.assertIsNone(self.now(tags.get("r", "t", latest=True)))

    def test_at_once(self) -> None:
        """What was just asked for is known without waiting, what is absent too."""
        self.known.tags.keep("r", "t", ONE, "type", 7)
        self.known.held.hold_blob("r", ONE)
        self.known.held.hold_manifest("r", TWO, "type", 7)
        self.known.verdicts.allow("r", "c")

        def asked() -> list[Any]:
            return [
                self.known.tags.get("r", "t"),
                self.known.tags.get("r", "none"),
                self.known.held.blob("r", ONE),
                self.known.held.manifest("r", TWO),
                self.known.verdicts.allowed_at("r", "c"),
            ]

        for work in asked():
            self.now(work)
        at_once = []
        for work in asked():
            # A coroutine that waits for anything would yield here.
            with self.assertRaises(StopIteration) as ended:
                work.send(None)
            at_once.append(ended.exception.value)
        self.assertEqual(at_once, [TagRecord(ONE, "type", 7, 1000, 0), None, True, HeldManifest("type", 7, 1000), 1000])

    # -- held

    def test_held(self) -> None:
        """A blob is held by its repository of its upstream, and is no manifest."""
        held = self.known.held
        held.hold_blob("r", ONE)
        self.assertTrue(self.now(held.blob("r", ONE)))
        self.assertIsNone(self.now(held.manifest("r", ONE)))
        for others, repository, digest in ((held, "s", ONE), (held, "r", TWO), (self.other.held, "r", ONE)):
            self.assertFalse(self.now(others.blob(repository, digest)))

    def test_held_manifest(self) -> None:
        """A manifest has its type and size, is no blob, and may be both."""
        held = self.known.held
        held.hold_manifest("r", TWO, "type", 7)
        self.assertEqual(self.now(held.manifest("r", TWO)), HeldManifest("type", 7, 1000))
        self.assertFalse(self.now(held.blob("r", TWO)))
        self.assertIsNone(self.now(self.other.held.manifest("r", TWO)))
        held.hold_blob("r", TWO)
        self.assertTrue(self.now(held.blob("r", TWO)))
        self.assertIsNotNone(self.now(held.manifest("r", TWO)))
        held.drop("r", TWO)
        self.assertFalse(self.now(held.blob("r", TWO)))
        self.assertIsNone(self.now(held.manifest("r", TWO)))

    def test_use_keeps_age(self) -> None:
        """Being used does not make a manifest younger."""
        self.known.held.hold_manifest("r", ONE, "type", 7)
        self.clock.advance(100_000)
        for _ in range(2):
            self.assertEqual(self.now(self.known.held.manifest("r", ONE)), HeldManifest("type", 7, 1000))

    def test_any_manifest(self) -> None:
        """The one seen last; never a blob, never another repository's; none once dropped."""
        held = self.known.held
        self.assertIsNone(self.now(held.any_manifest("r")))
        held.hold_manifest("r", ONE, "type", 7)
        self.clock.advance(1)
        held.hold_manifest("r", TWO, "type", 7)
        self.clock.advance(1)
        held.hold_blob("r", Digest.of(b"blob"))
        held.hold_manifest("s", Digest.of(b"theirs"), "type", 7)
        self.assertEqual(self.now(held.any_manifest("r")), TWO)
        self.assertEqual(self.now(held.manifests("r", 10)), [TWO, ONE])
        self.assertEqual(self.now(held.manifests("r", 1)), [TWO])
        held.drop("r", TWO)
        self.assertEqual(self.now(held.any_manifest("r")), ONE)
        self.other.held.drop("r", ONE)
        self.assertEqual(self.now(held.any_manifest("r")), ONE)

    def test_repositories(self) -> None:
        """Names in order, behind a name, so many at most, and only public ones when that is asked."""
        for name in ("c", "a", "b", "d"):
            self.known.held.hold_blob(name, ONE)
            self.known.held.hold_blob(name, TWO)
        self.other.held.hold_blob("e", ONE)
        self.known.verdicts.publish("b")
        self.clock.advance(10)
        self.known.verdicts.publish("d")
        self.other.verdicts.publish("a")

        def names(after: str, limit: int, since: float | None) -> list[str]:
            return self.now(self.known.held.repositories(after, limit, since))

        self.assertEqual(names("", 10, None), ["a", "b", "c", "d"])
        self.assertEqual(names("a", 2, None), ["b", "c"])
        self.assertEqual((names("", 10, 1000), names("", 10, 1005)), (["b", "d"], ["d"]))

    # -- verdicts

    def test_verdict(self) -> None:
        """A verdict is one credential's, for one repository, and can be taken back."""
        verdicts = self.known.verdicts
        verdicts.allow("r", "c")
        self.assertEqual(self.now(verdicts.allowed_at("r", "c")), 1000)
        for others, repository, credential in (
            (self.other.verdicts, "r", "c"),
            (verdicts, "s", "c"),
            (verdicts, "r", "d"),
            (verdicts, "r", ""),
        ):
            self.assertIsNone(self.now(others.allowed_at(repository, credential)))
            others.revoke(repository, credential)
        self.assertEqual(self.now(verdicts.allowed_at("r", "c")), 1000)
        verdicts.revoke("r", "c")
        self.assertIsNone(self.now(verdicts.allowed_at("r", "c")))
        self.assertIsNone(self.now(verdicts.allowed_at("r", "c", latest=True)))

    def test_public(self) -> None:
        """That anonymous clients were let in is one repository's."""
        self.known.verdicts.publish("r")
        self.assertEqual(self.now(self.known.verdicts.public_at("r")), 1000)
        self.assertIsNone(self.now(self.known.verdicts.public_at("s")))
        self.assertIsNone(self.now(self.other.verdicts.public_at("r")))
        self.known.verdicts.unpublish("r")
        self.assertIsNone(self.now(self.known.verdicts.public_at("r")))

    def test_tokens(self) -> None:
        """Whose a token is, and what it was asked for, is known for as long as the token lives."""
        anonymous, owned = RelayedToken("", frozenset()), RelayedToken("account", frozenset({"a/b", "c"}))
        self.catalog.tokens.keep("c", anonymous, 1060)
        self.catalog.tokens.keep("d", owned, 1060)
        self.assertEqual([self.now(self.catalog.tokens.get(each)) for each in "cde"], [anonymous, owned, None])
        self.clock.advance(61)
        self.assertIsNone(self.now(self.catalog.tokens.get("c")))

    # -- listings, misses, facts

    def test_listing(self) -> None:
        """A page as it came, with and without a Link; dropped alone."""
        listings = self.known.listings
        listings.keep("r", "p", "type", b"\x00body", "<next>")
        listings.keep("r", "q", "type", b"", None)
        self.assertEqual(self.now(listings.get("r", "p")), ListingRecord("type", b"\x00body", "<next>", 1000))
        self.assertEqual(self.now(listings.get("r", "q")), ListingRecord("type", b"", None, 1000))
        self.assertIsNone(self.now(self.other.listings.get("r", "p")))
        listings.drop("r", "p")
        self.assertIsNone(self.now(listings.get("r", "p")))
        self.assertIsNotNone(self.now(listings.get("r", "q")))

    def test_long_names(self) -> None:
        """A page with a name as long as a client likes is not kept."""
        name = "tags/list?last=" + "x" * MAX_PAGE_NAME
        self.known.listings.keep("r", name, "type", b"{}", None)
        self.assertIsNone(self.now(self.known.listings.get("r", name)))
        self.known.missing.keep("r", name, "c", "not there", 10)
        self.assertIsNone(self.known.missing.message("r", name, "c"))

    def test_missing(self) -> None:
        """A miss stands for one credential, until its time is over, and not when the clock was set back."""
        missing = self.known.missing
        missing.keep("r", "t", "c", "not there", 10)
        self.assertEqual(missing.message("r", "t", "c"), "not there")
        for others, repository, reference, credential in (
            (self.other.missing, "r", "t", "c"),
            (missing, "s", "t", "c"),
            (missing, "r", "u", "c"),
            (missing, "r", "t", ""),
        ):
            self.assertIsNone(others.message(repository, reference, credential))
        self.clock.rightNow -= 5
        self.assertIsNone(missing.message("r", "t", "c"))
        self.clock.advance(15)
        self.assertIsNone(missing.message("r", "t", "c"))

    def test_missing_is_bounded(self) -> None:
        """Misses of any number and any length: what is remembered has an end."""
        missing = self.known.missing
        for number in range(MAX_MISSING + 5):
            missing.keep("r", str(number), "c", "x" * 5000, 10)
        self.assertIsNone(missing.message("r", "4", "c"))
        self.assertEqual(missing.message("r", "5", "c"), "x" * MAX_MESSAGE)

    def test_facts(self) -> None:
        """Facts are replaced."""
        self.assertIsNone(self.catalog.facts.get("a"))
        self.catalog.facts.keep("a", "1")
        self.catalog.facts.keep("a", "2")
        self.assertEqual(self.catalog.facts.get("a"), "2")
        self.assertEqual(self.now(self.catalog.facts.latest("a")), "2")
        self.assertIsNone(self.now(self.catalog.facts.latest("b")))

    # -- claims

    def claim(self, key: str, patience: float = 30.0) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.catalog.claims.claim(key, patience))

    def test_claims(self) -> None:
        """One asks, the others wait until it is done, and do not ask then."""
        claims = self.catalog.claims
        self.assertTrue(self.successResultOf(self.claim("k")))
        self.assertTrue(self.successResultOf(self.claim("other")))
        waiting = [self.claim("k"), self.claim("k")]
        for each in waiting:
            self.assertNoResult(each)
        claims.release("k")
        self.assertEqual([self.successResultOf(each) for each in waiting], [False, False])
        self.assertTrue(self.successResultOf(self.claim("k")))

    def test_claim_takes_long(self) -> None:
        """Who has waited for long enough goes on."""
        self.assertTrue(self.successResultOf(self.claim("k")))
        waiting = self.claim("k", 5.0)
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.assertFalse(self.successResultOf(waiting))
        self.catalog.claims.release("k")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_claim_given_up(self) -> None:
        """Who stops waiting is forgotten."""
        self.assertTrue(self.successResultOf(self.claim("k")))
        waiting = self.claim("k")
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        self.catalog.claims.release("k")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # -- upkeep

    def test_purge(self) -> None:
        """What is past its use is forgotten; what was used since is not, though it was noted long ago."""
        old, used = Digest.of(b"old"), Digest.of(b"used")
        for digest in (old, used):
            self.known.held.hold_blob("r", digest)
        self.known.tags.keep("r", "old", old, "t", 3)
        self.known.listings.keep("r", "p", "t", b"{}", None)
        self.known.verdicts.publish("r")
        self.known.verdicts.allow("r", "c")
        self.catalog.tokens.keep("c", RelayedToken("", frozenset()), 1010)
        self.clock.advance(80_000)
        self.assertTrue(self.now(self.known.held.blob("r", used)))
        self.known.tags.keep("r", "new", used, "t", 4)
        self.known.verdicts.allow("r", "d")
        self.clock.advance(20_000)
        self.now(self.catalog.purge(unseen=90_000, short=30_000, history=90_000))
        self.assertEqual(
            [self.now(self.known.held.blob("r", old)), self.now(self.known.held.blob("r", used))], [False, True]
        )
        for gone in (
            self.known.tags.get("r", "old"),
            self.known.listings.get("r", "p"),
            self.known.verdicts.public_at("r"),
            self.known.verdicts.allowed_at("r", "c"),
            self.catalog.tokens.get("c"),
        ):
            self.assertIsNone(self.now(gone))
        self.assertIsNotNone(self.now(self.known.tags.get("r", "new")))
        self.assertIsNotNone(self.now(self.known.verdicts.allowed_at("r", "d")))

    def test_what_stays(self) -> None:
        """A pinned tag stays as it was, however old, and so do the rows of what is spared, in whatever repository."""
        old, spared = Digest.of(b"old"), Digest.of(b"spared")
        for repository in ("r", "s"):
            for digest in (old, spared):
                self.known.held.hold_blob(repository, digest)
        for tag in ("stays", "goes", "stays oci-index"):
            self.known.tags.keep("r", tag, spared, "t", 3)
        record = TagRecord(spared, "t", 3, 1000, 0)
        self.clock.advance(80_000)
        self.now(self.catalog.spare([str(spared)]))
        self.clock.advance(20_000)
        asked = []

        def stays(*what: str) -> bool:
            asked.append(what)
            return what == ("u", "r", "stays")

        self.now(self.catalog.purge(unseen=90_000, short=30_000, history=90_000, stays=stays))
        for tag, left in (("stays", record), ("goes", None), ("stays oci-index", record)):
            self.assertEqual(self.now(self.known.tags.get("r", tag)), left)
        for repository in ("r", "s"):
            self.assertFalse(self.now(self.known.held.blob(repository, old)))
            self.assertTrue(self.now(self.known.held.blob(repository, spared)))

    def test_is_recent(self) -> None:
        """An age below 0 is stale: the clock was ahead when the time was noted."""
        self.assertEqual([is_recent(1000, now, 60) for now in (999, 1000, 1059, 1060)], [False, True, True, False])

    def test_listing_bytes(self) -> None:
        """Pages under names that never come twice: what is kept of them has a bound, the newest stay."""
        size = 1 << 20
        count = 3 * schema.MAX_PAGE_BYTES // size
        for number in range(count):
            self.clock.advance(1)
            self.known.listings.keep("r", f"tags/list?last={number}", "t", bytes(size), None)
        kept = [self.now(self.known.listings.get("r", f"tags/list?last={number}")) for number in range(count)]
        self.assertLessEqual(sum(len(each.body) for each in kept if each is not None), schema.MAX_PAGE_BYTES)
        self.assertIsNotNone(kept[-1])
        self.assertIsNone(kept[0])
