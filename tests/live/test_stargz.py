"""stargz-snapshotter mounts an image through docxy, and reads it file by file, before anybody has its layer."""

from __future__ import annotations

import os
import unittest

from twisted.internet.defer import Deferred

from tests.live.case import LiveTestCase
from tests.live.images import ESTARGZ
from tests.live.stargz_client import Stargz


class StargzTests(LiveTestCase):
    """In front of the bed, with a registry of which only what is touched is fetched."""

    def test_mounted(self) -> Deferred[None]:
        """containerd gets no layer; a file that is read comes by ranges, and is the one that was pushed."""
        try:
            os.close(os.open("/dev/fuse", os.O_RDWR))
        except OSError as error:
            # A container that runs the tests may not be given it, and no package brings it.
            raise unittest.SkipTest(f"stargz-snapshotter mounts by FUSE: {error}") from None
        return Deferred.fromCoroutine(self.mounted())

    async def mounted(self) -> None:
        docxy = self.shared.new_docxy("none", False, tables='fill = "touched"')
        self.addCleanup(docxy.stop)
        docxy.start()
        client = Stargz(self.machine(docxy.target), self.reactor)
        self.addCleanup(client.stop)
        client.start()
        image = self.bed.images[ESTARGZ]
        layer = image.layers[0][0]
        kept = await client.pull(image)
        self.assertIn(image.config, kept)
        self.assertNotIn(layer, kept, client.daemon.text())
        there = await client.mounted(image)
        self.assertEqual((await client.inside("cat", str(there / "etc/image"))).stdout, ESTARGZ)
        said = await client.inside("chroot", str(there), "/bin/busybox", "echo", "hi")
        self.assertEqual(said.stdout, "hi\n")
        text = docxy.daemon.text()
        self.assertIn(f'GET /v2/{ESTARGZ}/blobs/{layer} HTTP/1.1" 206', text)
        self.assertNotIn("Traceback", text)
        assert docxy.cache_directory is not None
        self.assertEqual([*docxy.cache_directory.glob(f"blobs/sha256/*/{layer.partition(':')[2]}")], [])
