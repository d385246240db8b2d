"""What the cache holds by repository, and what goes first, read from the files beside docxy's own work on them."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from docxy.catalog.sqlite import SqliteCatalog
from docxy.daemon.contents import HOLDERS, LARGEST, NEXT, contents
from docxy.names import Digest
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.large import Large
from docxy.storage.shares import USUAL, Shares
from tests.unit.catalog.fixtures import at_once
from tests.unit.storage.fixtures import KIB, blob, in_thread, keep


class ContentsTests(TestCase):
    """A cache with a catalog, as one process has them open."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.directory = os.path.abspath(self.mktemp())
        self.store = FilesystemStore(self.directory, 1 << 30, self.clock, in_thread())
        self.store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.store.stop()))
        self.catalog = SqliteCatalog(self.directory, 1 << 30, at_once, self.clock, self.clock.seconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.catalog.close()))

    async def held(self, size: int, seed: int, *repositories: str, upstream: str = "docker.io") -> str:
        """A blob that these repositories hold; each is used a second after the one before."""
        self.clock.advance(1)
        digest, data = blob(size, seed)
        await keep(self.store, digest, data)
        for repository in repositories:
            self.catalog.upstream(upstream).held.hold_blob(repository, digest)
        return str(digest)

    def contents(self, directory: str, budget: int = 1 << 30, shares: Shares = USUAL) -> Any:  # frozen
        return contents(directory, budget, shares, self.clock.seconds)

    async def told(self) -> Any:
        waiting = Deferred.fromCoroutine(self.catalog.flushed())
        self.clock.advance(1)
        await waiting
        return self.contents(self.directory)

    async def test_largest(self) -> None:
        """Repositories by what they hold; a blob of two counts for both, one of none for nobody."""
        await self.held(40 * KIB, 1, "library/large", "team/app")
        await self.held(8 * KIB, 2, "team/app")
        await self.held(8 * KIB, 3, "o/i", upstream="ghcr.io")
        await self.held(80 * KIB, 4)
        told = await self.told()
        shown = [(row["name"], row["blobs"], row["size"]) for row in told["largest"]]
        self.assertEqual(
            [each[:2] for each in shown],
            [("docker.io/team/app", 2), ("docker.io/library/large", 1), ("ghcr.io/o/i", 1)],
        )
        self.assertGreaterEqual(shown[0][2], 48 * KIB)

    async def test_next(self) -> None:
        """What was used least recently goes first, with who holds it; what nobody holds has no name."""
        first = await self.held(8 * KIB, 1)
        second = await self.held(8 * KIB, 2, "team/app", "library/base")
        told = (await self.told())["next"]
        self.assertEqual([(row["digest"], row["name"]) for row in told[:1]], [(first, "")])
        self.assertEqual({row["name"] for row in told[1:]}, {"docker.io/team/app", "docker.io/library/base"})
        self.assertEqual({row["digest"] for row in told[1:]}, {second})
        self.assertLess(told[0]["used"], told[1]["used"])

    async def test_next_of_shares(self) -> None:
        """What is large beyond its share goes first, what the history names last within its own, pinned never."""
        pinned = await self.held(8 * KIB, 1)
        kept = await self.held(8 * KIB, 2)
        plain = await self.held(8 * KIB, 3)
        large = [await self.held(80 * KIB, number) for number in (4, 5)]
        self.store.remember(Digest.parse(kept), self.clock.seconds() + 60, ())
        await self.store.pin([Digest.parse(pinned)])
        await self.told()

        def order(**shares: Any) -> list[str]:
            told = self.contents(self.directory, 1 << 20, evolve(USUAL, **shares))["next"]
            return [row["digest"] for row in told]

        self.assertEqual(order(), [plain, *large, kept])
        self.assertEqual(order(history=0.0), [kept, plain, *large])
        self.assertEqual(order(large=Large(64 * KIB, 0.1)), [large[0], plain, large[1], kept])

    async def test_bounds(self) -> None:
        """However much there is, a few rows are told."""
        for n in range(LARGEST + 5):
            await self.held(KIB, n, *(f"r/{n}-{each}" for each in range(HOLDERS + 2)))
        told = await self.told()
        self.assertEqual((len(told["largest"]), len(told["next"])), (LARGEST, NEXT * HOLDERS))

    async def test_unreadable(self) -> None:
        """Where there is no catalog, or one that is damaged, nothing is told."""
        self.assertEqual(self.contents(os.path.abspath(self.mktemp())), {})
        damaged = os.path.abspath(self.mktemp())
        os.mkdir(damaged)
        for name in ("index.sqlite", "catalog.sqlite"):
            with open(os.path.join(damaged, name), "wb") as file:
                file.write(b"no database at all" * 1000)
        self.assertEqual(self.contents(damaged), {})
