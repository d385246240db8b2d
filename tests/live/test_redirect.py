"""Clients that docxy sends to the bucket for what it does not have itself."""

from __future__ import annotations

import re
from pathlib import Path

import obstore

from tests.harness.processes import which
from tests.live import s3, swift
from tests.live.case import DebianClients, LiveTestCase
from tests.live.clients import Make
from tests.live.daemon import Docxy
from tests.live.images import OCI, Builder, Image
from tests.live.test_nodes import has

NOISE = 512 * 1024
"""Bytes of the image's larger layer."""


class RedirectTests(DebianClients, LiveTestCase):
    """The layers are in the bucket; each client follows, and gets them there."""

    def image(self) -> Image:
        busybox = which("busybox")
        assert busybox is not None
        image = Builder(self.shared.new_directory("built"), Path(busybox)).single("library/away", OCI, noise=NOISE)
        self.bed.push(image)
        bucket = swift.shared().bucket("away")
        for digest, path in image.blobs.items():
            obstore.put(bucket, s3.key(digest), path.read_bytes())
        return image

    async def check(self, make: Make) -> None:
        image = self.shared.once("away", self.image)
        # A client sends its credentials on to a redirect's target only where that is on the same host.
        public = f"http://localhost:{swift.shared().port}"
        tables = swift.shared().table("away", f'redirect = "cold"\npublic_endpoint = "{public}"\n')
        directory = self.shared.new_directory("docxy")
        docxy = Docxy(directory, self.bed.url, "transparent", upstreams=tables, environ=swift.ENVIRON)
        self.addCleanup(docxy.stop)
        docxy.start()
        client = make(self.machine(docxy.target), self.reactor)
        self.addCleanup(client.stop)
        client.start()
        with self.bed.watch_blobs() as blobs:
            self.assertEqual(await client.pull(image, "latest", docxy.target.host), set())
            asked = blobs.requests("GET")
        for digest, size in image.layers:
            away = size >= 64 * 1024
            sent = re.findall(rf'blobs/{digest} HTTP/1.1" (\d+)', docxy.daemon.text())
            self.assertEqual(set(sent), {"307" if away else "200"}, digest)
            self.assertEqual(has(docxy, digest), not away)
            if away:
                fetched = [each for each in asked if digest.partition(":")[2] in each.path]
                self.assertEqual({each.range for each in fetched}, {"bytes=0-0"})
