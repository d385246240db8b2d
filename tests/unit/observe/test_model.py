"""The read model: what every view of docxy shows, and who may see what of it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe import model
from docxy.observe.exchange import CHARGES, FETCH, Exchange
from docxy.observe.journal import Pull, from_json
from docxy.observe.model import About, ReadModel
from docxy.observe.one_process import OneProcess
from docxy.observe.recorder import BURST, EVERY, HITS, Dropped, Recorder
from docxy.observe.view import LocalView, News
from docxy.observe.visible import repositories, visible
from tests.unit.observe.test_journal import LAYER, exchange, layer

ABOUT = About("1.0", "https://mirror.example", 0.0, "none", ["docker.io", "ghcr.io"], "/cache", 2)
DIGEST = "sha256:" + "c" * 64


def upstream(**changed: Any) -> dict[str, Any]:
    """What a process knows of one."""
    usual = {"state": "ok", "asked": 90.0, "latency": 0.1, "error": None, "until": None}
    return {**usual, "limit": None, "remaining": None, "received": 0, **changed}


def fill(**changed: Any) -> dict[str, Any]:
    usual = {"digest": DIGEST, "upstream": "docker.io", "repository": "library/alpine", "size": 100, "offset": 10}
    return {**usual, "rate": 5, "readers": 1, "connections": 1, "started": 90.0, **changed}


class ModelTests(SynchronousTestCase):
    """One model of all processes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.finished: list[Pull] = []
        self.changes = 0
        self.model = ReadModel(ABOUT, self.clock.seconds, self.finished.append, self.changed, hold=0.0, names=True)

    def changed(self) -> None:
        self.changes += 1

    def take(self, *exchanges: Exchange) -> None:
        self.model.take(list(exchanges), Dropped())

    def test_dropped(self) -> None:
        """What a process did not tell of is counted, as what the cache saved."""
        self.model.take([], Dropped(9, 7, 700))
        share = self.model.traffic.hour()
        self.assertEqual((share.answers, share.hits, share.sent, share.saved), (7, 7, 700, 700))
        self.assertEqual(self.model.snapshot()["docxy"]["dropped"], 9)

    def test_empty(self) -> None:
        """Before anything happened, a snapshot is JSON and says so."""
        told = json.loads(json.dumps(self.model.snapshot()))
        self.assertEqual(told["version"], model.VERSION)
        self.assertEqual([each["state"] for each in told["upstreams"]], ["unasked", "unasked"])
        self.assertEqual((told["pulls"], told["fills"], told["cache"]), ([], [], None))

    def test_archive(self) -> None:
        """What the processes tell of the archive is one thing, and whom it is not for is told no names."""
        state = {"name": "s3://b/p", "failure": None, "failed": 1, "put": 5, "read": 7, "waiting": None}
        self.assertIsNone(self.model.snapshot()["archive"])
        self.model.sampled(0, {"archive": {**state, "waiting": 3}})
        self.model.sampled(1, {"archive": {**state, "failure": "s3://b/p: 503 at 10.0.0.9"}})
        told = self.model.snapshot()
        failure = "s3://b/p: 503 at 10.0.0.9"
        self.assertEqual(
            told["archive"],
            {"name": "s3://b/p", "failure": failure, "failed": 2, "put": 10, "read": 14, "waiting": 3},
        )
        shown = visible(told, [], clients=False)["archive"]
        self.assertEqual((shown["name"], shown["failure"], shown["waiting"]), (None, "docxy's log says why", 3))

    def test_pull(self) -> None:
        """A pull is there with its verdict, and comes back from JSON as it was."""
        self.take(exchange(99.0), layer(99.5))
        (told,) = json.loads(json.dumps(self.model.snapshot()))["pulls"]
        self.assertEqual(told["verdict"]["cause"], "cache")
        (pull,) = self.model.journal.pulls()
        self.assertEqual(from_json(told).parts, pull.parts)
        self.assertEqual(from_json(told).image, "docker.io/library/alpine:latest")

    def test_fills_are_one(self) -> None:
        """A fill is told of once, with the clients that follow it in all processes; who follows no fill is not told."""
        self.model.sampled(1, {"fills": [fill(readers=40)], "following": {}, "upstreams": {}})
        self.model.sampled(2, {"fills": [], "following": {DIGEST: 35, LAYER: 7}, "upstreams": {}})
        self.model.sampled(3, {"fills": [], "following": {DIGEST: 25}, "upstreams": {}})
        (told,) = self.model.snapshot()["fills"]
        self.assertEqual((told["digest"], told["readers"]), (DIGEST, 100))

    def test_passed_on(self) -> None:
        """While one process goes on with what another one gave up, the newer one's word counts."""
        self.model.sampled(1, {"fills": [fill(offset=50, started=95.0)], "upstreams": {}})
        self.model.sampled(2, {"fills": [fill(offset=40, started=90.0)], "upstreams": {}})
        (told,) = self.model.snapshot()["fills"]
        self.assertEqual(told["offset"], 50)

    def test_worker_ends(self) -> None:
        """What a process was at is forgotten with it."""
        self.model.sampled(1, {"fills": [fill()], "upstreams": {}})
        self.model.sampled(2, {"fills": [], "upstreams": {}})
        self.assertEqual(self.model.snapshot()["docxy"]["serving"], 2)
        self.model.forget(1)
        self.assertEqual(self.model.snapshot()["fills"], [])
        self.assertEqual(self.model.snapshot()["docxy"]["serving"], 1)

    def test_cache_and_certificate(self) -> None:
        """A cache that one process cannot use is told of; of certificates, the one that ends first."""
        self.model.sampled(1, {"cache_failure": "Permission denied", "certificate_expires": 700.0})
        self.model.sampled(2, {"certificate_expires": 500.0})
        told = self.model.snapshot()["docxy"]
        self.assertEqual((told["cache_failure"], told["certificate_expires"]), ("Permission denied", 500.0))
        shown = visible(self.model.snapshot(), [], clients=False)["docxy"]
        self.assertEqual(shown["cache_failure"], "docxy's log says why")

    def test_newest_upstream(self) -> None:
        """Of an upstream the newest answer counts; a rest that is over is none."""
        self.model.sampled(1, {"fills": [], "upstreams": {"docker.io": upstream(asked=95.0)}})
        resting = upstream(asked=96.0, state="backing-off", error="connection refused", until=130.0)
        self.model.sampled(2, {"fills": [], "upstreams": {"docker.io": resting}})
        self.assertEqual(self.model.snapshot()["upstreams"][0]["state"], "backing-off")
        self.clock.advance(31)
        self.assertEqual(self.model.snapshot()["upstreams"][0]["state"], "ok")

    def test_received(self) -> None:
        """Bytes from upstreams are counted once, as they grow; a process that began anew counts from its start."""
        for received in (10, 30, 30, 5):
            self.model.sampled(1, {"fills": [], "upstreams": {"docker.io": upstream(received=received)}})
        self.model.forget(1)
        self.model.sampled(1, {"fills": [], "upstreams": {"docker.io": upstream(received=7)}})
        self.assertEqual(self.model.traffic.hour().received, 37)

    def test_quota(self) -> None:
        """A charged request shows who spent it, and when the rest ends."""
        self.model.sampled(1, {"fills": [], "upstreams": {"docker.io": upstream(limit=100, remaining=10)}})
        self.take(exchange(99.0, charged={"ci": 1}, group="devs"), exchange(99.5, client="10.0.0.9"))
        told = self.model.snapshot()["upstreams"][0]
        self.assertEqual(told["spent"], 1)
        self.assertEqual(
            told["spenders"], [{"account": "ci", "repository": "library/alpine", "group": "devs", "count": 1}]
        )
        self.assertEqual(told["ends_at"], 100 + 600)

    def test_errors(self) -> None:
        """Failures are told with what they said, the newest first; a 404 is none."""
        self.take(
            exchange(98.0, status=502, cache="", error="docker.io: connection refused"),
            exchange(99.0, status=404, cache=""),
            layer(99.5, whole=False),
        )
        told = self.model.snapshot()["errors"]
        self.assertEqual([each["words"] for each in told], ["broke off", "docker.io: connection refused"])

    def test_order(self) -> None:
        """What two processes tell in the wrong order becomes the pulls that there were."""
        read = ReadModel(ABOUT, self.clock.seconds, self.finished.append, self.changed, hold=1.0, names=True)
        second = [exchange(99.5, seconds=0.1), layer(99.7, seconds=0.1)]
        first = [exchange(99.0, seconds=0.1), layer(99.3, seconds=0.1)]
        for batch in (second, first):
            read.take(batch, Dropped())
        self.assertEqual(read.snapshot()["pulls"], [])
        self.clock.advance(1.0)
        read.sampled(1, {"fills": [], "upstreams": {}})
        self.assertEqual([pull["answers"] for pull in read.snapshot()["pulls"]], [2, 2])

    def test_later(self) -> None:
        """What a process tells a moment later, of what began before, does not come after what is due already."""
        read = ReadModel(ABOUT, self.clock.seconds, self.finished.append, self.changed, hold=1.0, names=True)
        read.take([layer(99.7, seconds=0.1)], Dropped())
        self.clock.advance(0.5)
        read.take([exchange(99.5, seconds=0.1)], Dropped())
        self.clock.advance(0.5)
        read.sampled(1, {"fills": [], "upstreams": {}})
        (pull,) = read.snapshot()["pulls"]
        self.assertEqual([part["kind"] for part in pull["parts"]], ["manifests", "blobs"])

    def fetched(self, **changed: Any) -> Exchange:
        """A fetch that ended in another process."""
        usual = {"seconds": 5.0, "kind": FETCH, "reference": LAYER, "digest": LAYER, "cache": "miss", "client": None}
        told = {"connections": 3, "resumed": 1, "waits": {"connection": 4.0}, "request_id": "first"}
        return exchange(**{"at": 99.0, **usual, **told, "sent": 0, **changed})

    def test_joined(self) -> None:
        """Who joined a fetch of another process waited for what that one did; the first request is named."""
        joining = layer(99.1, seconds=4.5, cache="collapsed", waits={"headers": 4.1, "upstream": 0.3})
        self.take(self.fetched(), joining)
        (pull,) = self.model.snapshot()["pulls"]
        (part,) = pull["parts"]
        self.assertEqual((part["joined"], part["connections"], part["resumed"]), ("first", 3, 1))
        self.assertEqual(part["waits"], {"headers": 0.1, "upstream": 0.3, "connection": 4.0})
        words = "waited 4.0 s for a free connection to docker.io; resumed once; joined a fetch of another client"
        self.assertEqual(pull["verdict"]["words"], words)
        self.assertEqual(self.model.snapshot()["traffic"]["hour"]["answers"], 1)

    def test_not_joined(self) -> None:
        """A fetch of another repository is not named; one that was over before has no part in it."""
        self.take(self.fetched(repository="secret/app"), layer(99.1, cache="collapsed"))
        self.take(layer(99.5, cache="collapsed", client="10.0.0.9"))
        later, earlier = self.model.snapshot()["pulls"]
        self.assertEqual((earlier["parts"][0]["connections"], earlier["parts"][0].get("joined")), (3, None))
        self.assertNotIn("connections", later["parts"][0])

    def test_joined_limited(self) -> None:
        """What docxy's own limit took of a fetch is not blamed on the registry by those who joined it elsewhere."""
        joining = layer(99.1, seconds=4.5, cache="collapsed", waits={"upstream": 4.1}, size=9, sent=9)
        self.take(self.fetched(waits={"connection": 0.0, "rate": 4.0}, resumed=0, connections=1), joining)
        (pull,) = self.model.snapshot()["pulls"]
        self.assertEqual(pull["parts"][0]["waits"], {"upstream": 0.1, "rate": 4.0})
        self.assertEqual(pull["verdict"]["cause"], "rate")

    def test_joined_while_it_runs(self) -> None:
        """A fetch that has begun is joined before it ends, and is not counted as an answer."""
        self.take(self.fetched(at=95.0, seconds=0.0, whole=False, resumed=0), layer(99.1, cache="collapsed"))
        (pull,) = self.model.snapshot()["pulls"]
        self.assertEqual(pull["parts"][0]["joined"], "first")
        self.assertTrue(pull["verdict"]["words"].endswith("; joined a fetch of another client"))

    def test_fetches_are_bounded(self) -> None:
        """Of many fetches the last ones are remembered."""
        for n in range(model.MOST_FETCHES + 10):
            self.take(self.fetched(reference=f"sha256:{n:064x}"))
        self.assertEqual(len(self.model._fetches), model.MOST_FETCHES)

    def test_late_charge(self) -> None:
        """What a request cost after its client had gone is in the ledger, and is no pull."""
        self.take(exchange(99.0, kind=CHARGES, charged={"ci": 1}))
        told = self.model.snapshot()
        self.assertEqual((told["upstreams"][0]["spent"], told["pulls"], told["repositories"]), (1, [], []))

    def test_bounds(self) -> None:
        """However many repositories and failures there are, a bounded number is kept."""
        self.patch(model, "MOST_REPOSITORIES", 20)
        for n in range(500):
            self.take(exchange(99.0, repository=f"r/{n}", status=502, cache=""))
        self.assertEqual(len(self.model._repositories), 20)
        self.assertEqual(len(self.model._errors), model.MOST_ERRORS)
        self.assertEqual(len(self.model.snapshot()["pulls"]), model.SHOWN_PULLS)

    def test_changes(self) -> None:
        """A state that is the same is no news."""
        for _ in range(3):
            self.model.sampled(1, {"fills": [fill()], "upstreams": {}})
        self.assertEqual(self.changes, 1)

    def test_platforms(self) -> None:
        """What an index said of its manifests names their pulls, whoever sent the index; it is told to nobody."""
        child = "sha256:" + "c" * 64
        self.take(exchange(1.0, platforms={child: "linux/amd64"}))
        self.take(exchange(2.0, reference=child, digest=child, client="10.0.0.9"))
        newest, oldest = self.model.snapshot()["pulls"]
        self.assertEqual((newest["platform"], oldest["platform"]), ("linux/amd64", None))
        self.assertNotIn("platforms", json.dumps(self.model.snapshot()))

    def test_nameless(self) -> None:
        """Where clients are anonymous nothing in the model says who they are; docxy's own accounts stay."""
        read = ReadModel(ABOUT, self.clock.seconds, self.finished.append, self.changed, hold=0.0, names=False)
        one = exchange(1.0, account="alice", agent="docker/29", group="devs", charged={"token 1": 1, "ci": 2})
        OneProcess(read, 1).take([one], Dropped())
        told = json.dumps(read.snapshot())
        self.assertNotRegex(told, "10[.]0[.]0|alice|docker/29|devs|token")
        self.assertEqual({who["account"] for who in read.snapshot()["upstreams"][0]["spenders"]}, {"", "ci"})

    def test_visible(self) -> None:
        """A viewer sees rows of repositories that he may pull, whole; of others nothing, not even in figures of who."""
        self.take(
            exchange(99.0, account="alice", charged={"ci": 1}, group="devs"),
            exchange(99.0, repository="secret/app", status=502, cache="", charged={"ci": 1}),
        )
        self.model.sampled(1, {"fills": [fill(), fill(digest="x", repository="secret/app")], "upstreams": {}})
        whole = self.model.snapshot()
        self.assertEqual(repositories(whole), {("docker.io", "library/alpine"), ("docker.io", "secret/app")})
        allowed = [("docker.io", "library/alpine")]
        for clients in (False, True):
            text = json.dumps(visible(whole, allowed, clients))
            self.assertNotIn("secret", text)
            self.assertIn("library/alpine", text)
            self.assertEqual("10.0.0.1" in text, clients)
            self.assertEqual("alice" in text, clients)
            self.assertEqual("devs" in text, clients)
            self.assertNotIn("/cache", text)

    def test_unnamed(self) -> None:
        """A registry that only clients name is there while a process has it; seen by who may pull from it."""
        ready = {"docker.io": upstream(), "quay.example": upstream(state="backing-off", until=500.0, error="no")}
        self.model.sampled(1, {"fills": [], "upstreams": ready})
        self.take(exchange(99.0), exchange(99.0, upstream="quay.example", repository="team/app"))
        whole = self.model.snapshot()
        self.assertEqual([(each["name"], each["named"]) for each in whole["upstreams"]][-1], ("quay.example", False))
        for allowed, seen in (([("docker.io", "library/alpine")], False), ([("quay.example", "team/app")], True)):
            self.assertEqual("quay.example" in json.dumps(visible(whole, allowed, False)), seen)
        self.model.sampled(1, {"fills": [], "upstreams": {"docker.io": upstream()}})
        self.assertTrue(all(each["named"] for each in self.model.snapshot()["upstreams"]))

    def test_own_certificate(self) -> None:
        """How docxy gets its certificate is shown; why that failed, which may name paths, to the operator alone."""
        self.assertIsNone(self.model.snapshot()["docxy"]["certificate"])
        told = {"source": "https://ca.example", "names": ["mirror.example"], "error": "cannot write to /var/lib"}
        told |= {"failures": 1, "renews": None, "next": 5.0}
        self.model.sampled(1, {"certificate": told})
        self.model.sampled(2, {})
        whole = self.model.snapshot()
        self.assertEqual(whole["docxy"]["certificate"], told)
        shown = visible(whole, [], False)["docxy"]["certificate"]
        self.assertEqual(shown, {**told, "error": "docxy's log says why"})


class RecorderTests(SynchronousTestCase):
    """From a request to the model."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[int, int]] = []
        self.dropped: list[Dropped] = []
        self.recorder = Recorder(self.clock, self.send)

    def send(self, batch: Any, dropped: Dropped) -> None:
        self.sent.append((len(batch), dropped.exchanges))
        self.dropped.append(dropped)

    def test_batches(self) -> None:
        """What comes within a moment goes out at once."""
        for n in range(3):
            self.recorder.record(exchange(float(n)))
        self.assertEqual(self.sent, [])
        self.clock.advance(EVERY)
        self.assertEqual(self.sent, [(3, 0)])
        self.clock.advance(10)
        self.assertEqual(self.sent, [(3, 0)])

    def test_bound(self) -> None:
        """A flood does not grow the batch; what is dropped is counted."""
        from docxy.observe import recorder

        self.patch(recorder, "MOST", 5)
        for n in range(9):
            self.recorder.record(exchange(float(n)))
        self.recorder.flush()
        self.assertEqual(self.sent, [(5, 4)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flood(self) -> None:
        """After a burst hits are counted instead of told, until time has made room for more of them."""
        for n in range(BURST):
            self.assertFalse(self.recorder.is_flooded)
            self.recorder.record(exchange(float(n)))
        self.assertTrue(self.recorder.is_flooded)
        self.recorder.drop(False, 100)
        self.recorder.drop(True, 0)
        self.recorder.record(exchange(0.0))  # no hit: it is told all the same
        self.clock.advance(EVERY)
        self.assertEqual((self.sent, self.dropped), ([(BURST + 1, 2)], [Dropped(2, 1, 100)]))
        for n in range(int(HITS * EVERY)):
            self.assertFalse(self.recorder.is_flooded)
            self.recorder.record(exchange(float(n)))
        self.assertTrue(self.recorder.is_flooded)
        self.clock.advance(EVERY)
        for n in range(int(HITS * EVERY)):
            self.recorder.record(exchange(float(n)))
        self.clock.advance(3600)
        for n in range(BURST):
            self.recorder.record(exchange(float(n)))
        self.assertTrue(self.recorder.is_flooded)
        self.recorder.flush()

    def test_only_dropped(self) -> None:
        """What is dropped goes out without anything else."""
        self.recorder.drop(False, 7)
        self.clock.advance(EVERY)
        self.assertEqual(self.dropped, [Dropped(1, 1, 7)])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class NewsTests(SynchronousTestCase):
    """Who watches hears of changes, not of each."""

    def test_at_most_one_a_second(self) -> None:
        clock = Clock()
        news = News(clock)
        heard: list[float] = []
        unsubscribe = news.subscribe(lambda: heard.append(clock.seconds()))
        for _ in range(30):
            news.publish()
            clock.advance(0.1)
        self.assertEqual([round(at) for at in heard], [0, 1, 2])
        unsubscribe()
        clock.advance(5)
        news.publish()
        self.assertEqual(len(heard), 3)
        news.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class ViewTests(SynchronousTestCase):
    """Without a history the ring is all there is."""

    def test_pulls(self) -> None:
        clock = Clock()
        read = ReadModel(ABOUT, clock.seconds, lambda pull: None, lambda: None, hold=0.0, names=True)
        OneProcess(read, 1).take([exchange(0.0), exchange(0.0, repository="library/busybox")], Dropped())
        view = LocalView(read, None, News(clock), clock.seconds)
        every = self.successResultOf(view.pulls(10, None))
        one = self.successResultOf(view.pulls(10, ("docker.io", "library/busybox")))
        self.assertEqual((len(every), [pull["repository"] for pull in one]), (2, ["library/busybox"]))
