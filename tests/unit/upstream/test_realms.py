"""Token services: which hosts docxy asks, and which may see credentials."""

from __future__ import annotations

from functools import cache
from urllib.parse import urlsplit

from attrs import evolve
from publicsuffixlist import PublicSuffixList
from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import UpstreamError
from docxy.settings.model import DOCKER_HUB, Upstream
from docxy.settings.presets import preset
from docxy.upstream.realms import Realms

REALMS = Realms(cache(PublicSuffixList))
HUB = DOCKER_HUB
REALM = "https://auth.docker.io/token"


class RealmTests(SynchronousTestCase):
    def refused(self, upstream: Upstream, realm: str) -> str:
        return str(self.assertRaises(UpstreamError, REALMS.check, upstream, realm))

    def test_good(self) -> None:
        """The upstream's own host, on any port, and hosts of its registrable domain."""
        for url, realm in (
            (HUB.url, REALM),
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://ghcr.io", "https://GHCR.io:8443/token"),
            ("https://gitlab.example.co.uk", "https://auth.example.co.uk/jwt"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token"),
            ("http://registry:5000", "http://registry/token"),
            ("http://[::1]:5000", "http://[::1]:5001/token"),
            ("http://registry:5000", "https://registry/token"),
        ):
            self.assertEqual(REALMS.check(Upstream("x", url), realm), realm)

    def test_foreign(self) -> None:
        """Any other host is refused: other domains, neighbours under a public suffix, addresses alike."""
        for url, realm in (
            (HUB.url, "https://evil.test/token"),
            (HUB.url, "https://docker.io.evil.test/token"),
            (HUB.url, "https://evildocker.io/token"),
            ("https://a.github.io", "https://b.github.io/token"),
            ("https://a.co.uk", "https://b.co.uk/token"),
            ("http://10.0.0.1", "http://10.0.0.2/token"),
            ("http://10.0.0.1", "http://169.254.169.254/token"),
            ("http://registry", "http://metadata/token"),
            ("http://127.0.0.1", "http://localhost/token"),
        ):
            self.assertIn("another domain", self.refused(Upstream("x", url), realm))

    def test_vouched_for(self) -> None:
        """A host that the operator lists is fine."""
        upstream = Upstream("x", HUB.url, realm_hosts=frozenset({"id.test"}))
        self.assertEqual(REALMS.check(upstream, "https://ID.test/token"), "https://ID.test/token")
        self.refused(upstream, "https://a.id.test/token")

    def test_plain(self) -> None:
        """An https upstream's realm must be https."""
        self.assertIn("plain http", self.refused(HUB, "http://auth.docker.io/token"))

    def test_no_url(self) -> None:
        """What is no http or https URL, or has credentials in it, is refused; its query is not shown."""
        for realm in (
            "",
            "/token",
            "ftp://auth.docker.io/",
            "file:///etc/passwd",
            "https://",
            "https://[::1",
            "https://auth.docker.io:0/",
            "https://auth.docker.io:99999/",
            "https://user@auth.docker.io/",
            "javascript:x",
        ):
            self.assertNotIn("sesame", self.refused(HUB, realm + "?sesame"))

    def test_endpoints(self) -> None:
        """A mirror of the upstream may name a realm of its own, but credentials are not for it."""
        upstream = evolve(HUB, endpoints=("https://copy.test",))
        self.assertEqual(REALMS.check(upstream, "https://auth.copy.test/t"), "https://auth.copy.test/t")
        self.assertFalse(REALMS.may_know(upstream, "https://auth.copy.test/t"))
        self.assertTrue(REALMS.may_know(upstream, REALM))

    def test_neighbours(self) -> None:
        """Credentials go to the registry's own host and to listed ones, not to others under the same domain."""
        for url, realm in (
            ("https://mine.azurecr.io", "https://yours.azurecr.io/oauth2/token"),
            ("https://mine.jfrog.io", "https://yours.jfrog.io/token"),
            ("https://phx.ocir.io", "https://evil.ocir.io/token"),
            ("https://registry.cn-a.aliyuncs.com", "https://evil.oss-cn-a.aliyuncs.com/token"),
            ("https://registry.example.com", "https://gitlab.example.com/jwt/auth"),
        ):
            upstream = Upstream("x", url)
            self.assertFalse(REALMS.may_know(upstream, realm), realm)
            listed = Upstream("x", url, realm_hosts=frozenset({urlsplit(realm).hostname or ""}))
            self.assertTrue(REALMS.may_know(listed, realm))
            self.assertTrue(REALMS.may_know(upstream, f"{url}:8443/token"))

    def test_known_by_url(self) -> None:
        """Docker Hub and gitlab.com are known by their URLs, whatever the operator calls them."""
        for url, realm in ((HUB.url, REALM), ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth")):
            self.assertTrue(REALMS.may_know(Upstream("x", url), realm))

    def test_known_registries(self) -> None:
        """What is known of registries by name is enough for their tokens."""
        for name, realm in (
            ("docker.io", REALM),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("ghcr.io", "https://ghcr.io/token"),
            ("quay.io", "https://quay.io/v2/auth"),
            ("public.ecr.aws", "https://public.ecr.aws/token/"),
            ("gcr.io", "https://gcr.io/v2/token"),
            ("europe-docker.pkg.dev", "https://europe-docker.pkg.dev/v2/token"),
            ("nvcr.io", "https://nvcr.io/proxy_auth"),
            ("mine.azurecr.io", "https://mine.azurecr.io/oauth2/token"),
        ):
            self.assertTrue(REALMS.may_know(preset(name), REALMS.check(preset(name), realm)), name)
