"""Repositories, tags, digests: what is well-formed, and what is refused with which code."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import DigestInvalid, NameInvalid, RegistryError, TagInvalid
from docxy.names import MAX_NAME, Digest, Tag, check_repository, is_repository, parse_reference

HEX = "0123456789abcdef" * 4


class RepositoryTests(SynchronousTestCase):
    def test_good(self) -> None:
        """The grammar's names: any depth, single dots, one or two underscores, any number of dashes inside."""
        for name in ("a", "0", "library/busybox", "a/b/c/d/e", "a.b", "a_b", "a__b", "a---b", "a1/b2", "x" * MAX_NAME):
            self.assertEqual(check_repository(name), name)

    def test_bad(self) -> None:
        """Everything else is NAME_INVALID, whatever Unicode takes for a digit or a lower-case letter."""
        for name in (
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "a._b",
            "-a",
            "a-",
            ".a",
            "a.",
            "_a",
            "a/../b",
            "a b",
            "a\n",
            "a\x00",
            "ä",
            "٣",
            "a:b",
            "a@b",
            "a%2fb",
            "x" * (MAX_NAME + 1),
        ):
            self.assertFalse(is_repository(name), name)
            self.assertRaises(NameInvalid, check_repository, name)

    def test_no_backtracking(self) -> None:
        """A long name that fails at its end is refused as fast as a short one."""
        self.assertFalse(is_repository("a-" * 127))

    def test_message(self) -> None:
        """What is refused is shown in short and printable."""
        error = self.assertRaises(NameInvalid, check_repository, "\x1b[31m" + "é" * 500)
        self.assertTrue(str(error).isascii() and str(error).isprintable())
        self.assertLess(len(str(error)), 600)


class DigestTests(SynchronousTestCase):
    def test_good(self) -> None:
        """SHA-256 and SHA-512, in lower-case hex of their length, and back to text."""
        for text in (f"sha256:{HEX}", f"sha512:{HEX}{HEX}"):
            self.assertEqual(str(Digest.parse(text)), text)

    def test_bad(self) -> None:
        """Other syntax, lengths, cases and algorithms are DIGEST_INVALID."""
        for text in (
            "",
            ":",
            "sha256",
            "sha256:",
            f":{HEX}",
            f"sha256:{HEX[:-1]}",
            f"sha256:{HEX}0",
            f"sha256:{HEX.upper()}",
            f"SHA256:{HEX}",
            f"sha512:{HEX}",
            f"md5:{HEX[:32]}",
            f"sha384:{HEX}{HEX[:32]}",
            f"sha256:{HEX}\n",
            f" sha256:{HEX}",
            f"sha256:{HEX[:-1]}g",
            f"sha256:{HEX[:-1]}٣",
            f"sha256:../{HEX[3:]}",
            f"sha256+b64:{HEX}",
        ):
            self.assertRaises(DigestInvalid, Digest.parse, text)

    def test_of(self) -> None:
        """The digest of bytes is what hashlib says."""
        self.assertEqual(str(Digest.of(b"x")), "sha256:" + hashlib.sha256(b"x").hexdigest())
        self.assertEqual(Digest.of(b"x", "sha512").hex, hashlib.sha512(b"x").hexdigest())

    def test_matches(self) -> None:
        """A hash object matches when it saw exactly the bytes."""
        for algorithm in ("sha256", "sha512"):
            digest = Digest.of(b"xy", algorithm)
            hasher = digest.hasher()
            hasher.update(b"x")
            self.assertFalse(digest.matches(hasher))
            hasher.update(b"y")
            self.assertTrue(digest.matches(hasher))


class ReferenceTests(SynchronousTestCase):
    def test_tags(self) -> None:
        """The grammar's tags, up to 128 characters."""
        for tag in ("latest", "1.0", "_", "A-b.C_d", "x" * 128, "sha256-abc.sig"):
            self.assertEqual(parse_reference(tag), Tag(tag))

    def test_bad_tags(self) -> None:
        """Other texts are TAG_INVALID."""
        for tag in ("", ".", "..", "-a", ".a", "a/b", "a b", "a\n", "x" * 129, "é", "a%20", "a?b"):
            self.assertRaises(TagInvalid, parse_reference, tag)

    def test_digests(self) -> None:
        """What has a colon is a digest, or DIGEST_INVALID."""
        self.assertEqual(parse_reference(f"sha256:{HEX}"), Digest("sha256", HEX))
        self.assertRaises(DigestInvalid, parse_reference, "latest:1")

    def test_errors_are_for_clients(self) -> None:
        """Each of the refusals is the client's doing: 400."""
        for kind in (NameInvalid, TagInvalid, DigestInvalid):
            self.assertTrue(issubclass(kind, RegistryError))
            self.assertEqual(kind.status, 400)
