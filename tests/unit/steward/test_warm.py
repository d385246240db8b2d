"""Warm: what is asked of those who serve, and what is said."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from docxy.names import Digest
from docxy.pull.warming import CONTENTS, FILL, PAGE
from docxy.questions import IWorkers, Unanswered
from docxy.steward.warm import RETRIES
from docxy.storage.interfaces import State
from tests.unit.steward.case import StewardCase


@implementer(IWorkers)
@define
class Serving:
    """A process that knows one image, and fetches what it is asked for at once."""

    case: StewardCase
    layers: list[bytes] = field(factory=lambda: [b"one", b"two"])
    error: dict[str, Any] | None = None
    broken: bool = False
    """Whether what it fetches never comes."""
    asked: list[tuple[Any, ...]] = field(factory=list)

    async def ask_all(self, name: str, *facts: Any) -> dict[int, Any]:
        raise NotImplementedError

    async def ask_one(self, name: str, *facts: Any) -> Any:
        self.asked.append((name, *facts))
        if self.error is not None:
            return self.error
        if name == CONTENTS:
            blobs = [[str(Digest.of(layer)), len(layer)] for layer in self.layers]
            page = blobs[facts[3] : facts[3] + PAGE]
            name = f"docker.io/library/{facts[0]}"
            return {"name": name, "digest": "sha256:x", "manifests": 7, "total": len(blobs), "blobs": page}
        if not self.broken:
            for layer in self.layers:
                if str(Digest.of(layer)) == facts[1]:
                    self.case.keep(layer)
        return {}


class Breaking:
    """A reader of a fetch that breaks off after some bytes."""

    def __init__(self, readable: int) -> None:
        self.readable = readable
        self.state = State.FILLING

    def changed(self) -> Deferred[None]:
        self.state = State.RELEASED
        return succeed(None)

    def close(self) -> None:
        pass


class Warm(StewardCase):
    def setUp(self) -> None:
        super().setUp()
        self.serving = Serving(self)
        self.steward = evolve(self.steward, workers=self.serving)

    def warm(self, *images: str, **given: Any) -> list[dict[str, Any]]:
        return self.items("warm", image=list(images), **given)

    def test_fetched_once(self) -> None:
        """What is missing is fetched; a second run asks for nothing that is here."""
        self.keep(b"one")
        (row,) = self.warm("alpine")
        self.assertEqual(
            (row["name"], row["size"], row["fetched"], row["error"]), ("docker.io/library/alpine", 13, 3, "")
        )
        self.assertEqual(
            [each for each in self.serving.asked if each[0] == FILL], [(FILL, "alpine", str(Digest.of(b"two")), 0.1)]
        )
        self.serving.asked.clear()
        (row,) = self.warm("alpine")
        self.assertEqual(row["fetched"], 0)
        self.assertEqual([each[0] for each in self.serving.asked], [CONTENTS])

    def test_progress(self) -> None:
        """Each layer has a bar that ends full."""
        told = [line["progress"] for line in self.act("warm", image=["alpine"]) if "progress" in line]
        ended = {each["what"]: (each["done"], each["total"]) for each in told if each["unit"] == "B"}
        self.assertEqual(ended, {f"alpine {Digest.of(layer).hex[:12]}": (3, 3) for layer in (b"one", b"two")})

    def test_platforms(self) -> None:
        """Each image is fetched for each platform; the floor is what the operator says."""
        rows = self.warm("a", "b", "a", platform=["linux/amd64", "linux/arm64"], floor=0.5)
        self.assertEqual(
            [(row["name"][-1], row["platform"][6:]) for row in rows], [(a, p) for a in "ab" for p in ("amd64", "arm64")]
        )
        self.assertEqual({each[3] for each in self.serving.asked if each[0] == CONTENTS}, {0.5})

    def test_many_layers(self) -> None:
        """More layers than one answer has come in several."""
        self.serving.layers = [b"%d" % n for n in range(PAGE + 3)]
        (row,) = self.warm("alpine")
        self.assertEqual(row["error"], "")
        self.assertTrue(all(self.is_kept(Digest.of(layer)) for layer in self.serving.layers))

    def test_refused(self) -> None:
        """A pull limit that is used up is a row with its status and when to try again; the other images go on."""
        self.serving.error = {"error": "reserved for others", "status": 429, "retry_after": 60.0}
        rows = self.warm("a", "b")
        self.assertEqual(
            [(row["error"], row["status"], row["retry_after"]) for row in rows],
            [("reserved for others", 429, 60.0)] * 2,
        )
        self.assertEqual(self.end("warm", image=["a"])["failed"], 1)

    def test_never_comes(self) -> None:
        """A layer that never comes is begun again a few times, and then said."""
        self.serving.broken = True
        (row,) = self.warm("alpine")
        self.assertIn("did not come whole", row["error"])
        first = (FILL, "alpine", str(Digest.of(b"one")), 0.1)
        self.assertEqual(self.serving.asked.count(first), RETRIES)

    def broken_off(self, *readable: int) -> int:
        """How often a layer is begun when its fetches break off after so many bytes, and then it never comes."""
        self.serving.broken, self.serving.layers = True, [b"a layer of some size"]
        rest = iter(readable)

        async def opened(digest: Digest) -> Breaking | None:
            there = next(rest, None)
            return None if there is None else Breaking(there)

        self.patch(self.store, "open", opened)
        (row,) = self.warm("alpine")
        self.assertIn("did not come whole", row["error"])
        return len([each for each in self.serving.asked if each[0] == FILL])

    def test_breaks_off(self) -> None:
        """A layer whose fetch breaks off goes on as long as each attempt brings bytes; those that bring none count."""
        self.assertEqual(self.broken_off(*range(1, 3 * RETRIES + 1)), 4 * RETRIES)
        self.serving.asked.clear()
        self.assertEqual(self.broken_off(*[5] * 20), 1 + RETRIES)

    def test_nobody_serves(self) -> None:
        """Without a docxy that runs there is nobody to fetch."""

        async def nobody(name: str, *facts: Any) -> Any:
            raise Unanswered("no docxy runs: start it")

        self.patch(Serving, "ask_one", lambda self, name, *facts: nobody(name, *facts))
        (row,) = self.warm("alpine")
        self.assertEqual((row["error"], row["status"]), ("no docxy runs: start it", 0))
