"""`ls`, `show` and `du` over a cache with a few images."""

from __future__ import annotations

from docxy.errors import BadRequest
from docxy.names import Digest
from docxy.steward.lines import Failed
from tests.unit.steward.case import HUB, NOW, StewardCase

CONFIG = b'{"os": "linux", "architecture": "amd64"}'


class Usage(StewardCase):
    def setUp(self) -> None:
        super().setUp()
        self.shared, self.own, self.other = b"s" * 10_000, b"o" * 5_000, b"t" * 3_000
        self.one = self.image("library/alpine", ["3.20", "latest"], [self.shared, self.own], CONFIG)
        self.two = self.image("library/alpine", ["3.19"], [self.shared], CONFIG)
        self.three = self.image("o/i", ["v1"], [self.shared, self.other], CONFIG, upstream="ghcr.io")

    def images(self, *names: str) -> list[str]:
        return [told["image"] for told in self.items("ls", image=list(names))]

    def test_all(self) -> None:
        """Every tag, by registry, repository and name."""
        self.assertEqual(
            self.images(),
            [
                "docker.io/library/alpine:3.19",
                "docker.io/library/alpine:3.20",
                "docker.io/library/alpine:latest",
                "ghcr.io/o/i:v1",
            ],
        )

    def test_named(self) -> None:
        """Those that names and globs cover, each once."""
        self.assertEqual(
            self.images("alpine:3.19", "alpine:3.*"), [f"docker.io/library/alpine:3.{n}" for n in (19, 20)]
        )
        self.assertEqual(self.images("ghcr.io/**"), ["ghcr.io/o/i:v1"])
        self.assertEqual(self.images("none"), [])
        self.assertRaises(BadRequest, self.images, "a b")

    def test_sizes(self) -> None:
        """An image's size is all that it has here; its own is what no other root leads to."""
        (told,) = self.items("ls", image="ghcr.io/o/i")
        manifest = self.store_size(self.three)
        self.assertEqual(told["size"], 13_000 + len(CONFIG) + manifest)
        self.assertEqual(told["own"], 3_000 + manifest)
        self.assertEqual(told["platforms"], ["linux/amd64"])
        latest = self.items("ls", image="alpine:latest")[0]
        self.assertEqual(latest["own"], 0, "3.20 is the same image")

    def store_size(self, digest: Digest) -> int:
        return len(self.body(digest))

    def test_index(self) -> None:
        """An index counts the platforms that are whole here, and what they have; its children are no images."""
        child = self.image("library/app", [], [b"x" * 100], CONFIG)
        missing = Digest.of(b"not here")
        index = self.index("library/app", [(child, "linux/amd64"), (missing, "linux/arm64")], ["1"])
        (told,) = self.items("ls", image="app")
        self.assertEqual((told["digest"], told["platforms"]), (str(index), ["linux/amd64"]))
        self.assertGreater(told["own"], 100)
        (shown,) = self.items("show", image="app:1")
        self.assertEqual(
            [(each["platform"], each["cached"]) for each in shown["manifests"]],
            [("linux/amd64", True), ("linux/arm64", False)],
        )
        self.assertEqual([each["size"] for each in shown["manifests"][0]["layers"]], [len(CONFIG), 100])
        self.assertTrue(shown["manifests"][0]["layers"][0]["shared"], "others have the same config")

    def test_untagged(self) -> None:
        """What a tag led to before it moved is an image without a tag."""
        self.image("library/alpine", ["3.19"], [b"new"], CONFIG)
        told = self.items("ls", image="alpine")
        self.assertEqual(
            [each["image"] for each in told if each["tag"] is None], [f"docker.io/library/alpine@{self.two}"]
        )
        self.assertEqual([each["digest"] for each in self.items("ls", image=f"@{self.two}"[1:])], [str(self.two)])

    def test_variants(self) -> None:
        """What a narrow Accept selects of a tag belongs to the tag, and is no image of its own."""
        narrow = self.image("library/alpine", [], [b"narrow"], CONFIG)
        tags = self.catalog.upstream(HUB).tags
        tags.keep("library/alpine", "3.20 docker-manifest", narrow, "application/json", 1)
        told = [each for each in self.items("ls", image="alpine") if each["tag"] == "3.20"]
        self.assertEqual([each["digest"] for each in told], [str(self.one)])
        self.assertGreater(told[0]["own"], 0)
        self.assertNotIn(str(narrow), [each["digest"] for each in self.items("ls", image="alpine")])

    def test_garbage_json(self) -> None:
        """A manifest that is no JSON object, or leads to itself or to what is no digest, does no harm."""
        broken = self.keep(b"[1, 2")
        held = self.catalog.upstream(HUB).held
        held.hold_manifest("library/broken", broken, "application/json", 5)
        odd = {"schemaVersion": 2, "mediaType": "x", "layers": [1, {"digest": "../x"}], "manifests": {}, "config": []}
        self.manifest("library/odd", odd, ["1"])
        self.assertEqual(len(self.items("ls", image="odd")), 1)
        self.assertEqual(len(self.items("ls", image="broken")), 1)

    def test_show_nothing(self) -> None:
        """Of what is not here there is nothing to show."""
        error = self.assertRaises(Failed, self.items, "show", image="nginx")
        self.assertIn("nginx", error.message)

    def test_history(self) -> None:
        """Where a tag led, the newest first, and when that was seen; of a manifest without a tag there is none."""
        history = self.catalog.upstream(HUB).history
        history.changed("library/alpine", "3.20", self.two)
        self.clock.advance(60)
        history.changed("library/alpine", "3.20", self.one)
        self.clock.advance(60)
        history.changed("library/alpine", "3.20", None)
        (shown,) = self.items("show", image="alpine:3.20")
        self.assertEqual([each["digest"] for each in shown["history"]], [None, str(self.one), str(self.two)])
        times = [each["at"] for each in shown["history"]]
        self.assertEqual(times, sorted(times, reverse=True))
        self.assertEqual(self.items("show", image="ghcr.io/o/i")[0]["history"], [])

    def test_part(self) -> None:
        """The digest of an index's child or of a layer says which image it is a part of."""
        child = self.image("library/app", [], [b"x" * 100], CONFIG)
        self.index("library/app", [(child, "linux/amd64")], ["1", "2"])
        for digest in (child, Digest.of(b"x" * 100)):
            for act in ("show", "rm"):
                error = self.assertRaises(Failed, self.items, act, image=str(digest))
                self.assertIn("a part of docker.io/library/app:1 and of 1 more: name that", error.message)
        error = self.assertRaises(Failed, self.items, "rm", image=f"alpine@{child}")
        self.assertIn("nothing is cached of alpine@", error.message)

    def test_du(self) -> None:
        """Repositories, the largest own part first, and what is of no image."""
        loose = self.keep(b"z" * 700)
        rows = self.items("du")
        self.assertEqual([row["repository"] for row in rows], ["docker.io/library/alpine", "ghcr.io/o/i"])
        self.assertLess(rows[0]["own"], rows[0]["size"])
        end = self.end("du")
        self.assertEqual(end["unnamed"], {"blobs": 1, "size": 700})
        self.assertTrue(self.is_kept(loose))

    def test_used(self) -> None:
        """An image was used when its manifest was."""
        self.clock.advance(1000)
        self.store.touch(self.two)
        self.clock.advance(10)
        used = {told["tag"]: told["used"] for told in self.items("ls", image="alpine")}
        self.assertEqual(round(used["3.19"] - NOW), 1000)
        self.assertEqual(round(used["3.20"] - NOW), 0)

    def test_names(self) -> None:
        """A shell gets the names that go on from what was typed."""
        self.assertEqual(
            [told["name"] for told in self.items("names", begins="al")],
            [f"alpine:{tag}" for tag in ("3.19", "3.20", "latest")],
        )
        self.assertEqual([told["name"] for told in self.items("names", begins="ghcr.io/")], ["ghcr.io/o/i:v1"])
