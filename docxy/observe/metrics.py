"""What is counted, and who counts it.

The law: nothing that is counted names a client, a repository or a query; labels have few values,
which the operator's configuration and this module give.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache

from attrs import frozen
from twisted.web.http import Request
from zope.interface import Interface, implementer

LEFT, CUT = "left", "cut"
"""How a request ended that was not answered whole: its client left, or docxy cut the answer off, which it says why."""
REQUESTS, FIRST_BYTE = "docxy_request_seconds", "docxy_first_byte_seconds"
"""Histograms, and the seconds up to which their buckets go."""
REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0)
"""From what the memory answers to a large layer over a slow line."""
FIRST_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)


@frozen
class AnswerLabels:
    """What tells one counted answer from another."""

    upstream: str
    """Its name; empty where none was meant."""
    kind: str
    """`manifests`, `blobs`, `tags`, `referrers`, `_catalog`, `ping`, `export`, `token`, `health` or `other`."""
    status: int
    cache: str
    """Where it came from: `hit`, `miss`, `collapsed`, `stale`, `revalidated`, `negative`, `bypass`, `offline-token`,
    `recalled`;
    empty where the cache has no part in it."""
    ended: str = ""
    """How it ended before all of it was answered: `LEFT` or `CUT`; empty where it was."""

    @property
    def status_label(self) -> str:
        """Its status; an answer that nobody got has none."""
        return self.ended or str(self.status)


def answered(request: Request, ended: str = "") -> AnswerLabels:
    """What a request was that is over; `ended`: see `AnswerLabels`."""
    upstream, kind = getattr(request, "about", None) or ("", _KINDS.get(request.path, "other"))
    target = getattr(request, "target", None)
    if target is not None:
        # Registries that only clients name are without end, and count as one.
        upstream = target.upstream.label
    return AnswerLabels(upstream, kind, request.code, cache_word(getattr(request, "cache_status", "")), ended)


def unanswered(error: str) -> str:
    """How a request ended that was not answered whole; `error`: what docxy says of it, empty where it did nothing."""
    return CUT if error else LEFT


def outcome(what: AnswerLabels) -> str:
    """How it ended: `left`, `cut`, `failed` (5xx), `refused` (4xx), else where it came from, or `ok`."""
    if what.ended:
        return what.ended
    if what.status >= 400:
        return "failed" if what.status >= 500 else "refused"
    return what.cache or "ok"


def status_label(status: int | None) -> str:
    """Of an upstream's response, which may have any number for a status; None: there was no response."""
    if status is None:
        return "none"
    return str(status) if 100 <= status <= 599 else "invalid"


_KINDS = {b"/health": "health", b"/ready": "health", b"/startup": "health", b"/auth/token": "token"}
_KEPT = frozenset({"as-of", "cooldown", "cooldown-new", "cooldown-observed", "frozen"})
"""Details that say why it is this content, not where it came from."""
_FORWARDED = {"stale": "revalidated"}


@lru_cache(1024)
def cache_word(cache_status: str) -> str:
    """The word for a `Cache-Status` that docxy sent (RFC 9211)."""
    _, *parts = cache_status.split("; ")
    told = dict(part.partition("=")[::2] for part in parts)
    detail = told.get("detail", "")
    if detail in _KEPT:
        detail = ""
    if "hit" in told:
        return "stale" if detail.startswith("stale-") else detail or "hit"
    if "collapsed" in told:
        return "collapsed"
    forwarded = told.get("fwd", "")
    return _FORWARDED.get(forwarded, forwarded) or detail


class Count(Enum):
    """What processes count where no meter is."""

    RESUMED = "resumed"
    """Fills that went on after the upstream broke off; by upstream."""
    FAILED_OVER = "failed over"
    """Requests that another endpoint than the preferred one answered; by upstream."""
    TOKENS = "tokens"
    """Answers of an upstream's token service; by upstream and outcome, `granted` or `refused`."""
    SPENT = "spent"
    """Pulls that count against the limit of one of docxy's accounts; by upstream and account."""
    COOLED = "cooled"
    """Manifests that were too young; by upstream and what was answered: `older`, `served`, `observed` or `denied`."""
    EVICTED = "evicted"
    """Blobs that were removed from the cache to make room."""
    EVICTED_BYTES = "evicted bytes"
    SCRUBBED = "scrubbed"
    """Cached blobs that were hashed again; by outcome, `sound` or `damaged`."""
    ARCHIVED = "archived"
    """What the archive was asked: by `read`, `record`, `link` or `put`, and what came of it."""


class IMeter(Interface):
    """Counts."""

    def answered(what: AnswerLabels, sent: int, seconds: float | None, first_byte: float | None) -> None:
        """A request is over; `sent`: bytes of the body.

        `seconds`: from the request's head to the answer's end; None for an answer without an end of its own.
        `first_byte`: from there to the first byte of a blob; None for anything else.
        """

    def fetched(upstream: str, status: int | None, seconds: float) -> None:
        """An upstream answered after `seconds`, redirects followed; status None: it did not."""

    def received(upstream: str, count: int) -> None:
        """`count` bytes of a body came from an upstream."""

    def allowed(upstream: str, account: str, limit: int, remaining: int) -> None:
        """An upstream told how many pulls it allows one of docxy's accounts, and how many are left."""

    def counted(what: Count, labels: Sequence[str], total: int) -> None:
        """What this process has counted since its start."""

    def reachable(upstream: str, backing_off: bool, limited: bool) -> None:
        """Whether docxy asks none of an upstream's endpoints, as all failed; whether a 429 of every account holds."""

    def certified(until: float) -> None:
        """The certificate that is served ends then, in seconds since the epoch."""

    def renewing(failures: int, due: float | None) -> None:
        """docxy gets its own certificate: failures in a row; when it is to be renewed, in seconds since the epoch."""

    def sampled(requests: int, connections: int, fills: int) -> None:
        """What this process is at."""

    def kept(used: int, budget: int, free: int) -> None:
        """Bytes in the cache, which can be used; bytes there may be; bytes that its disk has free."""

    def failing() -> None:
        """The cache that there should be cannot be used."""

    def archived(usable: bool, waiting: int | None) -> None:
        """Whether the archive answers; `waiting`: blobs that are not there yet, None where another process counts."""


@implementer(IMeter)
class NoMeter:
    """Counts nothing."""

    def answered(self, what: AnswerLabels, sent: int, seconds: float | None, first_byte: float | None) -> None:
        return

    def fetched(self, upstream: str, status: int | None, seconds: float) -> None:
        return

    def received(self, upstream: str, count: int) -> None:
        return

    def allowed(self, upstream: str, account: str, limit: int, remaining: int) -> None:
        return

    def counted(self, what: Count, labels: Sequence[str], total: int) -> None:
        return

    def reachable(self, upstream: str, backing_off: bool, limited: bool) -> None:
        return

    def certified(self, until: float) -> None:
        return

    def renewing(self, failures: int, due: float | None) -> None:
        return

    def sampled(self, requests: int, connections: int, fills: int) -> None:
        return

    def kept(self, used: int, budget: int, free: int) -> None:
        return

    def failing(self) -> None:
        return

    def archived(self, usable: bool, waiting: int | None) -> None:
        return
