"""What an operator recalled is refused, whatever it is and under every name of it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import os
from datetime import datetime, timezone

from docxy.names import OCI_MANIFEST
from docxy.orders.model import Kind
from docxy.orders.store import FileOrders
from docxy.settings.image_names import parse_image, parse_one_tag
from docxy.settings.model import Upstream
from docxy.settings.policy import Freeze, Policy, Recall
from docxy.storage.memory import MemoryStore
from tests import fakes
from tests.unit.pull.gating import LAYER, OTHER, REASON, GateCase
from tests.unit.pull.harness import BUDGET, NAME, REPOSITORY, Answer, reactor


class Recalls(GateCase):
    async def test_index(self) -> None:
        """A recalled index: by tag and digest, its child and its layers; what another image has too is served."""
        await self.pull()
        self.recall(self.index)
        for reference in ("latest", self.index, self.child):
            await self.refuses_manifest(reference)
        await self.refuses_blob(self.layer)
        await self.serves(self.shared, *self.upstream.layers(REPOSITORY, self.beside))
        self.assertEqual((await self.mirror.manifest("beside")).status, 200)

    async def test_not_cached(self) -> None:
        """Nothing of it is cached: the digest is refused, and a tag that turns out to lead to it."""
        self.recall(self.index)
        for reference in (self.index, "latest"):
            await self.refuses_manifest(reference)
        # What it names was learned from the answer that was not passed on; what its child names nobody knows.
        await self.refuses_manifest(self.child)

    async def test_child(self) -> None:
        """A recalled child: its index names it, and is refused with it."""
        await self.pull()
        self.recall(self.child)
        for reference in ("latest", self.index, self.child, "amd64"):
            await self.refuses_manifest(reference)
        await self.refuses_blob(self.layer)
        await self.serves(self.shared)

    async def test_layer(self) -> None:
        """A recalled layer: every manifest that names it is refused, in every repository."""
        await self.pull()
        self.recall(self.shared)
        await self.refuses_blob(self.shared)
        for reference in (self.child, "beside", self.beside):
            await self.refuses_manifest(reference)
        other = self.upstream.add_image("team/other", layers=[b"a layer of both", b"another"])
        await self.refuses_manifest("latest", repository="team/other")
        await self.refuses_manifest(other, repository="team/other")
        await self.refuses_blob(self.shared, repository="team/other")

    async def test_odd_manifests(self) -> None:
        """A recalled layer is found in whatever list a client may read it from, and beyond any number of others."""
        entry = {"mediaType": "t", "digest": str(self.layer), "size": 1}
        filler = {"mediaType": "t", "digest": "sha256:" + "0" * 64, "size": 1}
        start = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": filler}
        self.recall(self.layer)
        for number, more in enumerate(
            (
                {"layers": [filler] * 3000 + [entry]},
                {"layers": [filler], "LAYERS": [{**entry, "DiGeST": str(self.layer)}]},
                {"layers": [filler], "blobs": [entry]},
                {"layers": [filler], "fsLayers": [{"blobSum": str(self.layer)}]},
            )
        ):
            body = json.dumps({**start, **more}).encode()
            await self.refuses_manifest(self.upstream.add_manifest(REPOSITORY, f"odd{number}", body))
        twice = f'{{"digest": "{self.layer}", "digest": "{filler["digest"]}", "mediaType": "t", "size": 1}}'
        spelt = str(self.layer).replace("sha256", "\\u0073ha256")
        for text in (twice, json.dumps(entry).replace(str(self.layer), spelt)):
            body = json.dumps({**start, "layers": ["X"]}).replace('"X"', text).encode()
            await self.refuses_manifest(self.upstream.add_manifest(REPOSITORY, None, body))
        about = json.dumps({**start, "layers": [filler], "subject": entry}).encode()
        digest = self.upstream.add_manifest(REPOSITORY, None, about)
        self.assertEqual((await self.mirror.manifest(digest)).status, 200)

    async def test_image(self) -> None:
        """A recalled tag: refused by its name, where it led by digest, and what is left is served."""
        await self.pull()
        self.recall(image=f"{NAME}/{REPOSITORY}:latest")
        for reference in ("latest", self.index, self.child):
            await self.refuses_manifest(reference)
        await self.refuses_blob(self.layer)
        self.assertEqual((await self.mirror.manifest("beside")).status, 200)
        await self.serves(self.shared)

    async def test_repository(self) -> None:
        """All of a repository: nothing of it is served, its tags and referrers neither; others are."""
        await self.pull()
        other = self.upstream.add_image("team/other")
        self.recall(image=f"{NAME}/team/a*")
        for reference in ("latest", self.index, "beside", "none"):
            await self.refuses_manifest(reference)
        await self.refuses_blob(self.shared)
        for path in ("tags/list", f"referrers/{self.index}"):
            self.refused(await self.mirror.ask(f"/v2/{REPOSITORY}/{path}"))
        self.assertEqual((await self.mirror.manifest(other, repository="team/other")).status, 200)

    async def test_referrers(self) -> None:
        """What refers to something recalled is not listed under it."""
        self.upstream.add_referrer(REPOSITORY, self.index)
        path = f"/v2/{REPOSITORY}/referrers/{self.index}"
        self.assertEqual((await self.mirror.ask(path)).status, 200)
        self.recall(self.index)
        self.refused(await self.mirror.ask(path))

    async def test_lifted(self) -> None:
        """A recall that was lifted is over: what is cached is served again, without a question to the upstream."""
        await self.pull()
        self.recall(self.index)
        await self.refuses_manifest("latest")
        self.orders.lift(Kind.RECALL, str(self.index))
        self.upstream.requests.clear()
        await self.pull()
        self.saw()

    async def test_file(self) -> None:
        """A recall of the configuration file, from the moment at which its policy is in force."""
        await self.pull()
        self.mirror.policies.swap(Policy((), (Recall(self.index, None, REASON),)))
        await self.refuses_manifest("latest")
        await self.refuses_blob(self.layer)
        self.mirror.policies.swap(Policy())
        await self.pull()

    async def test_unknown_orders(self) -> None:
        """A process that cannot read the orders serves nothing that could be recalled, and says why."""
        directory = self.mktemp()
        os.mkdir(directory)
        await self.pull()
        with open(os.path.join(directory, "orders.json"), "w") as file:
            file.write("{")
        mirror = self.start(orders=FileOrders(directory))
        for answer in (
            await mirror.manifest("latest"),
            await mirror.manifest(self.index),
            await mirror.blob(self.layer),
        ):
            self.assertEqual(answer.status, 503)
            self.assertIn("orders.json is damaged", answer.json["errors"][0]["message"])
        self.assertEqual((await mirror.ask("/health")).status, 200)

    async def test_prefetch(self) -> None:
        """Nothing is fetched ahead of a manifest that is refused."""
        mirror = self.start(orders=self.orders, prefetch=True, store=MemoryStore(BUDGET, reactor))
        self.recall(self.layer)
        self.refused(await mirror.manifest(self.child))
        self.saw(GET_manifest=1)


class Names(GateCase):
    """Under every name that leads to the same bytes."""

    async def setUp(self) -> None:
        await super().setUp()
        self.far = fakes.Upstream(reactor)
        await self.far.start()
        self.addCleanup(self.far.stop)
        for repository in ("library/app", "mirror/of/it"):
            child = self.far.add_image(repository, "amd64", [b"a layer of both", LAYER])
            self.assertEqual(child, self.child)
            self.far.add_index(repository, "latest", {"amd64": child})
        hosts = frozenset({"localhost"})
        other = Upstream(
            OTHER,
            self.far.url,
            library=True,
            aliases=frozenset({"alias.test"}),
            hosts=frozenset({"hub.mirror.test"}),
            realm_hosts=hosts,
            private=True,
        )
        self.two = self.start(orders=self.orders, others=(other,))

    ways = (
        (f"/v2/{OTHER}/app", {}, ""),
        (f"/v2/{OTHER}/library/app", {}, ""),
        ("/v2/alias.test/app", {}, ""),
        (f"/{OTHER}/v2/app", {}, ""),
        ("/v2/app", {}, f"?ns={OTHER}"),
        ("/v2/library/app", {}, "?ns=alias.test"),
        ("/v2/app", {"Host": "hub.mirror.test"}, ""),
        ("/v2/%61pp", {}, f"?ns={OTHER}"),
    )

    async def answers(self, reference: object, kind: str = "manifests") -> list[Answer]:
        return [
            await self.two.ask(f"{path}/{kind}/{reference}{query}", {"Accept": "*/*", **headers}, method)
            for path, headers, query in self.ways
            for method in ("GET", "HEAD")
        ]

    async def test_digest(self) -> None:
        """A digest that was recalled because of one repository is refused in all, of every registry."""
        await self.pull(self.two)
        self.assertEqual({answer.status for answer in await self.answers("latest")}, {200})
        self.recall(self.index)
        for reference in ("latest", self.index):
            for answer in await self.answers(reference):
                self.assertEqual(answer.status, 403)
        path = f"/v2/{OTHER}/mirror/of/it/manifests/latest"
        self.refused(await self.two.ask(path))

    async def test_past_and_export(self) -> None:
        """As it was on a day, and as a file: neither is a way around a recall, by tag, digest, child or layer."""
        self.assertEqual({answer.status for answer in await self.answers("latest")}, {200})
        await self.two.manifest(self.child, repository=f"{OTHER}/app")
        self.seconds.advance(7200)
        then = datetime.fromtimestamp(self.seconds() - 3600, timezone.utc).strftime("%Y-%m-%dt%H-%Mz")
        base = f"/v2/as-of/{then}/{OTHER}/app"
        paths = [f"{base}/manifests/{each}" for each in ("latest", self.index, self.child)]
        paths += [f"{base}/blobs/{self.layer}", f"/as-of/{then}/v2/{OTHER}/app/manifests/latest"]
        paths += [f"/export?image={OTHER}/app{each}" for each in ("", f":latest@{self.index}", f"@{self.child}")]
        for path in paths:
            self.assertEqual((await self.two.ask(path, {"Accept": "*/*"})).status, 200, path)
        self.recall(self.index)
        for path in paths:
            for method in ("GET", "HEAD"):
                for more in ({}, {"Range": "bytes=0-3"}):
                    answer = await self.two.ask(path, {"Accept": "*/*", **more}, method)
                    self.assertEqual(answer.status, 403, path)

    async def test_name(self) -> None:
        """An image that was recalled by one of its names is refused under all of them."""
        self.assertEqual({answer.status for answer in await self.answers("latest")}, {200})
        self.recall(image=str(parse_image("alias.test/app:latest", self.two.all_upstreams())))
        self.assertEqual({answer.status for answer in await self.answers("latest")}, {403})
        self.assertEqual({answer.status for answer in await self.answers(self.index)}, {403})
        self.assertEqual({answer.status for answer in await self.answers("amd64")}, {403})

    async def test_frozen(self) -> None:
        """A frozen tag answers its digest under all of its names."""
        image = parse_one_tag("alias.test/app", self.two.all_upstreams())
        moved = self.far.add_image("library/app", "latest", [b"moved"])
        self.two.policies.swap(Policy((Freeze(image, self.index),)))
        for answer in await self.answers("latest"):
            self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(self.index)))
        for answer in await self.answers(moved):
            self.assertEqual(answer.status, 200)
