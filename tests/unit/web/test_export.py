"""`/export`: what the tar is, that every byte of it can be asked for, and who gets it."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred

from docxy.names import OCI_MANIFEST, Digest
from docxy.pull.archive import contents as contents_module
from docxy.settings.access import parse
from docxy.settings.model import AuthMode
from docxy.web import export as export_module
from tests.fakes import Auth, Fault
from tests.fakes.content import OCI_CONFIG, Pattern
from tests.harness.client import Answer
from tests.harness.mirror import NAME, RegistryCase
from tests.unit.access.harness import lines
from tests.unit.pull.harness import REPOSITORY, MirrorCase, drain
from tests.unit.web.login import PASSWORD, LoginCase, basic, bearer


def path(*images: str, platform: str | None = None) -> str:
    query = "&".join(f"image={quote(image)}" for image in images)
    return f"/export?{query}{'' if platform is None else f'&platform={platform}'}"


def header(user: str, password: str) -> dict[str, str | list[str]]:
    return {**basic(user, password)}


def files(tar: bytes) -> dict[str, bytes]:
    """The files of a tar; every blob's bytes hash to its name."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        for member in archive:
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    for name, data in found.items():
        if name.startswith("blobs/"):
            _, algorithm, encoded = name.split("/")
            assert Digest.of(data, algorithm).hex == encoded, name
    return found


class Exported(RegistryCase):
    """The tar, in front of an upstream that asks for nothing."""

    async def export(self, *images: str, platform: str | None = None, **headers: str) -> Answer:
        return await self.ask(path(*images, platform=platform), headers)

    async def test_layout(self) -> None:
        """The tar is an OCI layout and what docker loads, with the image's names where clients look for them."""
        answer = await self.export(f"fake.test/{NAME}:latest")
        self.assertEqual((answer.status, answer.header("Content-Type")), (200, "application/x-tar"))
        self.assertEqual(answer.header("Content-Disposition"), 'attachment; filename="app-latest.tar"')
        self.assertEqual(answer.header("Content-Length"), str(len(answer.body)))
        found = files(answer.body)
        self.assertEqual(json.loads(found["oci-layout"]), {"imageLayoutVersion": "1.0.0"})
        (entry,) = json.loads(found["index.json"])["manifests"]
        self.assertEqual((entry["digest"], entry["mediaType"]), (str(self.image), OCI_MANIFEST))
        self.assertEqual(entry["annotations"]["io.containerd.image.name"], f"fake.test/{NAME}:latest")
        self.assertEqual(entry["annotations"]["org.opencontainers.image.ref.name"], "latest")
        (loadable,) = json.loads(found["manifest.json"])
        self.assertEqual(loadable["RepoTags"], [f"fake.test/{NAME}:latest"])
        self.assertEqual(
            [loadable["Config"], *loadable["Layers"]],
            [f"blobs/sha256/{digest.hex}" for digest in self.upstream.layers(NAME, "latest")],
        )
        self.assertLessEqual({loadable["Config"], *loadable["Layers"]}, found.keys())
        self.assertIn(f"blobs/sha256/{self.image.hex}", found)

    async def test_every_range(self) -> None:
        """Every range is what the whole has there, wherever it begins and ends; past the end is a 416."""
        whole = await self.export(NAME)
        size = len(whole.body)
        ends = [0, 1, 511, 512, 513, 1024, 4097, size - BLOB_FROM_END, size - 1025, size - 1024, size - 1, size]
        for first in ends:
            for stop in ends:
                if first >= stop:
                    continue
                answer = await self.export(NAME, Range=f"bytes={first}-{stop - 1}")
                self.assertEqual(answer.status, 206)
                self.assertEqual(answer.header("Content-Range"), f"bytes {first}-{stop - 1}/{size}")
                self.assertTrue(answer.body == whole.body[first:stop], (first, stop))
        past = await self.export(NAME, Range=f"bytes={size}-")
        self.assertEqual((past.status, past.header("Content-Range")), (416, f"bytes */{size}"))

    async def test_conditions(self) -> None:
        """HEAD says the length and the ETag; If-None-Match and If-Range go by it, and a moved tag has another one."""
        head = await self.ask(path(NAME), method="HEAD")
        whole = await self.export(NAME)
        etag = head.header("ETag") or ""
        self.assertEqual((head.status, head.header("Content-Length")), (200, str(len(whole.body))))
        self.assertEqual((await self.export(NAME, **{"If-None-Match": etag})).status, 304)
        self.assertEqual((await self.export(NAME, **{"Range": "bytes=9-", "If-Range": etag})).status, 206)
        self.upstream.add_image(NAME, "latest", [b"moved"])
        moved = await self.export(NAME, **{"Range": "bytes=9-", "If-Range": etag})
        self.assertEqual(moved.status, 200)
        self.assertNotEqual(moved.header("ETag"), etag)
        pinned = await self.export(f"{NAME}:latest@{self.image}", **{"Range": "bytes=9-", "If-Range": etag})
        self.assertEqual((pinned.status, pinned.body), (206, whole.body[9:]))

    async def test_several(self) -> None:
        """Several images are one tar, and what they share is in it once."""
        self.upstream.add_image(NAME, "other", [b"more", self.upstream.repositories[NAME].blobs[str(self.digest)]])
        found = files((await self.export(NAME, f"{NAME}:other")).body)
        self.assertEqual(len(json.loads(found["index.json"])["manifests"]), 2)
        self.assertEqual(
            [each["RepoTags"] for each in json.loads(found["manifest.json"])][1], [f"fake.test/{NAME}:other"]
        )
        self.assertEqual(len([name for name in found if name.startswith("blobs/")]), 2 + 2 + 2)

    async def test_layer_twice(self) -> None:
        """A layer that an image has twice is in the tar once, and docker finds it twice."""
        self.upstream.add_image(NAME, "twice", [b"same", b"other", b"same"])
        found = files((await self.export(f"{NAME}:twice")).body)
        (loadable,) = json.loads(found["manifest.json"])
        self.assertEqual(len(loadable["Layers"]), 3)
        self.assertEqual(len(set(loadable["Layers"])), 2)

    async def test_by_digest(self) -> None:
        """An image that is asked for by digest alone has no tag."""
        found = files((await self.export(f"fake.test/{NAME}@{self.image}")).body)
        (entry,) = json.loads(found["index.json"])["manifests"]
        self.assertEqual(entry["annotations"], {"io.containerd.image.name": f"fake.test/{NAME}@{self.image}"})
        self.assertIsNone(json.loads(found["manifest.json"])[0]["RepoTags"])

    async def test_platforms(self) -> None:
        """Of an index linux/amd64 is taken, or what is asked for, or all; what is not there names what is."""
        index = self.upstream.add_two_platforms(NAME, "multi")
        image = f"{NAME}:multi"
        config = files((await self.export(image)).body)
        self.assertEqual(architecture(config), "amd64")
        self.assertEqual(architecture(files((await self.export(image, platform="linux/arm64")).body)), "arm64")
        everything = files((await self.export(image, platform="all")).body)
        self.assertNotIn("manifest.json", everything)
        self.assertEqual(json.loads(everything["index.json"])["manifests"][0]["digest"], str(index))
        self.assertEqual(len([name for name in everything if name.startswith("blobs/")]), 1 + 2 + 2 + 2)
        missing = await self.export(image, platform="linux/riscv64")
        self.assertEqual(missing.status, 404)
        self.assertIn("linux/amd64, linux/arm64", missing.body.decode())
        single = await self.export(NAME, platform="linux/arm64")
        self.assertEqual(single.status, 404)
        self.assertIn("linux/amd64 only", single.body.decode())

    async def test_artifact(self) -> None:
        """What no program can run, as a chart, is an OCI layout without docker's file."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.descriptor(b"{}", "application/vnd.cncf.helm.config.v1+json"),
            "layers": [self.descriptor(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
        }
        self.upstream.add_manifest(NAME, "chart", json.dumps(manifest).encode())
        found = files((await self.export(f"{NAME}:chart")).body)
        self.assertNotIn("manifest.json", found)
        self.assertIn(b"chart", found.values())

    def descriptor(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = self.upstream.add_blob(NAME, data)
        return {"mediaType": media_type, "digest": str(digest), "size": len(data), **more}

    async def test_refused(self) -> None:
        """What cannot be carried is an error with a status and a sentence, before any byte."""
        foreign = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.descriptor(b"{}", OCI_CONFIG),
            "layers": [self.descriptor(b"x", "application/x", urls=["https://elsewhere.example/x"])],
        }
        self.upstream.add_manifest(NAME, "foreign", json.dumps(foreign).encode())
        many = {**foreign, "layers": [self.descriptor(b"%d" % n, "application/x") for n in range(1001)]}
        self.upstream.add_manifest(NAME, "many", json.dumps(many).encode())
        for asked, status in (
            ("/export", 400),
            ("/export?image=", 400),
            ("/export?img=alpine", 400),
            (path(NAME) + "&x=1", 400),
            (path("Bad//Name"), 400),
            (path(f"{NAME}:-bad"), 400),
            (path(f"{NAME}@sha256:0"), 400),
            (path("other.example/o/i"), 404),
            (path(NAME, platform="linux"), 400),
            (path(*(f"{NAME}:{n}" for n in range(17))), 400),
            (path(f"{NAME}:foreign"), 400),
            (path(f"{NAME}:many"), 400),
            (path(f"{NAME}:none"), 404),
            (path("team/none"), 404),
            ("/export?" + "image=a&" * 600, 400),
        ):
            answer = await self.ask(asked)
            self.assertEqual(answer.status, status, asked[:80])
            self.assertGreater(len(answer.json["errors"][0]["message"]), 10)
        self.assertEqual((await self.ask(path(NAME), method="POST", body=b"")).status, 405)

    async def test_manifests_bounded(self) -> None:
        """An index of more manifests than one request may have is refused, and fetched no further."""
        self.patch(contents_module.Allowance.__init__, "__defaults__", (3, 1 << 20))
        children = {f"arch{n}": self.upstream.add_image(NAME, None, [b"%d" % n]) for n in range(8)}
        self.upstream.add_index(NAME, "large", children)
        answer = await self.export(f"{NAME}:large", platform="all")
        self.assertEqual(answer.status, 400)
        self.assertLessEqual(len(self.upstream.select("manifest")), 4)

    async def test_wrong_size(self) -> None:
        """A layer of another size than its manifest says ends the tar early: no client takes it, or a part, for it."""
        for off in (512, -512):
            manifest = self.manifest.parsed()
            manifest["layers"][0]["size"] += off
            self.upstream.add_manifest(NAME, "lies", json.dumps(manifest).encode())
            size = int((await self.ask(path(f"{NAME}:lies"), method="HEAD")).header("Content-Length") or 0)
            await self.cut(path(f"{NAME}:lies"))
            part = await self.export(f"{NAME}:lies", Range=f"bytes={size - 6000}-{size - 5000}")
            self.assertEqual(part.status, 502)


BLOB_FROM_END = 1024 + 10240


def architecture(found: dict[str, bytes]) -> str:
    (loadable,) = json.loads(found["manifest.json"])
    return str(json.loads(found[loadable["Config"]])["architecture"])


class Logins(LoginCase):
    """Transparent mode: `ann` alone may read `ann/app`."""

    auth = AuthMode.TRANSPARENT

    async def test_anonymous(self) -> None:
        """What is public needs no login; what is not asks for one in a way that browsers and curl know."""
        self.assertEqual((await self.ask(path(NAME))).status, 200)
        refused = await self.ask(path("ann/app"))
        self.assertEqual(refused.status, 401)
        self.assertTrue((refused.header("WWW-Authenticate") or "").startswith("Basic "))

    async def test_login(self) -> None:
        """A password is exchanged at the registry's token service; a token is taken as it is."""
        self.assertEqual((await self.ask(path("ann/app"), basic("ann", PASSWORD))).status, 200)
        self.assertEqual((await self.ask(path("ann/app"), basic("ann", "wrong"))).status, 401)
        token = await self.token("scope=repository:ann/app:pull", basic("ann", PASSWORD))
        self.assertEqual((await self.ask(path("ann/app"), bearer(token))).status, 200)
        for method in ("GET", "HEAD"):
            refused = await self.ask(path("ann/app"), {"Range": "bytes=0-1"}, method)
            self.assertEqual(refused.status, 401)


class Cached(MirrorCase):
    """Through the cache."""

    async def test_cold_streams(self) -> None:
        """A cold layer goes out as it comes and is fetched once for all; a stalled client holds it up, not memory."""
        layer = Pattern(24 << 20)
        self.upstream.add_image(REPOSITORY, "large", [layer])
        stalled = await self.mirror.stream(path(f"{REPOSITORY}:large"), keep=False, paused=True)
        other = await self.mirror.stream(path(f"{REPOSITORY}:large"), keep=False)
        await other.client.ended
        self.assertTrue(other.client.whole)
        await drain(self.mirror, layer.digest)
        self.assertLess(stalled.client.received, 24 << 20)
        stalled.client.resume()
        await stalled.client.ended
        self.assertEqual(stalled.client.digest, other.client.digest)
        self.saw(GET_manifest=1, GET_blob=2)
        again = await self.mirror.stream(path(f"{REPOSITORY}:large"), keep=False)
        await again.client.ended
        self.assertEqual(again.client.digest, other.client.digest)
        self.saw()

    async def test_two_docxys(self) -> None:
        """Another docxy gives the same bytes at another time, so a download can go on there, and its ETag says so."""
        self.upstream.add_image(REPOSITORY, "large", [Pattern(1 << 20), b"small"])
        self.upstream.add_two_platforms(REPOSITORY, "multi")
        asked = path(f"{REPOSITORY}:multi", f"{REPOSITORY}:large"), path(f"{REPOSITORY}:multi", platform="all")
        first = [await self.mirror.ask(each) for each in asked]
        self.seconds.advance(100_000)
        other = self.start(store=self.make_store(), catalog=self.make_catalog())
        await other.manifest("large")
        for one, each in zip(first, asked, strict=True):
            two = await other.ask(each)
            self.assertEqual((one.status, two.status, one.header("ETag")), (200, 200, two.header("ETag")))
            self.assertTrue(one.body == two.body)
            part = await other.ask(each, {"Range": "bytes=1000-", "If-Range": one.header("ETag") or ""})
            self.assertTrue((part.status, part.body) == (206, one.body[1000:]))

    async def test_held_is_bounded(self) -> None:
        """Tars under way keep only so much of manifests in memory: the next client is told to come again."""
        self.patch(export_module, "MOST_HELD", 15_000)
        self.upstream.add_image(REPOSITORY, "large", [Pattern(24 << 20)])
        stalled = await self.mirror.stream(path(f"{REPOSITORY}:large"), keep=False, paused=True)
        second = await self.mirror.stream(path(f"{REPOSITORY}:large"), keep=False)
        self.assertEqual((stalled.status, second.status), (200, 429))
        self.assertEqual(second.headers.getRawHeaders("Retry-After"), ["30"])
        stalled.client.vanish()
        await stalled.client.ended
        await drain(self.mirror, self.upstream.layers(REPOSITORY, "large")[1])
        self.assertEqual((await self.mirror.ask(path(f"{REPOSITORY}:large"))).status, 200)

    async def test_planned_is_bounded(self) -> None:
        """While the images of so many are being looked at, the next client is told to come again."""
        self.patch(export_module, "MOST_PLANNED", 1)
        self.upstream.add_image(REPOSITORY, "slow", [Pattern(1000)])
        rule = self.upstream.on("manifest", Fault(stall_headers=True))
        first = Deferred.fromCoroutine(self.mirror.ask(path(f"{REPOSITORY}:slow")))
        await rule.struck()
        self.assertEqual((await self.mirror.ask(path(f"{REPOSITORY}:slow"))).status, 429)
        rule.release()
        self.assertEqual((await first).status, 200)

    async def test_token_ends(self) -> None:
        """A token that ends while a tar is under way is replaced: the login has not ended."""
        await self.mirror.stop()
        self.upstream.auth = Auth("bearer")
        mirror = self.start(auth=AuthMode.TRANSPARENT)
        layer = Pattern(8 << 20)
        self.upstream.add_image(REPOSITORY, "large", [layer, b"after"])
        streamed = await mirror.stream(path(f"{REPOSITORY}:large"), paused=True)
        self.upstream.auth.tokens.clear()
        self.seconds.advance(3600)
        streamed.client.resume()
        await streamed.client.ended
        self.assertTrue(streamed.client.whole)
        self.assertIn(b"after", files(streamed.client.body).values())

    async def test_rules(self) -> None:
        """The rules of `[access]` decide, by password and by token; docxy's account is its own business."""
        self.upstream.add_image(REPOSITORY, "v1")
        self.upstream.add_image("free/app", "v1")
        file = self.mktemp()
        Path(file).write_text(lines({"ann": "pw", "eve": "pw2"}))
        rules = [
            {"users": ["ann"], "repositories": ["**"]},
            {"groups": ["anonymous"], "repositories": ["fake.test/free/app"]},
        ]
        mirror = self.start(access=parse({"htpasswd": file, "rules": rules}, "docxy.toml"))
        image = f"{REPOSITORY}:v1"
        query = f"/auth/token?scope=repository:fake.test/{REPOSITORY}:pull"
        token = (await mirror.ask(query, header("ann", "pw"))).json["token"]
        for asked, headers, status in (
            (path(image), {}, 401),
            (path(image), header("ann", "wrong"), 401),
            (path(image), header("ann", "pw"), 200),
            (path(image), {"Authorization": f"Bearer {token}"}, 200),
            (path(image), header("eve", "pw2"), 403),
            (path("free/app:v1"), {}, 200),
            (path("free/app:v1", image), {}, 401),
        ):
            for more, partial in (({}, 200), ({"Range": "bytes=0-9"}, 206)):
                answer = await mirror.ask(asked, {**headers, **more})
                self.assertEqual(answer.status, status if status != 200 else partial, (asked, headers))
                if status == 401:
                    self.assertTrue((answer.header("WWW-Authenticate") or "").startswith("Basic "))

    async def test_lists(self) -> None:
        """`deny` of an upstream holds."""
        self.upstream.add_image(REPOSITORY, "v1")
        mirror = self.start(deny=("team/*",))
        self.assertEqual((await mirror.ask(path(f"{REPOSITORY}:v1"))).status, 403)
        self.saw()

    async def test_page(self) -> None:
        """The page of an image leads to its archive, pinned to the digest that it shows, and the pull is told."""
        image = self.upstream.add_image(REPOSITORY, "v1")
        await self.mirror.manifest("v1")
        page = (await self.mirror.ask(f"/status/image?name=fake.test/{REPOSITORY}")).body.decode()
        (link,) = re.findall(r'href="(/export[^"]*)"', page)
        self.assertEqual(link, path(f"fake.test/{REPOSITORY}:v1@{image}"))
        answer = await self.mirror.ask(link)
        self.assertEqual(json.loads(files(answer.body)["index.json"])["manifests"][0]["digest"], str(image))
        self.mirror.served.recorder.flush()
        (pull, *_) = (await self.mirror.ask("/pulls.json")).json["pulls"]
        self.assertEqual((pull["repository"], pull["digest"]), (REPOSITORY, str(image)))
        self.assertGreaterEqual(pull["sent"], len(answer.body))
