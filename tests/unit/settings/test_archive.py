"""The `[archive]` table, and the line when it cannot be used."""

from __future__ import annotations

from docxy.archive.clients import check
from docxy.settings.model import ArchiveSettings, ConfigError, Redirect
from tests.unit.settings.test_load import Case

S3 = "[archive]\nurl = 's3://bucket/prefix/'\n"
GS = "[archive]\nurl = 'gs://bucket'\n"


class ArchiveTests(Case):
    def test_off(self) -> None:
        """Without the table there is none."""
        self.assertIsNone(self.load("").archive)

    def test_table(self) -> None:
        """What it says, and what is left out; the secret is in nothing that a bug report shows."""
        self.assertEqual(self.load(S3).archive, ArchiveSettings("s3://bucket/prefix"))
        secret = self.file("t0psecret\n", "secret")
        config = self.load(
            f"{S3}endpoint = 'https://S3.example:9000/'\nregion = 'eu-central-1'\naccess_key = 'docxy'\n"
            f"secret_file = '{secret}'\nrate = '50MB'\nputs = 4\n"
        )
        found = config.archive
        assert found is not None
        self.assertEqual(
            (found.endpoint, found.region, found.access_key, found.secret, found.rate, found.puts),
            ("https://s3.example:9000", "eu-central-1", "docxy", b"t0psecret", 50_000_000, 4),
        )
        self.assertNotIn("t0psecret", repr(config))

    def test_redirect(self) -> None:
        """Where clients are sent, and that it is not where they would send their credentials along."""
        found = self.load(f"{S3}redirect = 'cold'\npublic_endpoint = 'https://s3.example/'").archive
        assert found is not None
        self.assertEqual((found.redirect, found.public_endpoint), (Redirect.COLD, "https://s3.example"))
        for ours in ("https://s3.example:8443", "https://example"):
            with self.assertRaisesRegex(ConfigError, "docxy's own host"):
                check(found, ours)
        for ours in (None, "https://mirror.example", "https://b.s3.example"):
            check(found, ours)

    def test_refused(self) -> None:
        """Each mistake is one line, without the secret."""
        where = "[archive] in FILE"
        form = "is not s3://bucket/prefix, gs://bucket/prefix or az://account/container/prefix"
        for toml, why in (
            ("[archive]\n", "url is missing"),
            ("[archive]\nurl = 'http://bucket'", f"url: 'http://bucket' {form}"),
            ("[archive]\nurl = 's3://bucket/../x'", f"url: 's3://bucket/../x' {form}"),
            (
                "[archive]\nurl = 'az://account'",
                "url: 'az://account' names no container: az://account/container/prefix",
            ),
            (S3 + "bucket = 'x'", "unknown key 'bucket'"),
            (S3 + "secret = 'x'", "secret: use secret_file or secret_env, this file is no place for it"),
            (S3 + "access_key = 'x'", "access_key and secret_file (or secret_env) belong together"),
            (S3 + "secret_env = 'NOWHERE'", "secret_env: NOWHERE is not set in the environment"),
            (S3 + "secret_file = '/x'\nsecret_env = 'X'", "secret_file and secret_env cannot be combined"),
            (S3 + "rate = '1kB'", "rate: '1kB' is too slow: at least 1 MB (a second)"),
            (S3 + "puts = 9", "puts: '9' is more than 4"),
            (S3 + "endpoint = 'ftp://x'", "endpoint: 'ftp://x' is not a URL such as https://registry.example"),
            (GS + "region = 'x'", "region is of s3:// only, and url is gs://bucket"),
            (GS + "endpoint = 'http://x'", "endpoint is not for gs://, and url is gs://bucket"),
            (S3 + "redirect = 'yes'", "redirect: 'yes' is not never, cold, always"),
            (S3 + "redirect = 'cold'", "redirect needs public_endpoint, the URL by which clients reach the store"),
            (S3 + "public_endpoint = 'https://x'", "public_endpoint is of use with redirect only"),
            (GS + "public_endpoint = 'https://x'", "public_endpoint is not for gs://, and url is gs://bucket"),
            ("cache = 'off'\n" + S3, "an archive needs a cache, which --cache turns off"),
        ):
            self.refused(toml=toml, line=f"{where}: {why}")
        self.refused(toml="archive = 5", line="FILE: archive must be a table, [archive]")
