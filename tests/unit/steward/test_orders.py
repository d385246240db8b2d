"""Orders given, shown and taken back; what a report of a recall finds; and what is pinned stays."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from docxy.errors import BadRequest
from docxy.names import OCI_MANIFEST, Digest
from docxy.orders import store
from docxy.orders.model import Kind
from docxy.orders.store import FileOrders
from docxy.questions import Unanswered
from docxy.settings.image_names import ImageName, parse_one_tag
from docxy.settings.load import load
from docxy.settings.model import DOCKER_HUB, Upstream
from docxy.settings.policy import Freeze, Keep, Policy
from docxy.steward import report
from docxy.steward.inline import finish
from docxy.steward.lines import Failed
from docxy.steward.orders import ORDERS
from docxy.steward.steward import Steward
from tests.unit.steward.case import HUB, NOW, StewardCase

ELSE = Digest.of(b"else")


class OrderCase(StewardCase):
    def setUp(self) -> None:
        super().setUp()
        self.child = self.image("library/app", [], [b"a layer", b"shared"])
        self.index_digest = self.index("library/app", [(self.child, "linux/amd64")], ["v1"])
        self.other = self.image("team/other", ["v2"], [b"shared"])

    def stands(self, kind: Kind) -> list[tuple[str, str]]:
        return [(order.image, order.digest) for order in FileOrders(self.directory).look().of(kind)]

    def marks(self, act: str, image: str) -> list[tuple[str, str]]:
        """What an act shows to be ordered about one image."""
        (found,) = self.items(act, image=image)
        return [(mark["what"], mark["more"]) for mark in found["marks"]]

    def asked(self) -> int:
        return len([each for each in self.workers.asked if each[0] == ORDERS])


class Orders(OrderCase):
    def test_freeze(self) -> None:
        """A tag is frozen at a digest, or where it leads now; workers are asked to go by it; release undoes it."""
        self.act("freeze", image=f"app:v1@{ELSE}", who="ann", reason="")
        self.assertEqual(self.stands(Kind.FREEZE), [("docker.io/library/app:v1", str(ELSE))])
        self.assertEqual(self.asked(), 1)
        (order,) = self.items("freeze", image="app:v1")
        self.assertEqual(order["digest"], str(self.index_digest))
        self.assertEqual(self.stands(Kind.FREEZE), [("docker.io/library/app:v1", str(self.index_digest))])
        (told,) = self.items("release", image="docker.io/app:v1")
        self.assertEqual((told["kind"], told["lifted"]), ("freeze", True))
        self.assertEqual((self.stands(Kind.FREEZE), self.stands(Kind.RELEASE)), ([], []))
        self.assertEqual(self.asked(), 3)

    def test_freeze_latest(self) -> None:
        """A name without a tag is latest's, to freeze and to release."""
        self.act("freeze", image=f"app@{ELSE}")
        self.assertEqual(self.stands(Kind.FREEZE), [("docker.io/library/app:latest", str(ELSE))])
        self.assertTrue(self.items("release", image="app")[0]["lifted"])

    def test_freeze_dry(self) -> None:
        """A dry run says where, and nothing else happens."""
        (order,) = self.items("freeze", image="app:v1", dry_run=True)
        self.assertEqual(order["digest"], str(self.index_digest))
        self.assertEqual((self.stands(Kind.FREEZE), self.workers.asked), ([], []))

    def test_freeze_narrow(self) -> None:
        """A tag of which only clients asked that take some kinds of manifests stays where they were led."""
        self.catalog.upstream("docker.io").tags.keep("library/app", "v9 oci-manifest", ELSE, OCI_MANIFEST, 9)
        self.assertEqual(self.items("freeze", image="app:v9")[0]["digest"], str(ELSE))

    def test_freeze_unknown(self) -> None:
        """Where docxy does not know where a tag leads, it asks for a digest; what the file says is changed there."""
        self.assertIn("name a digest", str(self.assertRaises(Failed, self.act, "freeze", image="app:none")))
        self.policy = Policy((Freeze(parse_one_tag("app:v1", [DOCKER_HUB]), ELSE),))
        self.assertIn("configuration file", str(self.assertRaises(Failed, self.act, "freeze", image="app:v1")))

    def test_release(self) -> None:
        """What is not frozen is excepted from the cooldown, by name, glob or digest; that is taken back, too."""
        for image, kept in (("app:*", ("docker.io/library/app:*", "")), (str(ELSE), ("", str(ELSE)))):
            self.assertFalse(self.items("release", image=image)[0]["lifted"])
            self.assertIn(kept, self.stands(Kind.RELEASE))
            self.act("release", image=image, lift=True)
            self.assertIn(
                "is not released", str(self.assertRaises(Failed, self.act, "release", image=image, lift=True))
            )
        self.assertEqual(self.stands(Kind.RELEASE), [])

    def test_recall(self) -> None:
        """By digest, by image with a digest, by name; with the reason and who gave it; lifted again."""
        self.act("recall", image=str(ELSE), reason="CVE", who="ann")
        (order,) = FileOrders(self.directory).look().of(Kind.RECALL)
        self.assertEqual((order.reason, order.who, order.at), ("CVE", "ann", NOW))
        self.act("recall", image=f"app:v1@{ELSE}", reason="worse")
        self.act("recall", image="team/**")
        self.assertEqual(self.stands(Kind.RECALL), [("", str(ELSE)), ("docker.io/team/**", "")])
        self.assertEqual(self.asked(), 3)
        self.act("recall", image="team/**", lift=True)
        self.act("recall", image=f"app@{ELSE}", lift=True)
        self.assertEqual(self.stands(Kind.RECALL), [])
        self.assertIn("is not recalled", str(self.assertRaises(Failed, self.act, "recall", image=str(ELSE), lift=True)))

    def test_recall_dry(self) -> None:
        """A dry run recalls nothing."""
        self.items("recall", image=str(ELSE), dry_run=True)
        self.assertEqual((self.stands(Kind.RECALL), self.workers.asked), ([], []))

    def test_lift_dry(self) -> None:
        """A dry run takes nothing back: no recall, exception, freeze or pin; it fails where there is none."""
        given = {
            "recall": {"image": str(ELSE)},
            "pin": {"image": ["app"]},
            "release": {"image": "team/**"},
            "freeze": {"image": f"app:v1@{ELSE}"},
        }
        for act, arguments in given.items():
            self.assertEqual(self.act(act, dry_run=True, **arguments)[-1]["done"].get("dry_run", True), True)
        self.assertEqual((self.items("orders"), self.workers.asked), ([], []))
        self.assertRaises(Failed, self.act, "recall", image=str(ELSE), lift=True, dry_run=True)
        for act, arguments in given.items():
            self.act(act, **arguments)
        before, asked = self.items("orders"), self.asked()
        for act, image in (("recall", str(ELSE)), ("release", "team/**"), ("release", "app:v1"), ("unpin", "app")):
            (told,) = self.items(act, image=image, lift=True, dry_run=True)
            self.assertTrue(told.get("lifted", True))
        self.assertEqual((self.items("orders"), self.asked()), (before, asked))

    def test_pin(self) -> None:
        """Pins by name, glob and digest; how much that is; unpinned as they were written."""
        self.workers.answers = {1: {"kept": 5, "wanted": 7}, 2: {}}
        self.assertEqual(self.end("pin", image=["app:v*", str(ELSE)]), {"kept": 5, "wanted": 7})
        self.assertEqual(self.stands(Kind.PIN), [("docker.io/library/app:v*", ""), ("", str(ELSE))])
        self.assertEqual([each["kind"] for each in self.items("orders")], ["pin", "pin"])
        self.act("unpin", image=["app:v*", str(ELSE)])
        self.assertEqual(self.items("orders"), [])
        self.assertIn("is not pinned", str(self.assertRaises(Failed, self.act, "unpin", image="app:v*")))

    def test_shown(self) -> None:
        """What is ordered about an image is shown with it: by its name and by its digest."""
        self.assertEqual(self.items("show", image="app:v1")[0]["marks"], [])
        self.act("freeze", image="app:v1")
        self.act("pin", image="app:*")
        self.act("recall", image=str(self.index_digest), reason="CVE")
        told = [("recalled", "CVE"), ("frozen", str(self.index_digest)), ("pinned", "")]
        self.assertEqual(self.marks("show", "app:v1"), told)
        self.assertEqual(self.marks("ls", "app:v1"), told)
        self.act("pin", image=str(self.other))
        self.assertEqual(self.marks("show", "team/other:v2"), [("pinned", "")])

    def test_kept_shown(self) -> None:
        """What `[[keep]]` of the policy in force names is shown as kept, by its digest this digest alone."""
        self.policy = Policy(keeps=(Keep((ImageName(HUB, "library/app", "v*"),)),))
        self.assertEqual(self.marks("ls", "app:v1"), [("kept", "")])
        self.policy = Policy(keeps=(Keep((ImageName(HUB, "team/other", None, Digest.of(b"another")),)),))
        self.assertEqual(self.marks("ls", "team/other:v2"), [])
        self.policy = Policy(keeps=(Keep((ImageName(HUB, "team/other", None, self.other),)),))
        self.assertEqual(self.marks("ls", "team/other:v2"), [("kept", "")])

    def test_frozen_by_file(self) -> None:
        """What the policy in force freezes is not frozen elsewhere by a command, be it newer than the start."""
        self.policy = Policy((Freeze(ImageName(HUB, "library/app", "v1"), ELSE),))
        told = str(self.assertRaises(Failed, self.act, "freeze", image=f"app:v1@{self.index_digest}"))
        self.assertIn(f"the configuration file freezes docker.io/library/app:v1 at {ELSE}", told)
        self.act("freeze", image=f"app:v1@{ELSE}")

    def test_wrong_names(self) -> None:
        """What names nothing is an error that says what is wrong, and no order."""
        for act in ("freeze", "release", "recall", "pin", "unpin"):
            for image in ("UPPER", "sha256:12", "a:b:c", "x" * 2000, ""):
                self.assertRaises(BadRequest, self.act, act, image=image)
            self.assertRaises(BadRequest, self.act, act)
        for act in ("freeze", "release", "recall"):
            self.assertRaises(BadRequest, self.act, act, image=["a", "b"])
        self.assertRaises(BadRequest, self.act, "recall", image="app", reason="two\nlines")
        config = load({}, {"CERT_PATH": "off", "CACHE_DIR": "off"})
        ghcr = Upstream("ghcr.io", "https://ghcr.io")
        self.steward = evolve(self.steward, config=evolve(config, upstreams=(DOCKER_HUB, ghcr)))
        wrong = self.assertRaises(BadRequest, self.act, "recall", image="quay.io/a/b")
        self.assertIn("it mirrors docker.io, ghcr.io", str(wrong))
        self.act("recall", image="ghcr.io/a/b")

    def test_stopped(self) -> None:
        """Where no docxy runs, nobody knows its registries: a name says which one it means."""
        self.act("recall", image="quay.io/a/b:1")
        self.assertEqual(self.stands(Kind.RECALL), [("quay.io/a/b:1", "")])

    def test_silent_worker(self) -> None:
        """The order stands though a worker does not answer, and the command says so."""
        self.workers.answers = {1: {}, 2: Unanswered("it stopped")}
        told = str(self.assertRaises(Failed, self.act, "recall", image=str(ELSE)))
        self.assertIn("worker 2 did not say that it goes by it: it stopped", told)
        self.assertEqual(self.stands(Kind.RECALL), [("", str(ELSE))])

    def test_cannot(self) -> None:
        """Orders that cannot be read or written, or are too many, are no order given."""
        self.patch(store, "MOST", 1)
        self.act("pin", image="app")
        self.assertIn("there are 1 orders", str(self.assertRaises(Failed, self.act, "pin", image="other")))
        Path(self.directory, "orders.json").write_text("{")
        for act in ("pin", "unpin", "recall", "orders", "gc"):
            self.assertIn("damaged", str(self.assertRaises(Failed, self.act, act, image="app")))


class Pinned(OrderCase):
    def test_rm(self) -> None:
        """What is pinned is not removed, and the command says what to do."""
        self.act("pin", image="app:v*")
        told = str(self.assertRaises(Failed, self.act, "rm", image="app"))
        self.assertIn("docker.io/library/app:v1 is pinned: docxy unpin docker.io/library/app:v* first", told)
        self.assertTrue(self.is_kept(self.child))
        self.act("rm", image="team/other")
        self.act("unpin", image="app:v*")
        self.act("rm", image="app")
        self.assertFalse(self.is_kept(self.child))

    def test_kept(self) -> None:
        """What the policy in force keeps is not removed and is no garbage, and the command says who keeps it."""
        self.policy = Policy(keeps=(Keep((ImageName(HUB, "library/app", "v1"),)),))
        told = str(self.assertRaises(Failed, self.act, "rm", image="app:v1"))
        self.assertIn("app:v1 is pinned: [[keep]] in the configuration file names docker.io/library/app:v1", told)
        self.clock.advance(100 * 86400)
        self.act("gc", unused=86400, untagged=86400)
        self.assertEqual((self.is_kept(self.index_digest), self.is_kept(self.other)), (True, False))
        self.policy = Policy()
        self.act("rm", image="app:v1")
        self.assertFalse(self.is_kept(self.index_digest))

    def test_gc(self) -> None:
        """What is pinned is no garbage: a tag that nobody pulls, and a digest that nothing leads to."""
        self.act("pin", image=["app:v1", str(self.other)])
        self.steward.catalog.upstream(HUB).tags.drop("team/other", "v2")
        self.clock.advance(100 * 86400)
        self.act("gc", unused=86400, untagged=86400)
        for digest in (self.index_digest, self.child, self.other, Digest.of(b"shared")):
            self.assertTrue(self.is_kept(digest))
        self.act("unpin", image=["app:v1", str(self.other)])
        self.act("gc", unused=86400, untagged=86400)
        self.assertFalse(self.is_kept(self.child))


class View:
    """Knows of some pulls."""

    def __init__(self, pulls: list[dict[str, Any]]) -> None:
        self._pulls = pulls

    def pulls(self, most: int, repository: tuple[str, str] | None) -> Deferred[list[dict[str, Any]]]:
        found = [each for each in self._pulls if repository in (None, (each["upstream"], each["repository"]))]
        return succeed(found[:most])


def pull(repository: str, reference: str, digest: Digest | None, *parts: Digest, status: int = 200) -> dict[str, Any]:
    return {
        "id": f"{repository} {reference}",
        "image": f"docker.io/{repository}:{reference}",
        "upstream": HUB,
        "repository": repository,
        "reference": reference,
        "digest": None if digest is None else str(digest),
        "platform": "linux/amd64",
        "client": "10.0.0.1",
        "account": "ann",
        "agent": "docker/29",
        "started": NOW,
        "seconds": 1.0,
        "sent": 5,
        "parts": [{"reference": str(each), "digest": str(each), "status": status} for each in parts],
    }


class Reports(OrderCase):
    def report(self, image: str, *pulls: dict[str, Any]) -> dict[str, list[Any]]:
        view: Any = View(list(pulls))
        self.steward = evolve(self.steward, view=view)
        assert isinstance(self.steward, Steward)
        found: dict[str, list[Any]] = {}
        for each in self.items("report", image=image):
            found.setdefault(each["kind"], []).append(each.get("id") or each.get("image") or each["digest"])
        return found

    def test_child(self) -> None:
        """Of a child: its index, the tags that lead there, and the pulls that got it, under whatever tag."""
        found = self.report(
            str(self.child),
            pull("library/app", "v1", self.index_digest, self.child),
            pull("library/app", "v0", ELSE),
            pull("team/other", "v2", self.other),
        )
        self.assertEqual(
            found,
            {
                "digest": [str(self.child)],
                "tag": ["docker.io/library/app:v1"],
                "index": [str(self.index_digest)],
                "pull": ["library/app v1"],
            },
        )

    def test_layer(self) -> None:
        """Of a layer: every image that has it, in every repository, and who pulled one of them."""
        shared = Digest.of(b"shared")
        found = self.report(
            str(shared),
            pull("library/app", "v1", self.index_digest, self.child),
            pull("team/other", "v2", self.other),
            pull("team/other", "v3", ELSE),
        )
        self.assertEqual(found["tag"], ["docker.io/library/app:v1", "docker.io/team/other:v2"])
        self.assertEqual(sorted(found["index"]), sorted(map(str, [self.child, self.other])))
        self.assertEqual(found["pull"], ["library/app v1", "team/other v2"])

    def test_image(self) -> None:
        """Of a tag: the digest that it leads to, and its pulls."""
        found = self.report("app:v1", pull("library/app", "v1", self.index_digest))
        self.assertEqual((found["digest"], found["tag"]), ([str(self.index_digest)], ["docker.io/library/app:v1"]))
        self.assertEqual(found["pull"], ["library/app v1"])

    def test_refused(self) -> None:
        """Who got nothing of it, as it was recalled by then, is told apart from those who have it."""
        view: Any = View(
            [
                pull("library/app", "v1", self.index_digest, self.child),
                pull("library/app", str(self.child), None, self.child, status=403),
            ]
        )
        self.steward = evolve(self.steward, view=view)
        found = [each["refused"] for each in self.items("report", image=str(self.child)) if each["kind"] == "pull"]
        self.assertEqual(found, [False, True])
        end = self.end("report", image=str(self.child))
        self.assertEqual((end["pulls"], end["refused"]), (1, 1))

    def test_evicted(self) -> None:
        """Of what is not cached any more: its pulls by name, by a digest that its tag led to, and by digest alone."""
        known = self.catalog.upstream(HUB)
        known.history.changed("library/app", "v1", self.index_digest)
        known.tags.drop("library/app", "v1")
        for digest in (self.index_digest, self.child):
            finish(self.store.delete(digest))
        pulls = (
            pull("library/app", "v1", self.index_digest, self.child),
            pull("library/app", str(self.index_digest), self.index_digest),
            pull("library/app", "v0", ELSE),
            pull("team/other", "v2", self.other),
        )
        by_tag = ["library/app v1", f"library/app {self.index_digest}"]
        self.assertEqual(self.report("app:v1", *pulls), {"digest": [str(self.index_digest)], "pull": by_tag})
        self.assertEqual(self.report(str(self.child), *pulls)["pull"], by_tag[:1])
        self.assertEqual(self.report("app", *pulls)["pull"], [*by_tag, "library/app v0"])
        self.assertEqual(self.report("docker.io/library/app:v?", *pulls)["pull"], ["library/app v1", "library/app v0"])

    def test_too_many(self) -> None:
        """Where not all pulls were looked through, the report says so."""
        view: Any = View([pull("library/app", f"v{n}", ELSE) for n in range(3)])
        self.steward = evolve(self.steward, view=view)
        for most, whole in ((4, True), (3, False)):
            self.patch(report, "MOST_PULLS", most)
            self.assertEqual(self.end("report", image="app:v1")["whole"], whole)

    def test_nothing(self) -> None:
        """Of what docxy never saw nothing is found."""
        self.assertEqual(self.report(str(ELSE)), {"digest": [str(ELSE)]})
        self.assertEqual(self.report("none:v1"), {})
        self.assertTrue(os.path.isdir(self.directory))
