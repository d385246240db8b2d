"""From path, `ns` and Host to an upstream's endpoint."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import NameInvalid, NameUnknown, NotFound, RegistryError
from docxy.routing import EndpointKind, Router, Target
from docxy.settings.model import DOCKER_HUB, Upstream

GHCR = Upstream("ghcr.io", "https://ghcr.io", hosts=frozenset({"ghcr.mirror.test"}))
LOCAL = Upstream("short", "http://127.0.0.1:5000", aliases=frozenset({"registry.test:5000"}))
SHA = "sha256:" + "0" * 64


class Case(SynchronousTestCase):
    router = Router([DOCKER_HUB, GHCR, LOCAL], ["mirror.test", "mirror.test:5000"])

    def route(self, path: str, ns: str | None = None, host: str | None = "mirror.test") -> Target:
        return self.router.route(path, ns, host)

    def refused(self, kind: type[RegistryError], path: str, ns: str | None = None) -> None:
        with self.assertRaises(kind, msg=path):
            self.route(path, ns)


class TakenUpTests(SynchronousTestCase):
    def test_lists(self) -> None:
        """Other lists are those of every way to the upstream, and of whoever has known it since before."""
        router = Router([DOCKER_HUB, GHCR])
        ways = (("/v2/ghcr.io/o/i/tags/list", None, None), ("/v2/o/i/tags/list", "ghcr.io", None))
        ways = (*ways, ("/v2/o/i/tags/list", None, "ghcr.mirror.test"))
        self.assertTrue(router.permits(GHCR, "o/i"))
        denying = evolve(GHCR, deny=("o/*",))
        router.take_up([DOCKER_HUB, denying], None)
        for way in ways:
            self.assertIs(router.route(*way).upstream, denying)
        self.assertFalse(router.permits(GHCR, "o/i"))
        self.assertIs(router.default, DOCKER_HUB)
        router.take_up([DOCKER_HUB, GHCR], None)
        self.assertTrue(router.permits(denying, "o/i"))


class RouteTests(Case):
    def test_kinds(self) -> None:
        """Each endpoint of the distribution-spec, under names of any depth, `tags` and `blobs` in them too."""
        for path, kind, name, reference in (
            ("/v2/a/b/manifests/latest", EndpointKind.MANIFESTS, "a/b", "latest"),
            (f"/v2/a/b/blobs/{SHA}", EndpointKind.BLOBS, "a/b", SHA),
            (f"/v2/a/b/referrers/{SHA}", EndpointKind.REFERRERS, "a/b", SHA),
            ("/v2/a/b/tags/list", EndpointKind.TAGS, "a/b", ""),
            ("/v2/a/b/c/d/tags/list", EndpointKind.TAGS, "a/b/c/d", ""),
            ("/v2/a/tags/list/manifests/x", EndpointKind.MANIFESTS, "a/tags/list", "x"),
            ("/v2/blobs/manifests/manifests/list", EndpointKind.MANIFESTS, "blobs/manifests", "list"),
            ("/v2/a/%62/manifests/la%74est", EndpointKind.MANIFESTS, "a/b", "latest"),
            (f"/v2/a/b/blobs/{SHA.replace(':', '%3A')}", EndpointKind.BLOBS, "a/b", SHA),
        ):
            self.assertEqual(self.route(path), Target(DOCKER_HUB, kind, name, reference), path)

    def test_as_of(self) -> None:
        """A moment before the name, before `v2` and in the Host, with each way to name an upstream."""
        at = 1_790_812_800.0
        manifest = Target(GHCR, EndpointKind.MANIFESTS, "o/i", "t", True, at)
        day = "as-of/2026-10-01"
        for path, ns, host in (
            (f"/v2/{day}/ghcr.io/o/i/manifests/t", None, "mirror.test"),
            (f"/{day}/v2/ghcr.io/o/i/manifests/t", None, "mirror.test"),
            (f"/{day}/ghcr.io/v2/o/i/manifests/t", None, "mirror.test"),
            (f"/{day}/v2/o/i/manifests/t", "ghcr.io", "mirror.test"),
            (f"/v2/{day}/ghcr.io/o/i/manifests/t", "mirror.test", "mirror.test"),
            ("/v2/ghcr.io/o/i/manifests/t", None, "as-of-2026-10-01.mirror.test:5000"),
            ("/v2/o/i/manifests/t", None, "AS-OF-2026-10-01.ghcr.mirror.test"),
        ):
            self.assertEqual(self.route(path, ns, host), manifest, (path, host))
        blob = Target(DOCKER_HUB, EndpointKind.BLOBS, "library/alpine", SHA, False, at + 12.5 * 3600)
        for name in ("2026-10-01t12-30z", "2026-10-01T12-30-00Z"):
            self.assertEqual(self.route(f"/v2/as-of/{name}/alpine/blobs/{SHA}"), blob)
        self.assertEqual(self.route(f"/v2/{day}/"), Target(DOCKER_HUB, EndpointKind.PING, as_of=at))
        self.assertEqual(self.router.scoped(f"{day}/ghcr.io/o/i", None), (GHCR, "o/i"))
        self.assertEqual(self.router.scoped(f"{day}/o/i", GHCR), (GHCR, "o/i"))

    def test_no_moment(self) -> None:
        """What only looks like a moment is a name, as it ever was; a day that never was is no moment."""
        for name in ("as-of/2026-13-01", "as-of/yesterday", "as-of/2026-10-01t12-30", "as-of/2026-02-30"):
            target = Target(DOCKER_HUB, EndpointKind.MANIFESTS, f"{name}/alpine", "t")
            self.assertEqual(self.route(f"/v2/{name}/alpine/manifests/t"), target)
            self.refused(NameUnknown, f"/{name}/v2/alpine/manifests/t")
        self.refused(NotFound, "/as-of/2026-10-01")
        self.refused(NameUnknown, "/as-of")
        self.assertIsNone(self.route("/v2/a/b/manifests/t", None, "as-of-2026.mirror.test").as_of)

    def test_dots_in_names(self) -> None:
        """A name may begin with a domain where the upstream's do, by `ns` and prefix alike; not at Docker Hub."""
        name = "example.com/project/img"
        target = Target(GHCR, EndpointKind.MANIFESTS, name, "x", True)
        self.assertEqual(self.route(f"/v2/{name}/manifests/x", ns="ghcr.io"), target)
        self.assertEqual(self.route(f"/v2/ghcr.io/{name}/manifests/x"), target)
        self.assertEqual(self.route(f"/ghcr.io/v2/{name}/manifests/x"), target)
        self.assertEqual(self.router.scoped(name, GHCR), (GHCR, name))
        self.refused(NameUnknown, f"/v2/{name}/manifests/x")
        self.refused(NameUnknown, f"/v2/{name}/manifests/x", ns="docker.io")
        self.assertRaises(NameUnknown, self.router.scoped, name, None)

    def test_pings(self) -> None:
        """The ping with and without slash, and with a prefix of either kind."""
        for path, upstream, named in (
            ("/v2/", DOCKER_HUB, False),
            ("/v2", DOCKER_HUB, False),
            ("/v2/ghcr.io/", GHCR, True),
            ("/v2/ghcr.io", GHCR, True),
            ("/ghcr.io/v2/", GHCR, True),
            ("/ghcr.io/v2", GHCR, True),
            ("/registry.test:5000/v2/", LOCAL, True),
            ("/short/v2/", LOCAL, True),
            ("/v2/short/", LOCAL, True),
        ):
            self.assertEqual(self.route(path), Target(upstream, EndpointKind.PING, named=named), path)

    def test_prefixes(self) -> None:
        """An upstream's name or alias in front of `/v2` or behind it, in any case, with an encoded colon."""
        for path in (
            "/v2/registry.test:5000/x/manifests/1",
            "/v2/registry.test%3A5000/x/manifests/1",
            "/v2/Registry.TEST:5000/x/manifests/1",
            "/registry.test:5000/v2/x/manifests/1",
            "/v2/short/x/manifests/1",
        ):
            self.assertEqual(self.route(path), Target(LOCAL, EndpointKind.MANIFESTS, "x", "1", True), path)

    def test_order(self) -> None:
        """The prefix counts more than `ns`, `ns` more than Host, Host more than the default."""
        path = "/v2/a/b/tags/list"
        self.assertEqual(self.route("/v2/short/a/b/tags/list", "ghcr.io").upstream, LOCAL)
        self.assertEqual(self.route(path, "short", "ghcr.mirror.test").upstream, LOCAL)
        self.assertEqual(self.route(path, None, "GHCR.mirror.test:443").upstream, GHCR)
        self.assertEqual(self.route(path, None, "other.test").upstream, DOCKER_HUB)
        self.assertEqual(self.route(path, None, None).upstream, DOCKER_HUB)

    def test_docker_hub_names(self) -> None:
        """All names of Docker Hub are one."""
        for ns in ("docker.io", "registry-1.docker.io", "index.docker.io", "Docker.IO"):
            target = self.route("/v2/busybox/manifests/1", ns)
            self.assertEqual((target.upstream, target.repository), (DOCKER_HUB, "library/busybox"))

    def test_library(self) -> None:
        """Only names of one component, and only at an upstream that has them, get `library/`."""
        self.assertEqual(self.route("/v2/a/b/tags/list").repository, "a/b")
        self.assertEqual(self.route("/v2/library/b/tags/list").repository, "library/b")
        self.assertEqual(self.route("/v2/b/tags/list", "ghcr.io").repository, "b")

    def test_ourselves(self) -> None:
        """An `ns` that is our own name, or the Host, or empty, says nothing."""
        for ns in ("mirror.test", "MIRROR.test:5000", "host.test:1", ""):
            target = self.route("/v2/a/b/tags/list", ns, "host.test:1")
            self.assertEqual((target.upstream, target.named), (DOCKER_HUB, False))

    def test_ns_refused(self) -> None:
        """Any other `ns` is refused."""
        for ns in ("evil.test", "docker.io.evil.test", "https://docker.io", "docker.io/", " docker.io", "é", "\n"):
            self.refused(NameUnknown, "/v2/a/b/tags/list", ns)

    def test_prefix_refused(self) -> None:
        """What looks like a registry in front and is not configured is refused, not taken for a name of Docker Hub."""
        for path in (
            "/quay.io/v2/a/tags/list",
            "/v2/quay.io/a/tags/list",
            "/v2/localhost/a/tags/list",
            "/v2/localhost:5000/a/tags/list",
            "/v2/10.0.0.1/a/tags/list",
        ):
            self.refused(NameUnknown, path)

    def test_names_with_dots(self) -> None:
        """Where names may have dots, a first component with one is a part of the name."""
        router = Router([GHCR])
        self.assertEqual(router.route("/v2/a.b/c/tags/list", None, None).repository, "a.b/c")

    def test_malformed(self) -> None:
        """What is no path or no name is NOT_FOUND or NAME_INVALID."""
        for path in (
            "/short/v3/",
            "/v2/a",
            "/v2/a/b",
            "/v2/a/manifests",
            "/v2/a/manifests/",
            "/v2/a/tags/other",
            "/v2/manifests/latest",
            "/v2/a/uploads/x",
            "/v2/a%2Fb/manifests/x",
            "/v2/a/manifests/x%2fy",
            "/v2/caf%C3%A9/manifests/x",
            "/v2/caf\ufffd/manifests/x",
            "/v2/a/manifests/%ff",
        ):
            self.refused(NotFound, path)
        for path in ("", "/", "/v3/", "/v2x/"):
            self.refused(NameUnknown, path)
        for name in ("A", "a//b", "..", "%2e%2e", ".", "a%00", "a%0d%0a", "a%20b", "%61%", "x" * 256, "-"):
            self.refused(NameInvalid, f"/v2/{name}/manifests/x")

    def test_name_at_the_limit_gets_library(self) -> None:
        """`library/` in front of a name does not make it longer than any registry takes."""
        self.refused(NameInvalid, f"/v2/{'x' * 255}/manifests/1")


class ScopeTests(Case):
    def test_scoped(self) -> None:
        """A scope's name leads where a path with it would."""
        for name, upstream, repository in (
            ("busybox", DOCKER_HUB, "library/busybox"),
            ("a/b", DOCKER_HUB, "a/b"),
            ("ghcr.io/a/b", GHCR, "a/b"),
            ("short/b", LOCAL, "b"),
        ):
            self.assertEqual(self.router.scoped(name, None), (upstream, repository))

    def test_asked_for(self) -> None:
        """Where the upstream is known already, a name without a prefix is its; a prefix still counts."""
        self.assertEqual(self.router.scoped("a/b", GHCR), (GHCR, "a/b"))
        self.assertEqual(self.router.scoped("b", DOCKER_HUB), (DOCKER_HUB, "library/b"))
        self.assertEqual(self.router.scoped("short/b", GHCR), (LOCAL, "b"))

    def test_refused(self) -> None:
        """Malformed names and unknown upstreams are refused."""
        for name in ("A/b", "", "/", "ghcr.io/"):
            self.assertRaises(NameInvalid, self.router.scoped, name, None)
        self.assertRaises(NameUnknown, self.router.scoped, "quay.io/a", None)


class PrefixTests(Case):
    def test_is_prefix(self) -> None:
        """Names of upstreams and what looks like a host may stand before `/v2`."""
        for segment, expected in (
            ("docker.io", True),
            ("SHORT", True),
            ("quay.io", True),
            ("localhost", True),
            ("h:1", True),
            ("auth", False),
            ("health", False),
            ("", False),
        ):
            self.assertEqual(self.router.is_prefix(segment), expected, segment)

    def test_by_name(self) -> None:
        """An upstream is known by its name and aliases, in any case."""
        self.assertEqual(self.router.by_name("Index.docker.io"), DOCKER_HUB)
        self.assertIsNone(self.router.by_name("quay.io"))
