"""What is recalled by one algorithm's digest is refused by the other's."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import os

from docxy.names import OCI_INDEX, Digest
from docxy.orders.model import Kind
from docxy.orders.store import FileOrders
from docxy.pull.gates import gated
from docxy.storage.memory import MemoryStore
from tests.unit.pull.gating import LAYER, GateCase
from tests.unit.pull.harness import BUDGET, REPOSITORY, reactor


class Algorithms(GateCase):
    """The registry serves each manifest and each layer under both digests."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        await super().setUp()
        held = self.upstream.repositories[REPOSITORY]
        self.other: dict[Digest, Digest] = {}
        for digest in (self.index, self.child, self.beside):
            manifest = held.manifests[str(digest)]
            other = Digest.of(manifest.body, "sha512")
            self.upstream.add_manifest(REPOSITORY, str(other), manifest.body, manifest.media_type)
            self.other[digest] = other
        for data in (LAYER, b"a layer of both"):
            digest, other = Digest.of(data), Digest.of(data, "sha512")
            held.blobs[str(other)] = held.blobs[str(digest)]
            self.other[digest] = other

    async def test_manifest(self) -> None:
        """A recalled manifest that nobody pulled yet, by the other digest: HEAD first, and every other way."""
        for recalled, asked in ((self.index, self.other[self.index]), (self.other[self.beside], self.beside)):
            self.recall(recalled)
            self.refused(await self.mirror.manifest(asked, method="HEAD"), head=True)
            await self.refuses_manifest(asked)
            await self.refuses_manifest(recalled)

    async def test_tag(self) -> None:
        """A tag that leads to it by the other digest."""
        self.upstream.repositories[REPOSITORY].tags["latest"] = str(self.other[self.index])
        self.recall(self.index)
        self.refused(await self.mirror.manifest("latest", method="HEAD"), head=True)
        await self.refuses_manifest("latest")

    async def test_what_it_names(self) -> None:
        """What a recalled manifest names is refused when it was here by the other digest only, after a restart too."""
        orders = self.file_orders()
        mirror = self.start(orders=orders)
        for reference in (self.other[self.index], self.other[self.child], self.other[self.beside]):
            self.assertEqual((await mirror.manifest(reference)).status, 200)
        self.recall(self.other[self.beside], orders=orders)
        self.recall(self.index, orders=orders)
        self.refused(await mirror.manifest(self.other[self.index]))
        await mirror.served.gates.settle()
        await mirror.stop()
        mirror = self.start(orders=self.file_orders(), store=MemoryStore(BUDGET, reactor))
        await self.refuses_manifest(self.child, mirror)
        # Learned from its bytes, while these were here.
        await self.refuses_blob(self.beside, mirror)
        self.refused(await mirror.manifest(self.beside, method="HEAD"), head=True)

    async def test_child(self) -> None:
        """An index that names a recalled child by the other digest, once the child was seen; the child at once."""
        held = self.upstream.repositories[REPOSITORY]
        entry = {"mediaType": held.manifests[str(self.child)].media_type, "digest": str(self.other[self.child])}
        index = self.upstream.add_manifest(
            REPOSITORY, "other", _index([{**entry, "size": len(held.manifests[str(self.child)].body)}]), OCI_INDEX
        )
        self.recall(self.child)
        await self.refuses_manifest(self.other[self.child])
        await self.mirror.served.gates.settle()
        for reference in ("other", index):
            await self.refuses_manifest(reference)

    async def test_layer(self) -> None:
        """A recalled layer by the other digest, cached or not, and as a manifest that is asked for as a blob."""
        layer = Digest.of(LAYER)
        await self.serves(self.other[layer])
        self.recall(layer)
        for _ in range(2):
            await self.refuses_blob(self.other[layer])
        self.assertIsNone(await self.store.stat(layer))
        await self.serves(self.other[self.shared])
        held = self.upstream.repositories[REPOSITORY]
        self.recall(self.beside)
        beside = self.other[self.beside]
        self.upstream.add_blob(REPOSITORY, held.manifests[str(self.beside)].body)
        held.blobs[str(beside)] = held.blobs[str(self.beside)]
        await self.refuses_blob(beside)

    async def test_usual(self) -> None:
        """By the usual digest only blobs that may be manifests are read before they go out."""
        self.recall(self.other[self.shared])
        self.patch(gated, "LARGEST_MANIFEST", len(LAYER) - 1)
        await self.refuses_blob(self.shared)
        await self.serves(Digest.of(LAYER))

    async def test_on_its_way(self) -> None:
        """What was looked through is known by both digests to an order that comes later."""
        self.recall(self.beside)
        await self.serves(self.other[self.shared])
        self.recall(self.shared)
        self.orders.lift(Kind.RECALL, str(self.beside))
        await self.refuses_blob(self.other[self.shared])

    async def test_lifted(self) -> None:
        """With the order the other digest goes."""
        await self.pull()
        self.recall(self.beside)
        await self.refuses_manifest(self.other[self.beside])
        self.orders.lift(Kind.RECALL, str(self.beside))
        self.assertEqual((await self.mirror.manifest(self.other[self.beside])).status, 200)

    async def test_no_cache(self) -> None:
        """Without a cache each is read, and refused."""
        mirror = self.start(cached=False, orders=self.orders)
        self.recall(self.index)
        self.recall(self.shared)
        await self.refuses_manifest(self.other[self.index], mirror)
        await self.refuses_blob(self.other[self.shared], mirror)

    async def test_one_algorithm(self) -> None:
        """While all digests are of one algorithm nothing is read that is not asked for."""
        self.recall(self.index)
        self.assertEqual((await self.mirror.manifest(self.beside, method="HEAD")).status, 200)
        self.saw(HEAD_manifest=1)

    def file_orders(self) -> FileOrders:
        if not hasattr(self, "directory"):
            self.directory = self.mktemp()
            os.mkdir(self.directory)
        return FileOrders(self.directory)


def _index(manifests: list[dict[str, object]]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()
