"""Orders about images, and what it means that each way to one is refused."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from docxy.names import OCI_INDEX, OCI_MANIFEST, Digest
from docxy.orders.model import Kind, Order
from docxy.orders.store import MemoryOrders
from docxy.pull.gates import gates as gates_module
from tests.unit.pull.harness import NAME, REPOSITORY, Answer, Mirror, MirrorCase

OTHER = "other.test"
LAYER = bytes(range(256)) * 40
REASON = "CVE-2026-1: do not run this"


class GateCase(MirrorCase):
    """An index, and an image beside it that shares a layer; each look at the orders is a fresh one."""

    async def setUp(self) -> None:
        self.patch(gates_module, "LAG", 0)
        self.patch(gates_module, "SETTLE", 0)
        await super().setUp()
        self.orders = MemoryOrders()
        await self.mirror.stop()
        self.mirror = self.start(orders=self.orders)
        self.shared = self.upstream.add_blob(REPOSITORY, b"a layer of both")
        self.child = self.upstream.add_image(REPOSITORY, "amd64", [b"a layer of both", LAYER])
        self.layer = self.upstream.layers(REPOSITORY, self.child)[2]
        self.index = self.upstream.add_index(REPOSITORY, "latest", {"amd64": self.child})
        self.beside = self.upstream.add_image(REPOSITORY, "beside", [b"a layer of both"])

    def recall(self, digest: Digest | None = None, image: str = "", orders: Any = None) -> None:
        about = "" if digest is None else str(digest)
        (orders or self.orders).put(Order(Kind.RECALL, image, about, REASON, 1000.0, "root"))

    def freeze(self, tag: str, digest: Digest) -> None:
        self.orders.put(Order(Kind.FREEZE, f"{NAME}/{REPOSITORY}:{tag}", str(digest), "", 1000.0, "root"))

    async def pull(self, mirror: Mirror | None = None, repository: str = REPOSITORY) -> None:
        """All of the index's image and of the one beside it, as clients do."""
        mirror = mirror or self.mirror
        for reference in ("latest", self.child, "beside"):
            self.assertEqual((await mirror.manifest(reference, repository=repository)).status, 200)
        for blob in (*self.upstream.layers(REPOSITORY, self.child), *self.upstream.layers(REPOSITORY, self.beside)):
            self.assertEqual((await mirror.blob(blob, repository=repository)).status, 200)

    def refused(self, answer: Answer, head: bool = False) -> None:
        """403, as the distribution-spec has it, with the operator's reason."""
        self.assertEqual(answer.status, 403)
        self.assertEqual(answer.cache_status, "docxy; detail=recalled")
        if not head:
            error = answer.json["errors"][0]
            self.assertEqual(error["code"], "DENIED")
            self.assertIn(f"recalled: {REASON}", error["message"])

    async def refuses_manifest(self, reference: object, mirror: Mirror | None = None, **told: Any) -> None:
        """By GET, HEAD, Range and condition, whatever the Accept."""
        mirror = mirror or self.mirror
        for accept in ((OCI_INDEX, OCI_MANIFEST), (OCI_MANIFEST,), ("*/*",)):
            self.refused(await mirror.manifest(reference, accept=accept, **told))
            self.refused(await mirror.manifest(reference, method="HEAD", accept=accept, **told), head=True)
        path = f"/v2/{told.get('repository', REPOSITORY)}/manifests/{reference}"
        self.refused(await mirror.ask(path, {"Range": "bytes=0-9", "Accept": "*/*"}))
        self.refused(await mirror.ask(path, {"If-None-Match": f'"{reference}"', "Accept": "*/*"}))
        self.refused(await mirror.ask(path, {"If-None-Match": "*", "Accept": "*/*"}))

    async def refuses_blob(self, digest: Digest, mirror: Mirror | None = None, **told: Any) -> None:
        mirror = mirror or self.mirror
        self.refused(await mirror.blob(digest, **told))
        self.refused(await mirror.blob(digest, method="HEAD", **told), head=True)
        self.refused(await mirror.blob(digest, asked="bytes=1-2", **told))
        path = f"/v2/{told.get('repository', REPOSITORY)}/blobs/{digest}"
        self.refused(await mirror.ask(path, {"If-None-Match": f'"{digest}"'}))

    async def serves(self, *blobs: Digest) -> None:
        for blob in blobs:
            self.assertEqual((await self.mirror.blob(blob)).status, 200, blob)
