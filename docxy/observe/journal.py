"""The journal of pulls: exchanges -> what a person calls a pull.

Pure apart from the clock that it is given.  The laws: *a pull is a manifest and the blobs that the
same client asks for within a minute of its last answer*: HEAD then GET, an answer 401 and the same again
with a token, an index and its child, signatures of what was pulled are all of one pull.  The journal keeps
the newest `ring` pulls and no more than `MOST_PARTS` answers of each; older ones leave through `finished`.
Where clients are to stay anonymous, nothing in a pull says who they are: that is only compared.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import define, evolve, field

from docxy.observe.exchange import TOKEN, Exchange, own

GAP = 60.0
"""Seconds of silence that end a pull."""
LATE = 10.0
"""Seconds by which one process may tell of an answer later than another one of what the client asked for next."""
RING = 1000
"""Pulls that are kept in memory."""
MOST_AT_ONCE = 4
"""Pulls of one repository that one client has running; the oldest ends when there are more."""
MOST_PARTS = 256
"""Answers of one pull that are kept one by one; further ones only count."""

Key = tuple[str | None, str, str]
"""What the answers of one pull have in common: the client's address, the upstream's name, the repository."""
_ABOUT_A_DIGEST = re.compile(r"sha(256|512)-[0-9a-f]{32,}.*")
"""A tag that says something of a manifest: cosign's signatures, the fallback for referrers."""


@define(eq=False)
class Pull:
    """One pull."""

    id: str
    client: str | None
    account: str | None
    agent: str
    upstream: str
    repository: str
    reference: str | None
    """The tag or digest that it began with; None if only blobs were seen."""
    started: float
    """Seconds since the epoch."""
    last: float
    """When its newest answer ended."""
    digest: str | None = None
    platform: str | None = None
    sent: int = 0
    """Bytes to the client."""
    received: int = 0
    """Bytes from the upstream."""
    answers: int = 0
    parts: list[Exchange] = field(factory=list)
    key: Key = (None, "", "")
    """Empty for one that has ended."""
    asker: str | None = None
    """The account, for comparing; nobody is shown it."""

    @property
    def seconds(self) -> float:
        """From its first request to its newest answer's end."""
        return max(0.0, self.last - self.started)

    @property
    def image(self) -> str:
        """As users write it."""
        name = f"{self.upstream}/{self.repository}"
        if self.reference is None:
            return name
        return f"{name}{'@' if ':' in self.reference else ':'}{self.reference}"

    def began(self, exchange: Exchange, at: float) -> None:
        """It began earlier than it seemed, with this manifest."""
        self.started = at
        self.reference = exchange.reference

    def take(self, exchange: Exchange) -> None:
        """One more answer."""
        self.account = self.account or exchange.account
        self.agent = self.agent or exchange.agent
        self.last = max(self.last, exchange.at)
        self.sent += exchange.sent
        self.received += exchange.received
        self.answers += 1
        if exchange.kind == "manifests" and exchange.status < 400:
            self.digest = self.digest or exchange.digest
            self.platform = self.platform or exchange.platform
        if len(self.parts) < MOST_PARTS:
            self.parts.append(exchange)


class Journal:
    """The newest pulls."""

    def __init__(
        self, seconds: Callable[[], float], finished: Callable[[Pull], object], ring: int = RING, names: bool = True
    ) -> None:
        """`seconds`: since the epoch; `finished`: takes each pull once, when it ended or leaves the ring.

        `names`: whether pulls say who asked.
        """
        self._names = names
        self._seconds = seconds
        self._finished = finished
        self._ring = ring
        self._open: dict[Key, list[Pull]] = {}
        self._kept: OrderedDict[str, Pull] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, exchange: Exchange) -> Pull:
        """The pull that an answer belongs to, with the answer in it; answers come roughly as their requests began."""
        began = exchange.at - exchange.seconds
        key = (exchange.client, exchange.upstream, exchange.repository)
        pulls = [pull for pull in reversed(self._open.get(key, ())) if _belongs(exchange, began, pull)]
        led = (pull for pull in pulls if pull.digest is not None and pull.digest == exchange.digest)
        pull = next(led, pulls[0] if pulls else None)
        shown = exchange if self._names else nameless(exchange)
        if pull is None:
            pull = self._begin(shown, began, key)
        pull.asker = pull.asker or exchange.account
        if began < pull.started:
            pull.began(shown, began)
        pull.take(shown)
        return pull

    def sweep(self) -> None:
        """End the pulls that have been silent for `GAP`; to be called now and then."""
        before = self._seconds() - GAP
        for pull in [pull for running in self._open.values() for pull in running if pull.last < before]:
            self._end(pull)

    def end(self) -> None:
        """End all pulls: nothing more will come."""
        for pull in [pull for running in self._open.values() for pull in running]:
            self._end(pull)

    def pulls(self) -> Iterator[Pull]:
        """The newest first."""
        return reversed(self._kept.values())

    def pull(self, id: str) -> Pull | None:
        """One by its id."""
        return self._kept.get(id)

    def is_running(self, pull: Pull) -> bool:
        """Whether more may come."""
        return pull in self._open.get(pull.key, ()) and self._seconds() - pull.last < GAP

    def _begin(self, exchange: Exchange, began: float, key: Key) -> Pull:
        pull = Pull(
            id=secrets.token_hex(8),
            client=exchange.client,
            account=exchange.account,
            agent=exchange.agent,
            upstream=exchange.upstream,
            repository=exchange.repository,
            reference=exchange.reference if exchange.kind == "manifests" else None,
            started=began,
            last=exchange.at,
            key=key,
        )
        running = self._open.setdefault(pull.key, [])
        running.append(pull)
        if len(running) > MOST_AT_ONCE:
            self._end(running[0])
        self._kept[pull.id] = pull
        while len(self._kept) > self._ring:
            _, oldest = self._kept.popitem(last=False)
            if oldest in self._open.get(oldest.key, ()):
                self._end(oldest)
        return pull

    def _end(self, pull: Pull) -> None:
        running = self._open[pull.key]
        running.remove(pull)
        if not running:
            del self._open[pull.key]
        pull.key, pull.asker = (None, "", ""), None
        self._finished(pull)


def _belongs(exchange: Exchange, began: float, pull: Pull) -> bool:
    """Whether an answer, to a request that began then, is of this pull."""
    if began - pull.last > GAP or not _may_be_one(exchange.account, pull.asker):
        return False
    if began < pull.started:
        return _led(exchange, began, pull)
    if exchange.kind != "manifests" or ":" in exchange.reference or _ABOUT_A_DIGEST.fullmatch(exchange.reference):
        return True
    if pull.reference != exchange.reference:
        return False
    # A client asks for the tag before it asks for layers; when it asks again for what it was given, it pulls again.
    before = [part for part in pull.parts if part.at - part.seconds <= began]
    return not any(part.kind == "blobs" or _answers(part, exchange) for part in before)


def _led(exchange: Exchange, began: float, pull: Pull) -> bool:
    """Whether a manifest of which a process tells late is what the pull began with.

    A pull that seems to begin with layers, or with a digest where a tag was asked for just before, began with that.
    """
    if exchange.kind != "manifests" or pull.started - began > LATE:
        return False
    named = pull.reference is not None and ":" not in pull.reference
    if named:
        return pull.reference == exchange.reference and not any(_answers(exchange, part) for part in pull.parts)
    return not _ABOUT_A_DIGEST.fullmatch(exchange.reference) and exchange.at <= pull.started + LATE


def _may_be_one(account: str | None, other: str | None) -> bool:
    """Whether two answers may be for one client: before its login it has no account, and its tokens are renewed."""
    if account is None or other is None or account == other:
        return True
    return account.startswith(TOKEN) and other.startswith(TOKEN)


def _answers(part: Exchange, exchange: Exchange) -> bool:
    """Whether an earlier answer already was this content; a GET after a HEAD brings more."""
    same = part.reference == exchange.reference and part.status < 400 and part.whole
    return same and (exchange.head or not part.head)


def nameless(exchange: Exchange) -> Exchange:
    """The same without who asked: no address, no account, no program, no group, no token, no id that it chose."""
    charged: dict[str, int] = {}
    for account, count in exchange.charged.items():
        payer = "" if account.startswith(TOKEN) else account
        charged[payer] = charged.get(payer, 0) + count
    return evolve(
        exchange,
        client=None,
        account=None,
        agent="",
        group="",
        charged=charged,
        request_id=own(exchange.request_id),
        joined=own(exchange.joined),
    )


def to_json(pull: Pull, running: bool) -> dict[str, Any]:
    """A pull for `/pulls.json`."""
    return {
        "id": pull.id,
        "image": pull.image,
        "upstream": pull.upstream,
        "repository": pull.repository,
        "reference": pull.reference,
        "digest": pull.digest,
        "platform": pull.platform,
        "client": pull.client,
        "account": pull.account,
        "agent": pull.agent,
        "started": pull.started,
        "seconds": round(pull.seconds, 3),
        "sent": pull.sent,
        "received": pull.received,
        "answers": pull.answers,
        "running": running,
        "parts": [part.to_json() for part in pull.parts],
    }


def from_json(told: Mapping[str, Any]) -> Pull:
    """The pull of which `to_json` told."""
    return Pull(
        parts=[Exchange.from_json(part) for part in told["parts"]],
        last=told["started"] + told["seconds"],
        **{
            name: told[name]
            for name in (
                "id",
                "client",
                "account",
                "agent",
                "upstream",
                "repository",
                "reference",
                "started",
                "digest",
                "platform",
                "sent",
                "received",
                "answers",
            )
        },
    )
