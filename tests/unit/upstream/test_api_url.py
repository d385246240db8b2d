"""URLs of upstreams with a path, read as an operator means them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.upstream.api_url import ApiUrl


class Bases(SynchronousTestCase):
    def test_urls(self) -> None:
        """A path stands in front of each repository, or where `/v2` in it says."""
        for url, ping, manifest in (
            ("https://r.test", "https://r.test/v2/", "https://r.test/v2/a/b/manifests/c"),
            ("https://r.test:5000/", "https://r.test:5000/v2/", "https://r.test:5000/v2/a/b/manifests/c"),
            ("https://r.test/hub", "https://r.test/v2/", "https://r.test/v2/hub/a/b/manifests/c"),
            ("https://r.test/x/hub", "https://r.test/v2/", "https://r.test/v2/x/hub/a/b/manifests/c"),
            ("https://r.test/v2/hub", "https://r.test/v2/", "https://r.test/v2/hub/a/b/manifests/c"),
            ("https://r.test/api/hub/v2", "https://r.test/api/hub/v2/", "https://r.test/api/hub/v2/a/b/manifests/c"),
            ("https://r.test/api/v2/hub", "https://r.test/api/v2/", "https://r.test/api/v2/hub/a/b/manifests/c"),
        ):
            base = ApiUrl.of(url)
            self.assertEqual((base.ping, base.url("a/b", "manifests/c")), (ping, manifest))

    def test_scopes(self) -> None:
        """Scopes have the upstream's names on its side and docxy's on the other, however often they pass."""
        base = ApiUrl.of("https://r.test/hub")
        self.assertEqual(base.scope("a/b"), "repository:hub/a/b:pull")
        ours, theirs = "repository:a/b:pull registry:catalog:*", "repository:hub/a/b:pull registry:catalog:*"
        self.assertEqual((base.scoped(ours), base.scoped(theirs)), (theirs, theirs))
        self.assertEqual((base.unscoped(theirs), base.unscoped(ours)), (ours, ours))
        plain = ApiUrl.of("https://r.test")
        self.assertEqual((plain.scoped(ours), plain.unscoped(ours)), (ours, ours))
