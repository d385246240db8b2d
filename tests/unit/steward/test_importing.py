"""Import: what an archive brings, what it must not bring, and what is shown when."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from docxy.names import DOCKER_MANIFEST, OCI_INDEX, Digest, Tag
from docxy.steward import archive as archive_module
from docxy.steward.archive import ArchiveFileError, open_archive
from docxy.steward.importing import Import, Place
from docxy.steward.inline import finish, steps
from docxy.steward.layout import images
from docxy.steward.lines import Failed
from tests.unit.steward.archives import described, image, layout, path, tar
from tests.unit.steward.case import HUB, StewardCase

NAME = "docker.io/library/alpine:3"
PLACE = Place(HUB, "library/alpine", Tag("3"))


class ImportCase(StewardCase):
    budget = 1 << 40

    def write(self, data: bytes) -> str:
        name = self.mktemp()
        Path(name).write_bytes(data)
        return name

    def run_import(self, data: bytes, *places: Place) -> list[dict[str, Any]]:
        """The images of a tar, each under its place, or under no name; what is said of each."""
        return self.imported(self.write(data), *places)

    def imported(self, name: str, *places: Place) -> list[dict[str, Any]]:
        opened = open_archive(name)
        found = images(opened)
        named = [(each, [place]) for each, place in zip(found, places or [PLACE] * len(found), strict=True)]
        lines = list(steps(Import(self.store, self.catalog, opened, self.budget).run(named)))
        self.end_line = lines[-1]["done"]
        return [line["item"] for line in lines if "item" in line]

    def tag(self, tag: str = "3") -> Any:
        return finish(self.catalog.upstream(HUB).tags.get("library/alpine", tag))

    def assert_nothing(self) -> None:
        """Nobody could get anything of it."""
        self.assertIsNone(self.tag())
        self.assertEqual(finish(self.catalog.upstream(HUB).held.repositories("", 9, None)), [])


class Layouts(ImportCase):
    def test_whole(self) -> None:
        """Every blob is kept under its digest, the repository holds it, and the tag leads to the manifest."""
        body, files = image(b"one", b"two")
        (told,) = self.run_import(tar({**files, **layout({NAME: body})}))
        self.assertEqual((told["names"], told["lacking_count"]), ([NAME], 0))
        held = self.catalog.upstream(HUB).held
        for data in (b"one", b"two", b"{}"):
            self.assertTrue(self.is_kept(Digest.of(data)))
            self.assertTrue(finish(held.blob("library/alpine", Digest.of(data))))
        self.assertEqual(self.tag().digest, Digest.of(body))
        self.assertEqual(finish(held.manifest("library/alpine", Digest.of(body))).size, len(body))
        self.assertFalse(finish(held.blob("library/other", Digest.of(b"one"))))

    def test_no_rights(self) -> None:
        """An import makes nothing public: whom a registry lets read is the registry's to say."""
        body, files = image(b"one")
        self.run_import(tar({**files, **layout({NAME: body})}))
        verdicts = self.catalog.upstream(HUB).verdicts
        self.assertIsNone(finish(verdicts.public_at("library/alpine")))
        self.assertIsNone(finish(verdicts.allowed_at("library/alpine", "")))

    def test_again(self) -> None:
        """A second import writes nothing; a newer archive moves the tag."""
        body, files = image(b"one")
        data = tar({**files, **layout({NAME: body})})
        self.run_import(data)
        self.run_import(data)
        self.assertEqual(self.end_line["new_blobs"], 0)
        newer, more = image(b"newer")
        self.run_import(tar({**more, **layout({NAME: newer})}))
        self.assertEqual(self.tag().digest, Digest.of(newer))

    def test_lacking(self) -> None:
        """A differential archive takes what is missing from the cache; without that it says what, and shows nothing."""
        body, files = image(b"base", b"top")
        part = {name: data for name, data in files.items() if data != b"base"}
        archive = tar({**part, **layout({NAME: body})})
        (told,) = self.run_import(archive)
        self.assertEqual((told["lacking"], told["lacking_count"]), ([str(Digest.of(b"base"))], 1))
        self.assert_nothing()
        self.keep(b"base")
        (told,) = self.run_import(archive)
        self.assertEqual(told["lacking_count"], 0)
        self.assertEqual(self.tag().digest, Digest.of(body))
        self.assertEqual(self.end_line["new_blobs"], 0)

    def test_lacking_manifest(self) -> None:
        """An image whose manifest is left out comes from the cache as well."""
        body, files = image(b"base")
        archive = tar(layout({NAME: body}))
        (told,) = self.run_import(archive)
        self.assertEqual(told["lacking"], [str(Digest.of(body))])
        for data in files.values():
            self.keep(data)
        (told,) = self.run_import(archive)
        self.assertEqual(told["lacking_count"], 0)

    def test_index(self) -> None:
        """All platforms of an index come, and each is one of its repository."""
        amd, arm = image(b"amd", config=b"1"), image(b"arm", config=b"2")
        children = [described(each[0], "application/vnd.oci.image.manifest.v1+json") for each in (amd, arm)]
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()
        files = {**amd[1], **arm[1], path(Digest.of(index)): index}
        self.run_import(tar({**files, **layout({NAME: index}, OCI_INDEX)}))
        held = self.catalog.upstream(HUB).held
        for body in (index, amd[0], arm[0]):
            self.assertIsNotNone(finish(held.manifest("library/alpine", Digest.of(body))))

    def test_directory(self) -> None:
        """The directory of an OCI layout is an archive too; a link in it leads nowhere."""
        body, files = image(b"one", b"two")
        top = Path(self.mktemp())
        for name, data in {**files, **layout({NAME: body})}.items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_bytes(data)
        two = top / path(Digest.of(b"two"))
        two.unlink()
        outside = Path(self.write(b"two"))
        two.symlink_to(outside.resolve())
        (told,) = self.imported(str(top))
        self.assertEqual(told["lacking"], [str(Digest.of(b"two"))])

    def test_compressed(self) -> None:
        """A tar that was compressed since is read as well."""
        body, files = image(b"one")
        self.run_import(gzip.compress(tar({**files, **layout({NAME: body})})))
        self.assertEqual(self.tag().digest, Digest.of(body))


class Hostile(ImportCase):
    def test_wrong_bytes(self) -> None:
        """A layer with other bytes than its digest's ends the import; nothing of it is kept or shown."""
        body, files = image(b"good", b"fine")
        files[path(Digest.of(b"good"))] = b"evil"
        with self.assertRaises(Failed) as caught:
            self.run_import(tar({**files, **layout({NAME: body})}))
        self.assertIn(str(Digest.of(b"good")), caught.exception.message)
        self.assertFalse(self.is_kept(Digest.of(b"good")))
        self.assert_nothing()

    def test_wrong_manifest(self) -> None:
        """A manifest that is not what the index says it is."""
        body, files = image(b"good")
        other, _ = image(b"evil")
        files[path(Digest.of(body))] = other
        with self.assertRaises(Failed):
            self.run_import(tar({**files, **layout({NAME: body})}))
        self.assert_nothing()

    def test_wrong_size(self) -> None:
        """A size in a manifest that is not the layer's would fail every client later."""
        body, files = image(b"good")
        lies = body.replace(b'"size": 4', b'"size": 5')
        files[path(Digest.of(lies))] = lies
        with self.assertRaises(Failed) as caught:
            self.run_import(tar({**files, **layout({NAME: lies})}))
        self.assertIn("its manifest says 5", caught.exception.message)
        self.assert_nothing()

    def test_cut(self) -> None:
        """A tar that was cut is said to be, and shows nothing, wherever it was cut."""
        body, files = image(b"x" * 5000)
        whole = tar({**layout({NAME: body}), **files})
        for count in (0, 100, 512, 1500, 3000, 4000, len(whole) - 14000 if len(whole) > 15000 else 6000):
            with self.assertRaises((ArchiveFileError, Failed)):
                told = self.run_import(whole[:count])
                if any(each["lacking_count"] for each in told):
                    raise Failed("incomplete")
            self.assert_nothing()

    def test_names_that_climb(self) -> None:
        """Names and links that lead out of the archive lead nowhere."""
        secret = self.write(b"secret")
        body, files = image(b"secret")
        del files[path(Digest.of(b"secret"))]
        links = {path(Digest.of(b"secret")): os.path.abspath(secret)}
        (told,) = self.run_import(tar({**files, **layout({NAME: body})}, links))
        self.assertEqual(told["lacking"], [str(Digest.of(b"secret"))])
        loop = {path(Digest.of(b"secret")): Digest.of(b"secret").hex}
        (told,) = self.run_import(tar({**files, **layout({NAME: body})}, loop))
        self.assertEqual(told["lacking_count"], 1)

    def test_bounds(self) -> None:
        """An archive of too many files, a document that is too large, more bytes than the cache may take."""
        body, files = image(b"one", b"two")
        data = tar({**files, **layout({NAME: body})})
        self.patch(archive_module, "MOST_FILES", 3)
        self.assertRaises(ArchiveFileError, self.run_import, data)
        self.patch(archive_module, "MOST_FILES", 100)
        self.patch(archive_module, "LARGEST_DOCUMENT", 100)
        self.assertRaises(ArchiveFileError, self.run_import, data)
        self.patch(archive_module, "LARGEST_DOCUMENT", 1 << 20)
        self.budget = 10
        with self.assertRaises(Failed) as caught:
            self.run_import(data)
        self.assertIn("may take 10", caught.exception.message)
        self.assert_nothing()

    def test_hostile_heads(self) -> None:
        """Sizes of no file, holes, heads without end, heads that fill the memory: one sentence, and nothing is kept."""

        def head(**fields: Any) -> bytes:
            info = tarfile.TarInfo("index.json")
            for key, value in fields.items():
                setattr(info, key, value)
            return info.tobuf(tarfile.GNU_FORMAT)

        def pax(key: str, value: str) -> bytes:
            info = tarfile.TarInfo("index.json")
            info.pax_headers = {key: value}
            return info.tobuf(tarfile.PAX_FORMAT)

        end = b"\0" * 1024
        for data in (
            pax("size", "9" * 30) + end,
            pax("GNU.sparse.map", "1,a") + end,
            pax("GNU.sparse.size", "9" * 30) + end,
            head(size=1 << 80) + end,
            head(size=-(1 << 70)) + end,
            (head(type=b"L", size=1) + b"a".ljust(512, b"\0")) * 2000 + end,
            gzip.compress(head(type=b"x", size=64 << 20) + b"\0" * (64 << 20) + end),
        ):
            self.assertRaises(ArchiveFileError, self.run_import, data)
        self.assert_nothing()

    def test_damaged(self) -> None:
        """A compressed archive with a wrong byte anywhere is refused, or all that it brings is right."""
        body, files = image(os.urandom(5000))
        for mode in ("w:gz", "w:bz2", "w:xz"):
            whole = tar({**files, **layout({NAME: body})}, mode=mode)
            for at in range(0, len(whole), 401):
                data = bytearray(whole)
                data[at] ^= 0x40
                with contextlib.suppress(ArchiveFileError, Failed):
                    (told,) = self.run_import(bytes(data))
                    self.assertTrue(told["lacking_count"] or self.tag().digest == Digest.of(body))

    def test_no_image(self) -> None:
        """What is no archive of images says so in one sentence."""
        for data in (b"", b"no tar", tar({"etc/passwd": b"x"}), tar({"index.json": b"[]"}), tar({"index.json": b"{}"})):
            self.assertRaises(ArchiveFileError, self.run_import, data)
        for content in ({"manifests": ["x"]}, {"manifests": [{"mediaType": "a/b", "digest": "x", "size": 1}]}):
            self.assertRaises(ArchiveFileError, self.run_import, tar({"index.json": json.dumps(content).encode()}))
        self.assertRaises(ArchiveFileError, self.run_import, tar({"manifest.json": b'[{"Config": "../x"}]'}))


class Docker(ImportCase):
    """What a docker of before 2024 saved."""

    def saved(self, *layers: bytes, names: list[str] | None = None) -> dict[str, bytes]:
        ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}).encode()
        files = {f"{n}/layer.tar": layer for n, layer in enumerate(layers)}
        name = f"{Digest.of(config).hex}.json"
        entry = {"Config": name, "RepoTags": names or ["alpine:3"], "Layers": list(files)}
        return {**files, name: config, "manifest.json": json.dumps([entry]).encode()}

    def test_saved(self) -> None:
        """It has no manifest; one is made, of its config and layers."""
        (told,) = self.run_import(tar(self.saved(b"one", b"two")))
        self.assertEqual(told["lacking_count"], 0)
        self.assertEqual((self.tag().media_type, str(self.tag().digest)), (DOCKER_MANIFEST, told["digest"]))
        for layer in (b"one", b"two"):
            self.assertTrue(self.is_kept(Digest.of(layer)))
        (found,) = images(open_archive(self.write(tar(self.saved(b"one", b"two")))))
        self.assertEqual(found.names, ("alpine:3",))

    def test_layer_twice(self) -> None:
        """A layer that came twice was once saved as a link to the first one."""
        files = self.saved(b"one", b"two", b"one")
        del files["2/layer.tar"]
        (told,) = self.run_import(tar(files, {"2/layer.tar": "../0/layer.tar"}))
        self.assertEqual(told["lacking_count"], 0)

    def test_compressed_layers(self) -> None:
        """Other tools compress the layers; then the digest is that of the compressed bytes."""
        files = self.saved(b"one")
        files["0/layer.tar"] = packed = gzip.compress(b"one")
        (told,) = self.run_import(tar(files))
        self.assertEqual(told["lacking_count"], 0)
        self.assertTrue(self.is_kept(Digest.of(packed)))

    def test_wrong_layer(self) -> None:
        """A layer that is not what the config says."""
        files = self.saved(b"one")
        files["0/layer.tar"] = b"evil"
        self.assertRaises(Failed, self.run_import, tar(files))
        for told in ("sha256:zz", "", "../x"):
            config = json.dumps({"rootfs": {"diff_ids": [told]}}).encode()
            files = {"c": config, "l": b"one"}
            files["manifest.json"] = json.dumps([{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}]).encode()
            self.assertRaises(ArchiveFileError, self.run_import, tar(files))
        self.assert_nothing()

    def test_names_of_both(self) -> None:
        """A layout whose index has no name takes it from docker's file, as docker 25 and later write both."""
        body, files = image(b"one", config=b'{"os":"linux"}')
        index = json.dumps({"schemaVersion": 2, "manifests": [described(body, json.loads(body)["mediaType"])]}).encode()
        entry = {"Config": path(Digest.of(b'{"os":"linux"}')), "RepoTags": ["alpine:3", "alpine:latest"], "Layers": []}
        data = tar({**files, "index.json": index, "manifest.json": json.dumps([entry]).encode()})
        (found,) = images(open_archive(self.write(data)))
        self.assertEqual(found.names, ("alpine:3", "alpine:latest"))
