"""What docxy remembers has bounds: those that no other test reaches, and the page that names all of them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

import docxy
from docxy.archive import calm
from docxy.archive.interfaces import ArchiveError
from docxy.catalog import claims
from docxy.catalog.claims import LocalClaims
from docxy.catalog.interfaces import Sighting
from docxy.catalog.memory import MemoryCatalog
from docxy.catalog.secret import Secret
from docxy.content import Manifest
from docxy.daemon.workers import observing
from docxy.daemon.workers.observing import Desk
from docxy.errors import ManifestUnknown, NameUnknown
from docxy.names import OCI_INDEX, OCI_MANIFEST, Digest, Tag
from docxy.observe import exemplars, model, state
from docxy.observe.exchange import FETCH
from docxy.observe.exemplars import Exemplars
from docxy.observe.model import ReadModel
from docxy.observe.recorder import Dropped
from docxy.observe.state import Notes
from docxy.orders.hottest import Hottest, nobody_counts
from docxy.orders.policies import Policies
from docxy.orders.store import MemoryOrders
from docxy.pull import accept, archived, cooldown, putting, remembering, search, sightings
from docxy.pull.blobs import sizes
from docxy.pull.blobs.running import MOST_COUNTED, NamedCounts
from docxy.pull.blobs.sizes import Sizes
from docxy.pull.cooldown import Cooled
from docxy.pull.gates import gates, pins
from docxy.pull.remembering import Remembering
from docxy.pull.sightings import Sightings
from docxy.settings.model import Upstream
from docxy.settings.policy import Policy
from docxy.storage import committed, remembered
from docxy.storage.filesystem import FilesystemStore
from docxy.storage.index import Index
from docxy.storage.memory import MemoryStore
from docxy.storage.paths import Tree
from docxy.web import manifests, v2
from docxy.web.manifests import Indexes
from tests.fakes.archive import MemoryArchive
from tests.unit.observe.test_journal import exchange
from tests.unit.observe.test_model import ABOUT
from tests.unit.test_security_page import found, tests_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bounds.md"
SOURCES = sorted(Path(docxy.__file__).parent.rglob("*.py"))
LAYER = "application/vnd.oci.image.layer.v1.tar"
BOUNDED = {"lru_cache", "LRUCache", "TTLCache", "TLRUCache"}


def digest(number: int) -> Digest:
    return Digest.of(str(number).encode())


def index(number: int) -> Manifest:
    body = json.dumps({"schemaVersion": 2, "manifests": [], "number": number}).encode()
    return Manifest(OCI_INDEX, Digest.of(body), len(body), body)


class Page(SynchronousTestCase):
    def test_tests_exist(self) -> None:
        """Every row names tests, and all of them are there."""
        rows = [
            line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ") and "| what |" not in line
        ]
        self.assertGreater(len(rows), 50)
        for row in rows:
            if row.startswith("| what"):
                continue
            names = re.findall(r"`(tests\.[\w.]+)`", row)
            self.assertTrue(names, row)
            for name in names:
                self.assertTrue(tests_of(found(name)), name)

    def test_bounds_are_given(self) -> None:
        """No table that forgets is made without saying how much it remembers."""
        seen = 0
        for source in SOURCES:
            for node in ast.walk(ast.parse(source.read_text("utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    bare = [each for each in node.decorator_list if isinstance(each, ast.Name) and each.id in BOUNDED]
                    self.assertEqual(bare, [], f"{source}: {node.name}")
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BOUNDED:
                    seen += 1
                    self.assertTrue(node.args or node.keywords, f"{source}:{node.lineno}")
                    unbounded = [each for each in (*node.args, *(key.value for key in node.keywords))
                                 if isinstance(each, ast.Constant) and each.value is None]  # fmt: skip
                    self.assertEqual(unbounded, [], f"{source}:{node.lineno}")
        self.assertGreater(seen, 15)


class Remembered(SynchronousTestCase):
    """Tables that clients and registries fill."""

    def test_credentials(self) -> None:
        """However many credentials clients make up."""
        secret = Secret(b"x" * 32)
        keys = [secret.credential(f"Basic {number}") for number in range(1000)]
        kept: Any = secret.credential
        self.assertEqual(kept.cache_info().currsize, 512)
        self.assertEqual((len({*keys}), secret.credential("Basic 0")), (1000, keys[0]))

    def test_headers(self) -> None:
        """However many kinds of `Accept` clients send."""
        for number in range(1000):
            accept.read([f"application/{number}"])
        self.assertEqual(accept._kept.cache_info().currsize, 512)

    def test_searched(self) -> None:
        """However many repositories clients look for, found or not."""
        self.patch(search, "MOST", 10)
        found: list[str] = []

        class Registry:
            async def manifest(self, repository: str, *_: object) -> object:
                found.append(repository)
                if repository.startswith("missing"):
                    raise ManifestUnknown(repository)
                return repository

            async def cached(self, repository: str, *_: object) -> list[Any]:
                return []

            changes = cached

            async def tags(self, repository: str, *_: object) -> object:
                raise NameUnknown(repository)

        pull: Any = Registry()
        corp = search.Member(Upstream("corp.test", "https://corp.test"), pull)
        searching = search.SearchPull("all.test", [corp], lambda upstream, repository: True, Clock())
        caller = self.successResultOf(Deferred.fromCoroutine(searching.caller("a/b", None)))
        for number in range(100):
            asking = Deferred.fromCoroutine(searching.manifest(f"a/{number}", Tag("latest"), caller))
            self.assertEqual(self.successResultOf(asking), f"a/{number}")
            asking = Deferred.fromCoroutine(searching.manifest(f"missing/{number}", Tag("latest"), caller))
            self.failureResultOf(asking, ManifestUnknown)
        self.assertEqual((len(found), len(searching._places), len(searching._looked)), (200, 10, 10))

    def test_archive(self) -> None:
        """However many blobs are wrong in the archive, or cannot be put there, and however many tags are read there."""
        for module, name in ((calm, "_WRONG"), (putting, "MOST_NOTED"), (archived, "MOST_KNOWN")):
            self.patch(module, name, 10)
        clock, nothing = Clock(), cast(Any, None)
        store = MemoryArchive(blobs={digest(number): str(number).encode() for number in range(100)})
        asked = calm.CalmArchive(store, clock)
        puts = putting.Putting(asked, nothing, nothing, 1, clock)
        history = MemoryCatalog(clock, clock.seconds).upstream("u").history
        tags = archived.ArchivedManifests("u", asked, history, 60.0, clock.seconds)
        for number in range(100):
            self.successResultOf(Deferred.fromCoroutine(asked.wrong(digest(number))))
            for attempt in range(putting.ATTEMPTS if number < 50 else 1):
                puts._failed(digest(number), ArchiveError(f"attempt {attempt}"))
            tags.told("a/b", str(number), digest(1), OCI_INDEX, 2)
        self.assertEqual((len(asked._wrong), len(puts._resting), len(puts._failures)), (10, 10, 10))
        self.assertEqual(len(tags._known), 10)
        # What was forgotten is asked for again.
        store.asked.clear()
        for number, times in ((0, 1), (99, 0)):
            self.successResultOf(Deferred.fromCoroutine(asked.open(digest(number), 0)))
            self.assertEqual(store.asked.count(f"read {digest(number)}"), times)

    def test_fetches(self) -> None:
        """However many blobs are fetched."""
        self.patch(model, "MOST_FETCHES", 10)
        read = ReadModel(ABOUT, lambda: 0.0, id, lambda: None, 0.0, True)
        read.take([exchange(0.0, kind=FETCH, reference=str(digest(number))) for number in range(100)], Dropped())
        self.assertEqual([*read._fetches], [str(digest(number)) for number in range(90, 100)])

    def test_upstreams(self) -> None:
        """However many registries clients name, so many are known, those asked last."""
        notes, resumed = Notes(lambda: 0.0), NamedCounts(MOST_COUNTED)
        for number in range(state.MOST + 10):
            notes.received(f"r{number}.example", 7)
            resumed[f"r{number}.example"] += 1
        last = f"r{state.MOST + 9}.example"
        self.assertEqual((notes.note(last).received, resumed[last]), (7, 1))
        self.assertEqual((notes.note("r0.example").received, resumed["r0.example"]), (0, 0))
        self.assertEqual(len(resumed), MOST_COUNTED)

    def test_claims(self) -> None:
        """However many clients want one tag, so many wait for who asks; the next one asks itself."""
        self.patch(claims, "MAX_WAITING", 10)
        clock = Clock()
        local = LocalClaims(clock)

        def claim() -> Deferred[bool]:
            return Deferred.fromCoroutine(local.claim("a", 30.0))

        self.assertTrue(self.successResultOf(claim()))
        waiting = [claim() for _ in range(10)]
        self.assertFalse(self.successResultOf(claim()))
        local.release("a")
        self.assertEqual([self.successResultOf(each) for each in waiting], [False] * 10)
        self.assertEqual((clock.getDelayedCalls(), local._claimed, local._waiting), ([], {}, 0))

    def test_sizes(self) -> None:
        """However many manifests are pulled, and however much they list."""
        self.patch(sizes, "_MANIFESTS", 10)
        self.patch(sizes, "_SIZES", 20)
        known = Sizes()
        for number in range(100):
            layers = [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": str(digest(1000 * number + n)),
                    "size": n,
                }
                for n in range(5)
            ]
            body = json.dumps({"schemaVersion": 2, "layers": layers, "number": number}).encode()
            known.learn("a/b", Manifest(OCI_MANIFEST, Digest.of(body), len(body), body))
        self.assertEqual((len(known._learned), len(known._sizes)), (10, 20))
        self.assertEqual(known.get("a/b", digest(99_004)), 4)

    def test_indexes(self) -> None:
        """However many indexes pass."""
        self.patch(manifests, "_INDEXES", 10)
        indexes = Indexes()
        for number in range(100):
            indexes.learn(index(number))
        self.assertEqual(len(indexes._seen), 10)

    def test_locations(self) -> None:
        """However many URIs clients make up; a long one is not remembered at all."""
        nothing: Any = None
        api = v2.V2(nothing, nothing, {}, nothing, 1.0, False, nothing)
        self.assertEqual(api._known.cache_info().maxsize, 4096)
        self.assertLess(v2._LONG * 4096, 4 << 20)

    def test_stored_sizes(self) -> None:
        """However many blobs are asked for."""
        self.patch(committed, "MOST", 10)
        nothing: Any = None
        store = FilesystemStore(self.mktemp(), 1, Clock(), nothing)
        for number in range(100):
            store._sizes._known[digest(number)] = number
        self.assertEqual(len(store._sizes._known), 10)

    def test_pinned(self) -> None:
        """However many manifests are pinned."""
        self.patch(pins, "MOST_MANIFESTS", 10)
        nothing: Any = None
        held = pins.Pins(nothing, nothing, nothing, nothing, nothing)
        for number in range(100):
            held._names[str(digest(number))] = frozenset(), frozenset()
        self.assertEqual(len(held._names), 10)

    def test_others(self) -> None:
        """However many blobs are looked through for what other algorithms call them."""
        self.patch(gates, "MOST_READ", 10)
        nothing: Any = None
        hottest = Hottest(nobody_counts)
        asked = gates.Gates(MemoryOrders(), Policies(Policy()), hottest, (), nothing, nothing, None, Clock())
        for number in range(100):
            asked.refuse_others(digest(number), frozenset())
            body = json.dumps({"number": number}).encode()
            self.successResultOf(Deferred.fromCoroutine(asked._named(digest(number), body)))
        self.assertEqual((len(asked._others), len(asked._names)), (10, 10))
        with capturedLogs():
            for number in range(2000):
                asked._refusal(str(digest(number)), "a test")
        self.assertEqual(len(asked._told), 1000)

    def test_platforms(self) -> None:
        """However many manifests indexes name."""
        self.patch(model, "MOST_PLATFORMS", 10)
        read = ReadModel(ABOUT, lambda: 0.0, id, lambda: None, 0.0, True)
        index = exchange(0.0, platforms={str(digest(number)): "linux/amd64" for number in range(100)})
        read.take([index], Dropped())
        self.assertEqual(len(read._platforms), 10)

    def test_exemplars(self) -> None:
        """However many kinds of answers there are."""
        self.patch(exemplars, "_MOST", 10)
        kept = Exemplars()
        for number in range(100):
            kept.note(exchange(0.0, kind=f"kind{number}", status=100 + number, request_id=f"{number:016x}"))
        self.assertEqual((len(kept._kept), len(kept._labels)), (10, 10))

    def test_listed_indexes(self) -> None:
        """However many indexes an upstream has, so many are remembered as written down, with and without a cooldown."""
        self.patch(sightings, "_INDEXES", 10)
        self.patch(cooldown, "_INDEXES", 10)
        clock = Clock()
        history = MemoryCatalog(clock, clock.seconds).upstream("u").history
        noted = Sightings("u", history, lambda event: None, clock.seconds)
        for number in range(100):
            noted.index("a/b", index(number), Sighting(0.0))
        self.assertEqual(len(noted._listed), 10)
        nothing: Any = None
        cooled = Cooled("u", nothing, history, noted, nothing, nothing, clock.seconds)
        for number in range(100):
            cooled._shared["a/b", digest(number), False] = True
        self.assertEqual(len(cooled._shared), 10)

    def test_remembering(self) -> None:
        """However many manifests clients get."""
        self.patch(remembering, "_KNOWN", 10)
        clock = Clock()
        remembers = Remembering(MemoryStore(1 << 20, clock), lambda: 1.0, clock.seconds)
        for number in range(100):
            remembers.served(index(number), True)
        self.assertEqual(len(remembers._told), 10)

    def test_history_of_tags(self) -> None:
        """However much tags led to, and however many parts manifests name; what ends first goes first."""
        self.patch(remembered, "MOST", 10)
        tree = Tree(self.mktemp())
        tree.create()
        index = Index(tree)
        index.open()
        self.addCleanup(index.close)
        kept = remembered.Remembered(index, 1 << 20, lambda: 0.0)
        for number in range(20):
            kept.put(digest(number), 100.0 + number, [])
        kept.add(digest(19), [digest(1000 + number) for number in range(20)])
        with index.reading() as db:
            self.assertEqual(db.execute("SELECT count(*), min(until) FROM remembered").fetchone(), (10, 119.0))

    def test_answers(self) -> None:
        """However many answers workers begin to read and leave: the oldest are forgotten."""
        self.patch(observing, "MOST_ANSWERS", 3)
        self.patch(observing, "PIECE", 2)

        class View:
            async def snapshot(self) -> dict[str, Any]:
                return {"a": "long"}

        nothing: Any = None
        view: Any = View()
        desk = Desk(nothing, view)
        for _ in range(10):
            self.successResultOf(desk.read(json.dumps({"what": "snapshot"}), 0, 0))
        self.assertEqual([*desk._answers], [8, 9, 10])
        self.failureResultOf(desk.read("{}", 1, 2), KeyError)
