"""What is read out of manifests and indexes, whatever JSON they hold."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from docxy import content
from docxy.content import (
    EMPTY_INDEX,
    LARGEST_MANIFEST,
    LONGEST_LIST,
    MOST_CONTAINERS,
    MOST_VALUES,
    Manifest,
    flaw,
    is_referrers_list,
    listed,
    parse_object,
    platforms,
)
from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Digest

ORAS = "application/vnd.cncf.oras.artifact.manifest.v1+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
ENTRY = {"mediaType": "x/y", "digest": f"sha256:{'ab' * 32}", "size": 1}


class Platforms(SynchronousTestCase):
    """What an index says of its manifests."""

    def said(self, *manifests: object, media_type: str = OCI_INDEX) -> dict[str, str]:
        body = json.dumps({"schemaVersion": 2, "manifests": list(manifests)}).encode()
        return platforms(Manifest(media_type, Digest.of(body), len(body), body))

    def test_platforms(self) -> None:
        """Each manifest's, with its variant; attestations have none."""
        found = self.said(
            {**ENTRY, "digest": "a:1", "platform": {"os": "linux", "architecture": "amd64"}},
            {**ENTRY, "digest": "a:2", "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {**ENTRY, "digest": "a:3", "platform": {"os": "unknown", "architecture": "unknown"}},
            ENTRY,
        )
        self.assertEqual(found, {"a:1": "linux/amd64", "a:2": "linux/arm64/v8"})

    def test_any_json(self) -> None:
        """Nothing raises, nothing that is no name is taken, and a long list has an end."""
        bad = {"os": "<b>", "architecture": 7}
        self.assertEqual(self.said(1, None, {"platform": 3}, {"platform": bad, "digest": "a:1"}, {**ENTRY}), {})
        many = [{"digest": f"a:{n}", "platform": {"os": "linux", "architecture": "amd64"}} for n in range(3000)]
        self.assertEqual(len(self.said(*many)), LONGEST_LIST)
        self.assertEqual(self.said(*many, media_type=OCI_MANIFEST), {})


class Flaws(SynchronousTestCase):
    def flaw(self, document: object, media_type: str = OCI_MANIFEST) -> str | None:
        return flaw(json.dumps(document).encode(), media_type)

    def test_manifests(self) -> None:
        """Every kind of manifest and index passes, those without schemaVersion and of the first schema too."""
        for document, media_type in (
            ({"schemaVersion": 2, "config": ENTRY, "layers": [ENTRY]}, OCI_MANIFEST),
            (
                {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": ENTRY, "layers": [], "manifests": []},
                OCI_MANIFEST,
            ),
            ({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": ENTRY, "layers": [ENTRY]}, DOCKER_MANIFEST),
            ({"schemaVersion": 2, "manifests": [ENTRY]}, OCI_INDEX),
            ({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [ENTRY], "layers": None}, DOCKER_LIST),
            ({"mediaType": ORAS, "artifactType": "x/y", "blobs": [ENTRY]}, ORAS),
            ({"schemaVersion": 1, "fsLayers": [{"blobSum": "x"}], "history": []}, SCHEMA_1),
        ):
            self.assertIsNone(self.flaw(document, media_type), document)
        self.assertIsNone(flaw(EMPTY_INDEX, OCI_INDEX))

    def test_parts(self) -> None:
        """JSON of millions of parts is not even read; the largest index and page of tags that there are, are."""
        self.patch(content.json, "loads", self.fail)
        for many in (b"[]," * MOST_CONTAINERS + b"[]", b"{}," * MOST_CONTAINERS + b"{}", b"1," * MOST_VALUES + b"1"):
            body = b'{"schemaVersion":2,"x":[' + many + b"]}"
            self.assertLess(len(body), LARGEST_MANIFEST)
            self.assertEqual(flaw(body, OCI_MANIFEST), "is not a JSON object, or has too many parts")
            self.assertEqual(listed(Manifest(OCI_MANIFEST, Digest.of(body), len(body), body)), [])

    def test_largest(self) -> None:
        """The largest index and page of tags that there are, are read."""
        entry = {**ENTRY, "platform": {"os": "linux", "architecture": "amd64"}, "annotations": {"a": "b,c" * 20}}
        count = 4 * 1024 * 1024 // len(json.dumps(entry))
        self.assertIsNone(self.flaw({"schemaVersion": 2, "manifests": [entry] * count}, OCI_INDEX))
        self.assertIsNotNone(parse_object(json.dumps({"name": "a", "tags": ["v1.2.3"] * 500_000}).encode()))

    def test_ambiguous(self) -> None:
        """What one client could take for an index and another for a manifest is refused (CVE-2021-41190)."""
        both = {"schemaVersion": 2, "manifests": [ENTRY], "layers": [ENTRY]}
        for document, media_type in (
            *((both, media_type) for media_type in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, ORAS)),
            ({"schemaVersion": 2, "manifests": [ENTRY], "config": ENTRY}, OCI_INDEX),
            ({"schemaVersion": 2, "manifests": [ENTRY], "fsLayers": [{}]}, DOCKER_LIST),
            ({"schemaVersion": 2, "manifests": [ENTRY]}, OCI_MANIFEST),
            ({"schemaVersion": 2, "layers": [ENTRY]}, OCI_INDEX),
        ):
            self.assertIn("CVE-2021-41190", self.flaw(document, media_type) or "", (document, media_type))
        self.assertIn("is not", self.flaw({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}) or "")

    def test_no_manifest(self) -> None:
        """Other JSON, no JSON and other types are no manifests."""
        for body in (
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b"5",
            b"[" * 100_000,
            b'{"schemaVersion":3}',
            b'{"errors":[]}',
            b"\xff",
        ):
            self.assertIsNotNone(flaw(body, OCI_MANIFEST), body[:20])
        self.assertIsNotNone(flaw(b'{"schemaVersion":2}', "text/html"))


class Listed(SynchronousTestCase):
    def listed(self, document: object, media_type: str = OCI_MANIFEST) -> list[str]:
        body = json.dumps(document).encode()
        return [each.digest.hex[:2] for each in listed(Manifest(media_type, Digest.of(body), len(body), body))]

    def entry(self, pair: str, **more: object) -> dict[str, object]:
        return {"mediaType": "x/y", "digest": f"sha256:{pair * 32}", "size": 1, **more}

    def test_order(self) -> None:
        """Config first, then the layers in their order, for OCI and for Docker."""
        document = {"config": self.entry("cc"), "layers": [self.entry("bb"), self.entry("aa")]}
        for media_type in (OCI_MANIFEST, DOCKER_MANIFEST):
            self.assertEqual(self.listed(document, media_type), ["cc", "bb", "aa"])

    def test_nothing(self) -> None:
        """Nothing of an index, of a HEAD, of what has no layers."""
        self.assertEqual(self.listed({"manifests": [self.entry("aa")]}, OCI_INDEX), [])
        self.assertEqual(self.listed({"layers": [self.entry("aa")]}, OCI_INDEX), [])
        self.assertEqual(listed(Manifest(OCI_MANIFEST, Digest.of(b""), 0, None)), [])
        self.assertEqual(self.listed({}), [])
        self.assertEqual(self.listed({"config": None, "layers": {"a": 1}}), [])

    def test_left_out(self) -> None:
        """Foreign and malformed layers are left out, the others are not."""
        odd: list[object] = [
            5,
            None,
            [],
            {},
            self.entry("aa", urls=["https://elsewhere.test"]),
            self.entry("zz"),
            self.entry("aa", size="x"),
            self.entry("aa", digest=7),
        ]
        self.assertEqual(self.listed({"config": self.entry("cc"), "layers": [*odd, self.entry("bb")]}), ["cc", "bb"])

    def test_bounded(self) -> None:
        """However long the list is."""
        self.assertEqual(len(self.listed({"layers": [self.entry("aa")] * 5000})), LONGEST_LIST - 1)

    def test_sizes(self) -> None:
        """A size that no file can have makes its entry malformed, and nothing raises."""
        for size in (
            "1e999",
            "-1e999",
            "NaN",
            "-1",
            "true",
            "1.5",
            str(1 << 63),
            "9" * 4000,
            "9" * 9000,
            '"7"',
            "null",
            "{}",
        ):
            bad = json.dumps(self.entry("aa")).replace('"size": 1', f'"size": {size}')
            body = f'{{"config": {bad}, "layers": [{json.dumps(self.entry("bb"))}]}}'.encode()
            found = listed(Manifest(OCI_MANIFEST, Digest.of(body), len(body), body))
            self.assertIn([each.digest.hex[:2] for each in found], (["bb"], []), size)
        self.assertEqual(self.listed({"layers": [self.entry("aa", size=(1 << 63) - 1)]}), ["aa"])


class Referrers(SynchronousTestCase):
    def test_fallback(self) -> None:
        """Under a fallback tag only an OCI index that is not the subject itself lists referrers."""
        index = Manifest(OCI_INDEX, Digest.of(EMPTY_INDEX), len(EMPTY_INDEX), EMPTY_INDEX)
        self.assertTrue(is_referrers_list(index, Digest.of(b"subject")))
        self.assertFalse(is_referrers_list(index, index.digest), "GitLab's")
        for media_type, body in ((DOCKER_LIST, EMPTY_INDEX), (OCI_INDEX, b'{"manifests":{}}'), (OCI_INDEX, None)):
            other = Manifest(media_type, Digest.of(b"x"), 1, body)
            self.assertFalse(is_referrers_list(other, Digest.of(b"subject")), (media_type, body))
