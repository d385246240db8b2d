"""Exchanges become pulls, and pulls get verdicts."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe.exchange import LONGEST, Exchange, clipped
from docxy.observe.journal import GAP, LATE, MOST_AT_ONCE, MOST_PARTS, Journal, Pull, to_json
from docxy.observe.verdict import Cause, amount, duration, verdict, words

DIGEST = "sha256:" + "a" * 64
LAYER = "sha256:" + "b" * 64


def exchange(at: float, **changed: Any) -> Exchange:
    """A cached manifest of alpine, unless said otherwise."""
    usual: dict[str, Any] = {
        "seconds": 0.1,
        "kind": "manifests",
        "upstream": "docker.io",
        "repository": "library/alpine",
        "reference": "latest",
        "status": 200,
        "cache": "hit",
        "digest": DIGEST,
        "client": "10.0.0.1",
        "sent": 1000,
    }
    return Exchange(at=at, **{**usual, **changed})


def layer(at: float, **changed: Any) -> Exchange:
    return exchange(at, **{"kind": "blobs", "reference": LAYER, "digest": LAYER, **changed})


class ExchangeTests(SynchronousTestCase):
    """What travels between processes."""

    def test_round_trip(self) -> None:
        """Through JSON and back it is the same, and what is as usual takes no room."""
        told = layer(5.0, waits={"client": 2.5}, connections=2)
        text = json.dumps(told.to_json())
        self.assertEqual(Exchange.from_json(json.loads(text)), told)
        self.assertNotIn("failovers", text)

    def test_clipped(self) -> None:
        """A client's text has a bound and no control characters."""
        self.assertEqual(clipped("docker/29\n\x1b[31m"), "docker/29??[31m")
        self.assertEqual(len(clipped("x" * 10_000)), LONGEST)


class JournalTests(SynchronousTestCase):
    """Which answers are one pull."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.finished: list[Pull] = []
        self.journal = Journal(self.clock.seconds, self.finished.append, ring=3)

    def test_a_pull(self) -> None:
        """A manifest by tag, its child by digest and the layers are one pull, with what they came to."""
        for each in (
            exchange(1.0),
            exchange(1.5, reference=DIGEST, platform="linux/amd64"),
            layer(9.0, seconds=7.0, sent=5_000_000, received=5_000_000, cache="miss"),
        ):
            pull = self.journal.add(each)
        self.assertEqual(len(self.journal), 1)
        self.assertEqual(pull.image, "docker.io/library/alpine:latest")
        self.assertEqual((pull.platform, pull.answers, pull.sent), ("linux/amd64", 3, 5_002_000))
        self.assertAlmostEqual(pull.seconds, 8.1)

    def test_head_then_get(self) -> None:
        """HEAD and GET of the same tag are one pull."""
        self.assertIs(self.journal.add(exchange(1.0, head=True)), self.journal.add(exchange(1.1)))

    def test_other_clients(self) -> None:
        """Another client, account or repository is another pull."""
        first = self.journal.add(exchange(1.0, account="alice"))
        for changed in ({"client": "10.0.0.2"}, {"account": "bob"}, {"repository": "library/busybox"}):
            self.assertIsNot(self.journal.add(exchange(1.0, **changed)), first)

    def test_another_tag(self) -> None:
        """Another tag of the same repository begins a new pull; a layer belongs to the newest that began before it."""
        first = self.journal.add(exchange(1.0))
        second = self.journal.add(exchange(2.0, reference="3.20"))
        self.assertIsNot(first, second)
        self.assertIs(self.journal.add(layer(2.2)), second)
        self.assertIs(self.journal.add(layer(2.5, seconds=1.0)), first)

    def test_many_tags(self) -> None:
        """A client that pulls tag after tag has a bounded number of pulls running; each is finished once."""
        for n in range(10):
            self.journal.add(exchange(1.0 + n, reference=f"3.{n}"))
        self.assertEqual(len(self.finished), 10 - min(MOST_AT_ONCE, 3))

    def test_again(self) -> None:
        """The same tag again, after layers, is another pull; before them it is the same one."""
        first = self.journal.add(exchange(1.0))
        self.journal.add(layer(2.0))
        self.assertIsNot(self.journal.add(exchange(3.0)), first)

    def one(self, *exchanges: Exchange) -> Pull:
        """The pull that all of them are."""
        pulls = {self.journal.add(each).id for each in exchanges}
        self.assertEqual(len(pulls), 1)
        (pull,) = self.journal.pulls()
        return pull

    def test_docker(self) -> None:
        """Docker: a challenge, HEAD of the tag, GET of the digest, layers, three at once."""
        head = {"head": True, "sent": 0}
        pull = self.one(
            exchange(1.0, status=401, cache="", digest=None, **head),
            exchange(1.2, account="token 1", **head),
            exchange(1.4, account="token 1", reference=DIGEST),
            *(layer(3.0 + n, seconds=1.4 + n, account="token 2", sent=1000) for n in range(3)),
        )
        self.assertEqual((pull.reference, pull.account, pull.answers, pull.digest), ("latest", "token 1", 6, DIGEST))

    def test_containerd(self) -> None:
        """containerd: HEAD of the tag, the index, its child, then blobs."""
        child = "sha256:" + "c" * 64
        pull = self.one(
            exchange(1.0, head=True, sent=0),
            exchange(1.2, reference=DIGEST),
            exchange(1.4, reference=child, digest=child, platform="linux/arm64/v8"),
            layer(2.0, seconds=0.5),
        )
        self.assertEqual((pull.image, pull.platform), ("docker.io/library/alpine:latest", "linux/arm64/v8"))

    def test_skopeo(self) -> None:
        """skopeo and Podman: GET of the tag, a child, a signature that is not there, blobs."""
        self.one(
            exchange(1.0),
            exchange(1.2, reference=LAYER, digest=LAYER),
            exchange(1.3, reference=f"sha256-{'a' * 64}.sig", status=404, digest=None),
            layer(2.0, seconds=0.5),
        )

    def test_checks(self) -> None:
        """A program that asks every half minute where a tag leads makes short pulls, not one without end."""
        for n in range(3):
            self.journal.add(exchange(1.0 + 30 * n, head=True))
        self.assertEqual([round(pull.seconds, 1) for pull in self.journal.pulls()], [0.1, 0.1, 0.1])

    def test_which_tag(self) -> None:
        """Of two tags that run at once, a manifest by digest belongs to the one that led there."""
        other = "sha256:" + "d" * 64
        first = self.journal.add(exchange(1.0, head=True))
        second = self.journal.add(exchange(1.1, head=True, reference="edge", digest=other))
        self.assertIs(self.journal.add(exchange(1.3, reference=DIGEST)), first)
        self.assertIs(self.journal.add(exchange(1.4, reference=other, digest=other)), second)

    def test_nameless(self) -> None:
        """Where clients are anonymous each still has its own pull, and no pull says whose it is."""
        journal = Journal(self.clock.seconds, self.finished.append, names=False)
        mine = {"account": "alice", "agent": "docker/29", "group": "devs", "charged": {"token 1": 1, "ci": 2}}
        mine |= {"request_id": "host-of-alice", "joined": "host-of-alice"}
        first = journal.add(exchange(1.0, **mine))
        self.assertIs(journal.add(layer(1.5, seconds=0.2, **mine)), first)
        self.assertIsNot(journal.add(exchange(1.0, client="10.0.0.2")), first)
        journal.end()
        for pull in journal.pulls():
            for told in (json.dumps(to_json(pull, False)), repr(pull)):
                self.assertNotRegex(told, "10[.]0[.]0|alice|docker/29|devs|token")
        self.assertEqual(first.parts[0].charged, {"": 1, "ci": 2})

    def test_told_late(self) -> None:
        """What a second process tells late of a pull's beginning leads it: it stays one pull, in any order."""
        answers = (
            exchange(1.0, status=401, cache="", digest=None, head=True, sent=0),
            exchange(1.2, head=True, sent=0),
            exchange(1.4),
            exchange(1.6, reference=LAYER, digest=LAYER),
            layer(2.0, seconds=0.3),
        )
        for order in permutations(answers):
            journal = Journal(self.clock.seconds, self.finished.append)
            pulls = {journal.add(each).id for each in order}
            self.assertEqual(len(pulls), 1, [each.at for each in order])
            (pull,) = journal.pulls()
            self.assertEqual((pull.reference, round(pull.started, 1), pull.answers), ("latest", 0.9, 5))

    def test_too_late(self) -> None:
        """What began long before a pull did not begin it, nor did another tag."""
        first = self.journal.add(layer(20.0, seconds=0.1))
        self.assertIsNot(self.journal.add(exchange(20.0 - LATE - 1)), first)
        named = self.journal.add(exchange(30.0))
        self.assertIsNot(self.journal.add(exchange(29.0, reference="edge")), named)

    def test_silence_ends(self) -> None:
        """After a minute without an answer a pull has ended; the same tag then is a new one."""
        first = self.journal.add(exchange(1.0))
        self.assertTrue(self.journal.is_running(first))
        self.clock.advance(GAP + 2)
        self.journal.sweep()
        self.assertEqual(self.finished, [first])
        self.assertFalse(self.journal.is_running(first))
        self.assertIsNot(self.journal.add(exchange(GAP + 3)), first)

    def test_long_layer(self) -> None:
        """A layer that took ten minutes began within the minute, so it belongs to its pull."""
        first = self.journal.add(exchange(1.0))
        self.assertIs(self.journal.add(layer(601.0, seconds=599.5)), first)

    def test_ring(self) -> None:
        """The ring holds its number of pulls; each that leaves it was finished once."""
        for n in range(10):
            self.journal.add(exchange(float(n), client=f"10.0.0.{n}"))
        self.assertEqual(len(self.journal), 3)
        self.assertEqual([pull.client for pull in self.journal.pulls()], ["10.0.0.9", "10.0.0.8", "10.0.0.7"])
        self.assertEqual(len(self.finished), 7)

    def test_parts(self) -> None:
        """A pull keeps a bounded number of answers, and counts all."""
        for n in range(MOST_PARTS + 10):
            pull = self.journal.add(layer(n / 100))
        self.assertEqual((len(pull.parts), pull.answers), (MOST_PARTS, MOST_PARTS + 10))

    def test_json(self) -> None:
        """A pull as JSON has its parts."""
        pull = self.journal.add(exchange(1.0))
        told = json.loads(json.dumps(to_json(pull, True)))
        self.assertEqual(told["image"], "docker.io/library/alpine:latest")
        self.assertEqual(told["parts"][0]["cache"], "hit")


class VerdictTests(SynchronousTestCase):
    """Each cause is found, in words a person takes in at once."""

    def said(self, *parts: Exchange) -> tuple[Cause, str]:
        journal = Journal(Clock().seconds, lambda pull: None)
        for part in parts:
            pull = journal.add(part)
        told = verdict(pull)
        return told.cause, words(told)

    def test_cache(self) -> None:
        self.assertEqual(
            self.said(exchange(1.0), layer(1.2, seconds=0.2, sent=4_000_000)),
            (Cause.CACHE, "from the cache, 4.0 MB in 0.3 s"),
        )

    def test_client(self) -> None:
        """A slow client: its own rate."""
        slow = layer(11.0, seconds=10.0, sent=20_000_000, waits={"client": 9.5, "upstream": 0.2})
        self.assertEqual(self.said(exchange(1.0), slow), (Cause.CLIENT, "the client took 2.0 MB/s"))

    def test_fast_client(self) -> None:
        """A client that took 100 MB/s is not why it took a second."""
        fast = layer(2.0, seconds=1.0, sent=100_000_000, waits={"client": 0.9})
        self.assertEqual(self.said(exchange(1.0), fast), (Cause.CACHE, "from the cache, 100 MB in 1.1 s"))

    def test_upstream(self) -> None:
        """A slow upstream: what it sent, and over how many connections."""
        slow = layer(
            11.0, seconds=10.0, cache="miss", sent=30_000_000, received=30_000_000, connections=2, waits={"upstream": 9}
        )
        self.assertEqual(self.said(exchange(1.0), slow), (Cause.UPSTREAM, "docker.io sent 3.0 MB/s over 2 connections"))

    def test_upstream_at_once(self) -> None:
        """Three layers at once: the rate is of all together, not of each added up."""
        parts = [
            layer(11.0, seconds=10.0, reference=LAYER[:-1] + n, cache="miss", sent=10_000_000, waits={"upstream": 9.0})
            for n in "123"
        ]
        self.assertEqual(self.said(exchange(1.0), *parts)[1], "docker.io sent 3.0 MB/s")

    def test_recalled(self) -> None:
        """What was recalled, before or while it was pulled: the operator's reason, whatever else went wrong."""
        told = "sha256:1 is recalled: CVE-2026-1: do not"
        for parts in (
            [exchange(1.0, status=403, cache="recalled", error=told)],
            [exchange(1.0), layer(2.0, whole=False, cache="recalled", error=told), layer(3.0, status=502, cache="")],
        ):
            self.assertEqual(self.said(*parts), (Cause.RECALLED, "recalled: CVE-2026-1: do not"))

    def test_limited(self) -> None:
        refused = exchange(1.0, status=429, cache="", retry_after=30.0)
        self.assertEqual(
            self.said(refused), (Cause.LIMITED, "docker.io answered 429: its pull limit is used up, wait 30 s")
        )

    def test_limit_overcome(self) -> None:
        """The wait that there was counts, unless it was short beside the pull; a later failure goes first."""
        refused = exchange(1.0, status=429, cache="", retry_after=10.0)
        fetched = exchange(13.0, seconds=1.0, cache="miss", waits={"headers": 0.9})
        self.assertEqual(
            self.said(refused, fetched),
            (Cause.LIMITED, "docker.io answered 429: its pull limit is used up, waited 11 s"),
        )
        slow = layer(113.0, seconds=100.0, sent=20_000_000, waits={"client": 95.0})
        self.assertEqual(self.said(refused, fetched, slow)[0], Cause.CLIENT)
        failed = layer(14.0, status=502, cache="miss", error="docker.io answered 502")
        self.assertEqual(self.said(refused, fetched, failed)[0], Cause.FAILED)
        again = layer(15.0, status=429, cache="miss", retry_after=7.0)
        self.assertEqual(
            self.said(refused, fetched, again)[1], "docker.io answered 429 for a layer: it limits requests, wait 7.0 s"
        )

    def test_headers(self) -> None:
        late = exchange(13.0, seconds=12.0, cache="miss", waits={"headers": 11.8})
        self.assertEqual(self.said(late), (Cause.HEADERS, "docker.io took 12 s to answer"))

    def test_connection(self) -> None:
        late = layer(8.0, seconds=7.0, cache="miss", waits={"connection": 6.0, "upstream": 0.5})
        self.assertEqual(self.said(late)[1], "waited 6.0 s for a free connection to docker.io")

    def test_disk(self) -> None:
        late = layer(8.0, seconds=7.0, cache="miss", waits={"disk": 6.0})
        self.assertEqual(self.said(late), (Cause.DISK, "the cache's disk took 6.0 s"))

    def test_resumed(self) -> None:
        """A resume is said beside the cause."""
        part = layer(11.0, seconds=10.0, cache="miss", sent=10_000_000, resumed=2, waits={"upstream": 9.0})
        self.assertEqual(self.said(part)[1], "docker.io sent 1.0 MB/s; resumed 2 times")

    def test_joined(self) -> None:
        """Layers that another client had begun to fetch are told; its own fetch a client does not join."""
        mine = layer(1.0, seconds=1.0, cache="miss", waits={"upstream": 0.9}, received=1000, request_id="a")
        again = layer(1.1, seconds=1.0, cache="collapsed", waits={"upstream": 0.9}, request_id="b", joined="a")
        other = layer(1.2, seconds=1.0, cache="collapsed", waits={"upstream": 0.9}, request_id="c", joined="x")
        self.assertNotIn("joined", self.said(mine, again)[1])
        self.assertTrue(self.said(mine, again, other)[1].endswith("; joined a fetch of another client"))
        self.assertTrue(self.said(mine, other, other)[1].endswith("; joined 2 fetches of other clients"))

    def test_failed(self) -> None:
        """An error that no later answer made up for; a 401 before a login is none."""
        self.assertEqual(self.said(layer(1.0, status=502, cache="")), (Cause.FAILED, "failed with status 502"))
        self.assertEqual(self.said(layer(1.0, whole=False)), (Cause.FAILED, "the client broke off"))
        ended = layer(1.0, whole=False, error="the upstream ended a blob early")
        self.assertEqual(self.said(ended), (Cause.FAILED, "broke off: the upstream ended a blob early"))
        self.assertEqual(self.said(layer(1.0, status=502, cache=""), layer(2.0))[0], Cause.NOTHING)
        self.assertEqual(self.said(exchange(1.0, status=401, cache=""), exchange(2.0))[0], Cause.NOTHING)

    def test_figures(self) -> None:
        """Figures for people."""
        counts = {7: "7 B", 999: "999 B", 1500: "1.5 kB", 999_600: "1.0 MB", 2_000_000: "2.0 MB", 250e9: "250 GB"}
        self.assertEqual([amount(n) for n in counts], list(counts.values()))
        self.assertEqual(
            [duration(n) for n in (0.02, 0.25, 31.0, 200.0, 9000.0)], ["20 ms", "0.2 s", "31 s", "3 min", "2 h"]
        )
