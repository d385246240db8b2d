"""The read model: what happened to pulls, fills, upstreams, quota and cache, of all processes.

Pure apart from the clock.  The law: *everything that shows what docxy does is a view of this*: the
page, the JSON, the events, the command line.  Clients cannot make it grow beyond a bound.

A process tells of its state now and then:

    {"fills": [{"digest", "upstream", "repository", "size", "offset", "rate", "readers", "connections",
                "started"}, ...],
     "following": {digest: how many of its clients follow a fill that another process runs, ...},
     "upstreams": {name: {"asked", "latency", "state", "error", "until", "limit", "remaining",
                         "received", "answered"}, ...},
     "cache": {"used", "budget", "pinned", "pins", "largest", "next"} or absent where it is not this process that
              tells of it,
     "cache_failure": why it serves past the cache, or absent,
     "certificate_expires": seconds since the epoch, or absent,
     "archive": {"name", "failure", "failed", "put", "read", "waiting"} (`docxy.daemon.archiving`), or absent,
     "certificate": how docxy gets its own (`docxy.daemon.issuing.standing`), or absent}
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from attrs import asdict, define, evolve, field, frozen
from cachetools import LRUCache

from docxy.observe.alerts import Alerts, Event, EventType
from docxy.observe.archive_state import merged
from docxy.observe.exchange import CHARGES, FETCH, Exchange
from docxy.observe.exemplars import Exemplars
from docxy.observe.journal import Journal, Pull, nameless, to_json
from docxy.observe.ledger import Charge, QuotaLedger
from docxy.observe.recorder import Dropped
from docxy.observe.traffic import Traffic
from docxy.observe.verdict import verdict, words
from docxy.observe.visible import OF_CACHE

_OWN = frozenset({"received", "answered"})
"""What a process tells of an upstream for the model alone."""
VERSION = 1
"""Of the JSON; a field that goes away or changes its meaning makes a new one."""
SHOWN_PULLS = 50
SHOWN_FILLS = 50
MOST_REPOSITORIES = 2_000
SHOWN_REPOSITORIES = 10
MOST_ERRORS = 100
MOST_PLATFORMS = 10_000
"""Manifests whose platform is remembered."""
SHOWN_ERRORS = 20
MOST_FETCHES = 1_000
"""Fetches that ended and are remembered for answers that joined them in other processes."""


@frozen
class About:
    """What does not change while docxy runs."""

    version: str
    public_url: str
    started: float
    """Seconds since the epoch."""
    auth: str
    upstreams: Sequence[str]
    """Names, the default first."""
    cache: str | None
    """The directory; None: off."""
    workers: int
    libraries: Sequence[str] = ()
    """The upstreams in which a single name is in `library/`."""
    aliases: Mapping[str, Sequence[str]] = field(factory=dict)
    """Other names of upstreams."""
    any_registry: bool = False
    """Whether clients may name other registries."""


@define
class _Repository:
    """What clients pulled of one repository since the start."""

    pulls: int = 0
    sent: int = 0
    last: float = 0.0


class ReadModel:
    """One for all processes of a docxy."""

    def __init__(
        self,
        about: About,
        seconds: Callable[[], float],
        finished: Callable[[Pull], object],
        changed: Callable[[], object],
        hold: float,
        names: bool,
    ) -> None:
        """`finished`: takes each pull that ended; `changed`: called whenever a snapshot would be another one.

        `hold`: seconds for which exchanges wait for those of other processes, to be put in order; 0: there is one.
        `names`: whether it may say who pulled.
        """
        self.upgrade_failure: str | None = None
        """Why no other docxy took over from this one, when one was last to."""
        self._hold = hold
        self._held: list[tuple[float, Exchange]] = []
        self._about = about
        self._seconds = seconds
        self._changed = changed
        self._names = names
        self._platforms: MutableMapping[str, str] = LRUCache(MOST_PLATFORMS)
        self._fetches: MutableMapping[str, Exchange] = LRUCache(MOST_FETCHES)
        """The last one of each blob, by its digest."""
        self.journal = Journal(seconds, finished, names=names)
        self.traffic = Traffic(seconds)
        self.ledger = QuotaLedger(seconds)
        self.exemplars = Exemplars()
        self.alerts = Alerts(seconds)
        self._states: dict[int, Mapping[str, Any]] = {}
        self._repositories: OrderedDict[tuple[str, str], _Repository] = OrderedDict()
        self._errors: deque[Mapping[str, Any]] = deque(maxlen=MOST_ERRORS)
        self.dropped = 0
        """Exchanges that processes did not tell of, because there were too many."""

    def take(self, exchanges: Sequence[Exchange], dropped: Dropped) -> None:
        """Exchanges of any process, and what it dropped."""
        self.dropped += dropped.exchanges
        self.traffic.add_hits(dropped.hits, dropped.sent)
        now = self._seconds()
        self._held += [(now, exchange) for exchange in exchanges]
        self._put_in_order(now)

    def _put_in_order(self, now: float) -> None:
        """Take what has waited long enough, as the requests began."""
        overdue = [_began(exchange) for came, exchange in self._held if not 0 <= now - came < self._hold]
        if not overdue:
            return
        # What another process told of later goes before, if it began before.
        newest = max(overdue)
        due = [exchange for _, exchange in self._held if _began(exchange) <= newest]
        self._held = [(came, exchange) for came, exchange in self._held if _began(exchange) > newest]
        for exchange in sorted(due, key=_began):
            self._take(exchange)
        self.journal.sweep()
        self._changed()

    def _take(self, exchange: Exchange) -> None:
        if exchange.kind == FETCH:
            self._fetches[exchange.reference] = exchange
            return
        self._charge(exchange)
        if exchange.kind == CHARGES:
            return
        if exchange.kind == "manifests":
            exchange = self._with_platform(exchange)
        elif exchange.cache == "collapsed":
            exchange = self._with_fetch(exchange)
        self.exemplars.note(exchange)
        self.alerts.answered(exchange)
        pull = self.journal.add(exchange)
        self.traffic.add(exchange, self._is_ahead(exchange, pull))
        key = (exchange.upstream, exchange.repository)
        repository = self._repositories.pop(key, None) or _Repository()
        self._repositories[key] = repository
        repository.pulls += pull.answers == 1
        repository.sent += exchange.sent
        repository.last = exchange.at
        while len(self._repositories) > MOST_REPOSITORIES:
            self._repositories.popitem(last=False)
        if exchange.status >= 500 or exchange.status == 429 or not exchange.whole:
            words = exchange.error or (f"{exchange.status}" if exchange.status >= 400 else "broke off")
            self._failed(exchange.at, exchange.upstream, exchange.repository, exchange.status, words)

    def gone(self, image: str, digest: str) -> None:
        """A registry does not have any more what is kept: an image by its full name, which led to this digest."""
        upstream, _, rest = image.partition("/")
        repository, _, reference = rest.rpartition("@" if "@" in rest else ":")
        words = f"{reference} is gone from {upstream}; docxy keeps what it has of it"
        self._failed(self._seconds(), upstream, repository, 404, words)
        told = {"digest": None, "previous": digest}
        self.alerts.happened(Event(EventType.TAG_VANISHED, image, self._seconds(), told))
        self._changed()

    def _failed(self, at: float, upstream: str, repository: str, status: int, words: str) -> None:
        row = {"at": at, "upstream": upstream, "repository": repository, "status": status, "words": words}
        self._errors.append({**row, "name": f"{upstream}/{repository}"})

    def _charge(self, exchange: Exchange) -> None:
        charges = exchange if self._names else nameless(exchange)
        for account, count in charges.charged.items():
            for _ in range(count):
                self.ledger.charge(Charge(exchange.at, exchange.upstream, account, exchange.repository, charges.group))

    def _with_fetch(self, exchange: Exchange) -> Exchange:
        """The answer, with how the fetch went that it joined in another process."""
        fetch = self._fetches.get(exchange.digest or "")
        if exchange.connections or fetch is None:
            return exchange
        if (fetch.whole and fetch.at < _began(exchange)) or _began(fetch) > exchange.at:
            return exchange
        waits = dict(exchange.waits)
        # What the client waited for was the upstream's, as far as this process knew.
        for seen, wait in (("headers", "connection"), ("upstream", "rate")):
            waited = waits.get(seen, 0.0)
            waits[wait] = min(waited, fetch.waits.get(wait, 0.0))
            waits[seen] = round(waited - waits[wait], 4)
        same = (fetch.upstream, fetch.repository) == (exchange.upstream, exchange.repository)
        return evolve(
            exchange,
            connections=fetch.connections,
            resumed=fetch.resumed,
            failovers=exchange.failovers + fetch.failovers,
            waits={name: seconds for name, seconds in waits.items() if seconds},
            joined=fetch.request_id if same else "",
        )

    def _is_ahead(self, exchange: Exchange, pull: Pull) -> bool:
        """Whether docxy began to fetch a blob when this pull asked for its manifest: the hit saved nothing."""
        fetch = self._fetches.get(exchange.digest or "") if exchange.kind == "blobs" else None
        if fetch is None or not fetch.request_id:
            return False
        return any(part.kind == "manifests" and part.request_id == fetch.request_id for part in pull.parts)

    def _with_platform(self, exchange: Exchange) -> Exchange:
        """The answer, with the platform that an index named; what the index said is remembered."""
        self._platforms.update(exchange.platforms)
        platform = self._platforms.get(exchange.digest or "")
        if platform is None and not exchange.platforms:
            return exchange
        return evolve(exchange, platform=platform, platforms={})

    def sampled(self, worker: int, state: Mapping[str, Any]) -> None:
        """What a process is at; `worker`: its number."""
        self._put_in_order(self._seconds())
        before = self._states.get(worker, {})
        self.traffic.received(max(0, _received(state) - _received(before)))
        if before != state:
            self._states[worker] = state
            self._changed()
            for name in self._about.upstreams:
                self.alerts.look(self._upstream(name), max(self._answers(name), default=None))
            self.alerts.certificate(next(iter(self._each("certificate")), None))

    def _answers(self, name: str) -> list[float]:
        """When an upstream last answered each process."""
        told = [state.get("upstreams", {}).get(name, {}).get("answered") for state in self._states.values()]
        return [at for at in told if at is not None]

    def happened(self, event: Mapping[str, Any]) -> None:
        """A process saw something of a tag; as `Event.to_json` makes it."""
        self.alerts.happened(Event.from_json(event))

    def forget(self, worker: int) -> None:
        """A process has ended."""
        self._states.pop(worker, None)
        self._changed()

    def end(self) -> None:
        """Nothing more will come: take what waits, and end all pulls."""
        self._hold = 0.0
        self._put_in_order(self._seconds())
        self.journal.end()

    def snapshot(self) -> dict[str, Any]:
        """Everything, as JSON has it: for the operator.  `visible` makes of it what another viewer may see."""
        now = self._seconds()
        return {
            "version": VERSION,
            "docxy": {
                "version": self._about.version,
                "public_url": self._about.public_url,
                "started": self._about.started,
                "now": now,
                "auth": self._about.auth,
                "workers": self._about.workers,
                # Those that have told how they are: one that starts or starts again has not.
                "serving": min(len(self._states), self._about.workers),
                "any_registry": self._about.any_registry,
                "cache": self._about.cache,
                "upgrade_failure": self.upgrade_failure,
                "cache_failure": next(iter(self._each("cache_failure")), None),
                # A worker that could not load the renewed one goes on with the old one.
                "certificate_expires": min(self._each("certificate_expires"), default=None),
                "certificate": next(iter(self._each("certificate")), None),
                "dropped": self.dropped,
            },
            "cache": self._cache(),
            "archive": merged(self._each("archive")),
            "traffic": {
                name: asdict(share)
                for name, share in (
                    ("hour", self.traffic.hour()),
                    ("day", self.traffic.day()),
                    ("week", self.traffic.week()),
                )
            },
            "upstreams": [self._upstream(name) for name in [*self._about.upstreams, *self._unnamed()]],
            "fills": self._fills(),
            "pulls": self.pulls(SHOWN_PULLS),
            "repositories": self._most_pulled(),
            "errors": list(self._errors)[: -SHOWN_ERRORS - 1 : -1],
        }

    def _cache(self) -> dict[str, Any] | None:
        told = next((state["cache"] for state in self._states.values() if state.get("cache")), None)
        return None if told is None else {**{part: [] for part in OF_CACHE}, **told}

    def _each(self, what: str) -> list[Any]:
        """What of this the processes tell."""
        return [state[what] for state in self._states.values() if what in state]

    def pulls(self, most: int, repository: str | None = None) -> list[dict[str, Any]]:
        """The newest pulls, of one repository (`docker.io/library/alpine`) or of all."""
        found = []
        for pull in self.journal.pulls():
            if repository is None or repository == f"{pull.upstream}/{pull.repository}":
                found.append(self.told(pull))
                if len(found) == most:
                    break
        return found

    def told(self, pull: Pull) -> dict[str, Any]:
        """A pull as JSON, with its verdict."""
        found = verdict(pull)
        return {
            **to_json(pull, self.journal.is_running(pull)),
            "verdict": {"cause": found.cause.value, "words": words(found), "waits": dict(found.shares)},
        }

    def _fills(self) -> list[Mapping[str, Any]]:
        fills = [fill for state in self._states.values() for fill in state.get("fills", ())]
        # Two processes may tell of one as it passes from the one to the other: the newer one is right.
        newest = {fill["digest"]: fill for fill in sorted(fills, key=lambda fill: fill["started"])}
        readers: Counter[str] = Counter()
        for state in self._states.values():
            readers.update(state.get("following", {}))
        shown = list(newest.values())[:SHOWN_FILLS]
        return [{**fill, "readers": fill["readers"] + readers[fill["digest"]]} for fill in shown]

    def _unnamed(self) -> list[str]:
        """The registries that only clients name, as far as a process has them ready."""
        ready = {name for state in self._states.values() for name in state.get("upstreams", {})}
        return sorted(ready.difference(self._about.upstreams))

    def _upstream(self, name: str) -> dict[str, Any]:
        """The newest that any process knows."""
        told: dict[str, Any] = {
            "name": name,
            "library": name in self._about.libraries,
            "aliases": list(self._about.aliases.get(name, ())),
            "named": name in self._about.upstreams,
            "state": "unasked",
            "asked": None,
            "latency": None,
            "error": None,
            "until": None,
            "limit": None,
            "remaining": None,
        }
        known = [state["upstreams"][name] for state in self._states.values() if name in state.get("upstreams", {})]
        for each in sorted(known, key=lambda each: each["asked"] or 0):
            told.update({key: value for key, value in each.items() if value is not None and key not in _OWN})
        if told["until"] is not None and told["until"] <= self._seconds():
            told.update(state="ok" if told["asked"] else "unasked", error=None, until=None)
        remaining = told["remaining"]
        return {
            **told,
            "spent": self.ledger.spent(name),
            "spenders": [
                {"account": who.account, "repository": who.repository, "group": who.group, "count": who.count}
                for who in self.ledger.spenders(name)
            ],
            "ends_at": None if remaining is None else self.ledger.ends_at(name, remaining),
        }

    def _most_pulled(self) -> list[dict[str, Any]]:
        most = sorted(self._repositories.items(), key=lambda item: (-item[1].pulls, -item[1].sent))
        return [
            {
                "upstream": upstream,
                "repository": repository,
                "name": f"{upstream}/{repository}",
                "pulls": counted.pulls,
                "sent": counted.sent,
                "last": counted.last,
            }
            for (upstream, repository), counted in most[:SHOWN_REPOSITORIES]
        ]


def _began(exchange: Exchange) -> float:
    return exchange.at - exchange.seconds


def _received(state: Mapping[str, Any]) -> int:
    return sum(upstream["received"] for upstream in state.get("upstreams", {}).values())
