"""File and commands together: what stands, under every name of an image."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import RegistryError
from docxy.names import Digest
from docxy.orders.model import Kind, Order, Orders
from docxy.orders.standing import standing
from docxy.settings.image_names import ImageName, parse_exact, parse_image, parse_one_tag
from docxy.settings.model import DOCKER_HUB, Upstream
from docxy.settings.policy import Freeze, Keep, Policy, Recall

UPSTREAMS = (DOCKER_HUB, Upstream("ghcr.io", "https://ghcr.io", aliases=frozenset({"gh"})))
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


def order(kind: Kind, image: str = "", digest: Digest | None = None, reason: str = "") -> Order:
    return Order(kind, image, "" if digest is None else str(digest), reason, 1000.0, "root")


def orders(*given: Order, **known: tuple[str, ...]) -> Orders:
    return Orders({each.key: each for each in given}, known)


class ImageNames(SynchronousTestCase):
    def test_one_name(self) -> None:
        """However an image is written, it is one: without library/, by an alias, without its registry."""
        for text, name in (
            ("python:3.12", "docker.io/library/python:3.12"),
            ("docker.io/python", "docker.io/library/python"),
            ("index.docker.io/library/python", "docker.io/library/python"),
            ("team/app:*", "docker.io/team/app:*"),
            ("docker.io/*", "docker.io/library/*"),
            ("docker.io/**", "docker.io/**"),
            ("gh/o/i:v1", "ghcr.io/o/i:v1"),
            (f"GHCR.io/o/i@{ONE}", f"ghcr.io/o/i@{ONE}"),
        ):
            self.assertEqual(str(parse_image(text, UPSTREAMS)), name)

    def test_wrong(self) -> None:
        """What names no image of a configured registry says why."""
        for text in ("quay.io/a/b", "UPPER", "a:t/b:", "a:", "a:b**", "a@sha256:12", "", "a b", "a/***"):
            self.assertRaises(ValueError, parse_image, text, UPSTREAMS)
        self.assertEqual(str(parse_one_tag("python", UPSTREAMS)), "docker.io/library/python:latest")
        for text in ("python:*", "pyth?n:1", "**:1"):
            self.assertRaises(ValueError, parse_one_tag, text, UPSTREAMS)

    def test_exact(self) -> None:
        """What asks by a name knows it by the same law, without wildcards."""
        for text in ("python:3.12", "index.docker.io/library/python", "gh/o/i:v1", f"GHCR.io/o/i@{ONE}"):
            self.assertEqual(parse_exact(text, UPSTREAMS), parse_image(text, UPSTREAMS))
        for text in ("quay.io/a/b", "UPPER", "a:t/b:", "a:", "a:*", "a@sha256:12", "", "a b", "a*", "a@"):
            self.assertRaises(RegistryError, parse_exact, text, UPSTREAMS)

    def test_covers(self) -> None:
        """A tag's glob covers tags, none covers the whole repository; neither covers another registry."""
        some = parse_image("python:3.*", UPSTREAMS)
        self.assertTrue(some.covers("docker.io", "library/python", "3.12-slim"))
        for upstream, repository, tag in (
            ("docker.io", "library/python", "2.7"),
            ("docker.io", "library/python", None),
            ("docker.io", "library/pythons", "3.1"),
            ("ghcr.io", "library/python", "3.1"),
        ):
            self.assertFalse(some.covers(upstream, repository, tag))
        whole = parse_image("team/**", UPSTREAMS)
        for tag in ("x", None):
            self.assertTrue(whole.covers("docker.io", "team/a/b", tag))


class StandingTests(SynchronousTestCase):
    def test_both(self) -> None:
        """Recalls of the file and of commands both stand; a command's reason is the later word."""
        policy = Policy((), (Recall(ONE, None, "file"), Recall(None, parse_image("gh/o/**", UPSTREAMS), "all")))
        stands = standing(policy, orders(order(Kind.RECALL, digest=TWO, reason="command")), UPSTREAMS)
        self.assertEqual(stands.recalled, {str(ONE): "file", str(TWO): "command"})
        self.assertEqual(stands.why("ghcr.io", "o/i", None), "all")
        self.assertIsNone(stands.why("docker.io", "o/i", None))
        both = standing(policy, orders(order(Kind.RECALL, digest=ONE, reason="command")), UPSTREAMS)
        self.assertEqual(both.recalled, {str(ONE): "command"})

    def test_belonging(self) -> None:
        """What a recalled index names belongs to it; where a recalled tag led is recalled itself."""
        known = {str(ONE): (str(TWO), "sha256:x"), "docker.io/team/app:v1": (str(ONE),)}
        stands = standing(Policy(), orders(order(Kind.RECALL, "docker.io/team/app:v1"), **known), UPSTREAMS)
        self.assertEqual([*stands.recalled], [str(ONE)])
        self.assertEqual(stands.belonging, {str(TWO): str(ONE), "sha256:x": str(ONE)})
        self.assertFalse(standing(Policy(), orders(**known), UPSTREAMS).recalls)

    def test_freeze(self) -> None:
        """The file's word on where a tag stays goes before a command's."""
        image = parse_one_tag("python:3.12", UPSTREAMS)
        commands = orders(order(Kind.FREEZE, str(image), TWO), order(Kind.FREEZE, "docker.io/library/alpine:3", TWO))
        stands = standing(Policy((Freeze(image, ONE),)), commands, UPSTREAMS)
        self.assertEqual(stands.frozen_tags["docker.io", "library/python", "3.12"], ONE)
        self.assertEqual(stands.frozen_tags["docker.io", "library/alpine", "3"], TWO)

    def test_pins_and_releases(self) -> None:
        """Both are asked by name and by digest."""
        stands = standing(
            Policy(),
            orders(
                order(Kind.PIN, "docker.io/library/python:3.*"),
                order(Kind.PIN, digest=ONE),
                order(Kind.RELEASE, "ghcr.io/o/i"),
                order(Kind.RELEASE, digest=TWO),
            ),
            UPSTREAMS,
        )
        self.assertTrue(stands.is_pinned("docker.io", "library/python", "3.1"))
        self.assertFalse(stands.is_pinned("docker.io", "library/python", "2"))
        self.assertEqual(len(stands.pins), 2)
        self.assertTrue(stands.is_released("ghcr.io", "o/i", "v1", ONE))
        self.assertTrue(stands.is_released("docker.io", "a/b", None, TWO))
        self.assertFalse(stands.is_released("docker.io", "a/b", "v1", ONE))

    def test_hottest(self) -> None:
        """As many of the most pulled tags as some `[[keep]]` says are pinned, and shown as kept; none without one."""
        tags = [ImageName("docker.io", "library/python", "3"), ImageName("ghcr.io", "o/i", "v1")]
        for hot, pinned in ((0, [False, False]), (1, [True, False]), (2, [True, True])):
            keeps = (Keep(hot=hot), Keep((ImageName("docker.io", "a/b", "c"),)))
            stands = standing(Policy(keeps=keeps), orders(), UPSTREAMS, tags)
            names = [(each.upstream, each.repository, str(each.tag)) for each in tags]
            self.assertEqual([stands.is_pinned(*name) for name in names], pinned)
            marks = [[mark.what for mark in stands.marks(*name, [ONE])] for name in names]
            self.assertEqual(marks, [["kept"] if each else [] for each in pinned])
            self.assertEqual(stands.marks("ghcr.io", "o/i", None, [ONE]), [])

    def test_gone_upstream(self) -> None:
        """An order about a registry that is not configured any more waits, and ends nothing."""
        stands = standing(Policy(), orders(order(Kind.RECALL, "quay.io/a/b")), UPSTREAMS)
        self.assertEqual(stands.recalled_images, [])
