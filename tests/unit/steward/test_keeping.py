"""Keeping: what is refreshed when, what is remembered, and what is said of what vanished."""

from __future__ import annotations

import time
from typing import Any

from attrs import evolve, frozen
from zope.interface import implementer

from docxy.names import Digest
from docxy.observe.view import IView
from docxy.orders.hottest import MOST
from docxy.pull.warming import CONTENTS, FILL, TAGS
from docxy.questions import IWorkers, Unanswered
from docxy.settings.image_names import ImageName
from docxy.settings.model import JournalMode
from docxy.settings.policy import Keep, Quiet
from docxy.steward import keeping
from docxy.steward.hottest import COUNT, hottest
from docxy.steward.keeping import FLOOR, RETRY, Keeper, remembered
from docxy.steward.lines import Failed
from tests.unit.access.harness import logged
from tests.unit.steward.case import StewardCase

PYTHON = ImageName("docker.io", "library/python", "3.*")
ALPINE = ImageName("docker.io", "library/alpine", "3.20")
NAME, FULL = "docker.io/library/python", "docker.io/library/alpine:3.20"


@implementer(IWorkers)
class Registry:
    """A process that serves, and a registry with tags; each image is one layer, its name."""

    def __init__(self, case: StewardCase) -> None:
        self.case = case
        self.tags = {NAME: ["3.9", "3.10"], "docker.io/library/alpine": ["3.20"]}
        self.down = self.nobody = False
        self.asked: list[tuple[Any, ...]] = []

    async def ask_all(self, name: str, *facts: Any) -> dict[int, Any]:
        return {}

    async def ask_one(self, name: str, *facts: Any) -> Any:
        self.asked.append((name, *facts))
        if self.nobody:
            raise Unanswered("no worker of docxy is ready")
        if self.down:
            return {"error": "the registry does not answer", "status": 502, "retry_after": None}
        if name == TAGS:
            return {"tags": list(self.tags[facts[0]]), "more": 0}
        repository, _, tag = facts[0].rpartition(":")
        layer = facts[0].encode()
        if name == FILL:
            self.case.keep(layer)
            return {}
        if tag not in self.tags.get(repository, ()):
            return {"error": f"{facts[0]} is not there", "status": 404, "retry_after": None}
        blobs = [[str(Digest.of(layer)), len(layer)]]
        return {"name": facts[0], "digest": str(Digest.of(layer)), "manifests": 0, "total": 1, "blobs": blobs}

    def warmed(self) -> list[str]:
        """The images that were looked at since the last time."""
        found = [each[1] for each in self.asked if each[0] == CONTENTS]
        self.asked.clear()
        return found


@implementer(IView)
class Pulled:
    """What was pulled of late."""

    def __init__(self, *references: str) -> None:
        self._pulls = [
            {"upstream": "docker.io", "repository": "library/alpine", "reference": each, "digest": "sha256:x"}
            for each in references
        ]

    async def snapshot(self) -> dict[str, Any]:
        return {}

    async def pulls(self, most: int, repository: Any) -> list[dict[str, Any]]:
        return self._pulls

    def subscribe(self, changed: Any) -> Any:
        return lambda: None


@frozen
class Journal:
    """As much of a configuration as is asked for."""

    journal: JournalMode


class Keeping(StewardCase):
    def setUp(self) -> None:
        super().setUp()
        self.registry = Registry(self)
        self.steward = evolve(self.steward, workers=self.registry)
        self.keeps = [Keep((PYTHON, ALPINE), every=3600.0)]
        self.gone: list[tuple[str, str]] = []
        self.counts: list[tuple[int, int]] = []
        self.keeper = self.make()

    def make(self) -> Keeper:
        return Keeper(
            lambda: self.keeps,
            lambda: self.steward,
            lambda *told: self.gone.append(told),
            lambda *counts: self.counts.append(counts),
            local=time.gmtime,
        )

    def look(self) -> list[str]:
        """One look; the images that it looked at."""
        self.successResultOf(self.keeper.look())
        self.assertEqual(self.flushLoggedErrors(), [])
        return self.registry.warmed()

    def test_kept(self) -> None:
        """A glob's tags and a named one are fetched, with a floor; not again before their time, then again."""
        self.assertEqual(self.look(), [f"{NAME}:3.9", f"{NAME}:3.10", FULL])
        self.assertTrue(self.is_kept(Digest.of(FULL.encode())))
        self.assertEqual(self.look(), [])
        self.clock.advance(3599)
        self.assertEqual(self.look(), [])
        self.clock.advance(1)
        self.registry.tags[NAME].append("3.11")
        self.assertIn(f"{NAME}:3.11", self.look())

    def test_floor(self) -> None:
        """What is left of a pull limit below the floor is left for those who pull."""
        self.successResultOf(self.keeper.look())
        self.assertEqual({each[3] for each in self.registry.asked if each[0] == CONTENTS}, {FLOOR})

    def test_restart(self) -> None:
        """What was kept and when outlives the process."""
        self.look()
        self.keeper = self.make()
        self.assertEqual(self.look(), [])
        (rule,) = remembered(self.steward).values()
        self.assertEqual(rule.images[FULL], str(Digest.of(FULL.encode())))
        self.clock.advance(-7200)
        self.assertEqual(len(self.look()), 3)

    def test_quiet(self) -> None:
        """A refresh begins in the quiet hours only."""
        here = time.gmtime(self.clock.seconds())
        minute = here.tm_hour * 60 + here.tm_min
        self.keeps = [Keep((ALPINE,), quiet=Quiet((minute + 60) % 1440, (minute + 120) % 1440))]
        self.assertEqual(self.look(), [])
        self.clock.advance(3600)
        self.assertEqual(self.look(), [FULL])

    def test_vanished(self) -> None:
        """What vanished is said once, whether a glob covered it or it was named, and is remembered as kept."""
        self.look()
        self.registry.tags = {NAME: ["3.10"], "docker.io/library/alpine": []}
        for _ in range(2):
            self.clock.advance(3600)
            self.look()
        digests = {name: str(Digest.of(name.encode())) for name in (f"{NAME}:3.9", FULL)}
        self.assertEqual(sorted(self.gone), sorted(digests.items()))
        (rule,) = remembered(self.steward).values()
        self.assertEqual(set(rule.gone), set(digests))
        self.assertLessEqual(set(digests), set(rule.images))
        self.registry.tags[NAME].append("3.9")
        self.clock.advance(3600)
        self.look()
        (rule,) = remembered(self.steward).values()
        self.assertEqual(set(rule.gone), {FULL})
        self.assertEqual([self.counts[0], self.counts[-2], self.counts[-1]], [(3, 0), (3, 2), (3, 1)])

    def test_never_there(self) -> None:
        """What was never there did not vanish."""
        self.registry.tags = {NAME: [], "docker.io/library/alpine": []}
        self.look()
        self.assertEqual(self.gone, [])

    def test_down(self) -> None:
        """While nobody can say which tags there are, nothing counts as gone, and all is remembered."""
        self.look()
        self.registry.down = True
        self.clock.advance(3600)
        self.look()
        self.assertEqual(self.gone, [])
        (rule,) = remembered(self.steward).values()
        self.assertEqual(len(rule.images), 3)
        self.registry.down = False
        self.clock.advance(RETRY - 1)
        self.assertEqual(self.look(), [])
        self.clock.advance(1)
        self.assertEqual(len(self.look()), 3)

    def test_nobody_serves(self) -> None:
        """While no process serves nothing is done, and the next look does it."""
        self.registry.nobody = True
        self.look()
        self.assertEqual(remembered(self.steward), {})
        self.registry.nobody = False
        self.assertEqual(len(self.look()), 3)
        self.clock.advance(3600)
        self.registry.nobody = True
        self.look()
        self.registry.nobody = False
        self.assertEqual(len(self.look()), 3)

    def test_hot(self) -> None:
        """The most pulled tags are kept; one that is not among them any more is dropped without a word."""
        self.keeps = [Keep(hot=1)]
        self.registry.tags["docker.io/library/alpine"] += ["3.19"]
        self.steward = evolve(self.steward, view=Pulled("3.20", "3.19", "3.20", "sha256:x"))
        self.assertEqual(self.look(), [FULL])
        self.steward = evolve(self.steward, view=Pulled("3.19"))
        self.clock.advance(6 * 3600)
        self.assertEqual(self.look(), ["docker.io/library/alpine:3.19"])
        self.assertEqual(self.gone, [])

    def test_hot_is_counted(self) -> None:
        """What is pulled most is noted again and again, in the loud hours too; no pulls leave what was noted."""
        here = time.gmtime(self.clock.seconds())
        minute = here.tm_hour * 60 + here.tm_min
        self.keeps = [Keep(hot=1, quiet=Quiet((minute + 60) % 1440, (minute + 120) % 1440))]
        self.steward = evolve(self.steward, view=Pulled("3.20", "3.19", "3.20", "sha256:x"))
        self.assertEqual(self.look(), [])
        self.assertEqual(hottest(self.steward, 9), [FULL, "docker.io/library/alpine:3.19"])
        self.steward = evolve(self.steward, view=Pulled("3.18"))
        self.clock.advance(COUNT - 1)
        self.look()
        self.assertEqual(hottest(self.steward, 1), [FULL])
        self.clock.advance(1)
        self.look()
        self.assertEqual(hottest(self.steward, 9), ["docker.io/library/alpine:3.18"])
        self.steward = evolve(self.steward, view=Pulled())
        self.clock.advance(COUNT)
        self.look()
        self.assertEqual(hottest(self.steward, 9), ["docker.io/library/alpine:3.18"])

    def test_hot_is_bounded(self) -> None:
        """However many tags are pulled."""
        self.keeps = [Keep(hot=1)]
        self.steward = evolve(self.steward, view=Pulled(*(f"t{number}" for number in range(MOST + 9))))
        self.look()
        self.assertEqual(len(hottest(self.steward, 9999)), MOST)

    def test_images_are_bounded(self) -> None:
        """A glob is asked for so many tags, and so many images of all rules are remembered."""
        self.patch(keeping, "MOST_TAGS", 7)
        self.patch(keeping, "MOST_KEPT", 3)
        self.registry.tags[NAME] = [f"3.{number}" for number in range(7)]
        self.successResultOf(self.keeper.look())
        self.assertEqual([each[1:] for each in self.registry.asked if each[0] == TAGS], [(NAME, "3.*", 7)])
        self.assertEqual(len(self.registry.warmed()), 8)
        self.assertEqual([len(rule.images) for rule in remembered(self.steward).values()], [3])

    def test_hot_without_a_journal(self) -> None:
        """The log says once why nothing is kept."""
        self.keeps = [Keep(hot=1)]
        self.steward = evolve(self.steward, view=Pulled(), config=Journal(JournalMode.OFF))
        with logged() as lines:
            self.look()
            self.clock.advance(COUNT)
            self.look()
        self.assertEqual(len([line for line in lines if "--journal off" in line]), 1)

    def test_rules_change(self) -> None:
        """A rule that is not there any more is forgotten; another one begins at once."""
        self.look()
        self.keeps = [Keep((ALPINE,))]
        self.assertEqual(self.look(), [FULL])
        self.assertEqual(list(remembered(self.steward)), [str(self.keeps[0])])
        self.keeps = []
        self.assertEqual(self.look(), [])

    def test_used(self) -> None:
        """What is kept counts as used, with all that it consists of."""
        touched: list[Digest] = []
        image = self.image("library/alpine", ["3.20"], [b"one", b"two"])

        async def contents(name: str, *facts: Any) -> Any:
            return {"name": FULL, "digest": str(image), "manifests": 0, "total": 0, "blobs": []}

        self.patch(self.registry, "ask_one", contents)
        self.patch(self.store, "touch", touched.append)
        self.keeps = [Keep((ALPINE,))]
        self.look()
        self.assertLessEqual({image, Digest.of(b"one"), Digest.of(b"two"), Digest.of(b"{}")}, set(touched))

    def test_no_cache(self) -> None:
        """Without a cache there is nothing to keep; the log says so."""

        def none() -> Any:
            raise Failed("no cache")

        self.keeper = Keeper(lambda: self.keeps, none, lambda *told: None, lambda *counts: None)
        self.assertEqual(self.look(), [])

    def test_spoilt(self) -> None:
        """A fact that cannot be read is none."""
        self.steward.catalog.facts.keep("kept images", '{"x": 1}')
        self.assertEqual(remembered(self.steward), {})
        self.assertEqual(len(self.look()), 3)
