"""What an answered request was, for the read model.

The law: it is made from what the request holds already; it waits for nothing and fails at nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from docxy.observe.exchange import CHARGES, TOKEN, Exchange, clipped
from docxy.observe.metrics import cache_word
from docxy.observe.trail import Fetched
from docxy.routing import EndpointKind
from docxy.web.request import Request

KINDS = (EndpointKind.MANIFESTS, EndpointKind.BLOBS)
"""What pulls are made of."""
_FROM_CACHE = ("hit", "stale", "negative", "pass")
_NOTICED = 0.001
"""Seconds; shorter waits are not told."""


def is_told(request: Request) -> bool:
    """Whether it is part of a pull, or the upstream counts what it took as one."""
    target = request.target
    return target is not None and (target.kind in KINDS or bool(request.charges))


def is_hit(request: Request) -> bool:
    """Whether it went as most do: all of it came from the cache, nobody pays, and it says nothing new of platforms."""
    from_cache = request.code < 400 and cache_word(request.cache_status) == "hit"
    return from_cache and request.is_whole and not request.charges and not request.platforms


def exchange_of(request: Request, address: str, now: Callable[[], float], epoch: float) -> Exchange:
    """For a request that is to be told.

    `address`: the client's; `now`: the clock that `request.started` is of; `epoch`: the time in seconds since the
    epoch.
    """
    target = request.target
    assert target is not None
    ended = now()
    cache = cache_word(request.cache_status)
    seconds = max(0.0, ended - request.started)
    first = None if request.headed is None else max(0.0, request.headed - request.started)
    fetched = request.fetched
    waits = {name: round(waited, 4) for name, waited in _waits(request, cache, seconds, first).items()}
    is_blob = target.kind is EndpointKind.BLOBS
    received = 0
    if request.code < 400 and cache in ("miss", "bypass") and request.method != b"HEAD":
        received = (request.size or request.sentLength) if fetched is None else fetched.received
    return Exchange(
        at=epoch,
        seconds=round(seconds, 4),
        kind="blobs" if is_blob else "manifests",
        upstream=target.upstream.name,
        repository=target.repository,
        reference=target.reference,
        status=request.code,
        cache=cache,
        head=request.method == b"HEAD",
        digest=target.reference if is_blob else request.digest,
        size=request.size,
        sent=request.sentLength,
        whole=request.is_whole,
        first_byte=None if first is None else round(first, 4),
        client=address,
        account=_account(request),
        agent=clipped(request.getHeader("User-Agent") or ""),
        platforms=dict(request.platforms),
        received=received,
        archived=_is_archived(request, fetched),
        connections=0 if fetched is None else fetched.connections,
        resumed=0 if fetched is None else fetched.resumed,
        failovers=request.failovers + (0 if fetched is None else fetched.failovers),
        retry_after=request.retry_after,
        limit=request.limit,
        waits=waits,
        charged=_charged(request),
        group=request.group,
        request_id=request.request_id,
        joined=_joined(request, fetched, cache),
        error=request.error,
    )


def late_charge(request: Request, account: str | None, epoch: float) -> Exchange:
    """For a counted request to the upstream that was made when its request was over; `epoch`: as for `exchange_of`."""
    target = request.target
    assert target is not None
    return Exchange(
        at=epoch,
        seconds=0.0,
        kind=CHARGES,
        upstream=target.upstream.name,
        repository=target.repository,
        reference=target.reference,
        status=request.code,
        cache="",
        charged={_payer(request, account): 1},
        group=request.group,
    )


def _is_archived(request: Request, fetched: Fetched | None) -> bool:
    """Whether the archive gave it, to this request or to the one whose fetch it joined, or is to give it."""
    details = ("detail=archive", "detail=redirect")
    return (fetched is not None and fetched.archived) or request.cache_status.endswith(details)


def _joined(request: Request, fetched: Fetched | None, cache: str) -> str:
    """Whose fetch it joined, told only to those who may know of it: of another repository nothing is said."""
    target = request.target
    if fetched is None or target is None or cache != "collapsed":
        return ""
    return fetched.request_id if fetched.about == (target.upstream.name, target.repository) else ""


def _waits(request: Request, cache: str, seconds: float, first: float | None) -> dict[str, float]:
    """What it waited for, in seconds; what is before the first byte is the upstream's, or for a connection to it."""
    waits = dict(request.waits)
    if request.fetched is not None:
        # A request that joined the fetch later did not wait longer than it lasted.
        waits["connection"] = waits.get("connection", 0.0) + request.fetched.connecting
        waits["rate"] = waits.get("rate", 0.0) + request.fetched.slowed
    # Who waits for bytes cannot tell which of it the upstream took, and which docxy's own limit.
    slowed = waits["rate"] = min(waits.get("rate", 0.0), waits.get("upstream", 0.0))
    waits["upstream"] = waits.get("upstream", 0.0) - slowed
    before = seconds if first is None else first
    login = waits["login"] = before if request.checked is None else min(request.checked, before)
    before -= login
    if cache in _FROM_CACHE and "upstream-failed" not in request.cache_status:
        before = 0.0
    connecting = waits["connection"] = min(waits.get("connection", 0.0), before)
    waits["headers"] = before - connecting
    return {name: waited for name, waited in waits.items() if waited >= _NOTICED}


def _account(request: Request) -> str | None:
    """Docxy's own name for who asked."""
    if request.account is not None or request.token is None:
        return request.account
    return f"{TOKEN}{request.token}"


def _charged(request: Request) -> dict[str, int]:
    """Who paid; a client that paid itself is called as its account is."""
    return {_payer(request, account): count for account, count in request.charges.items()}


def _payer(request: Request, account: str | None) -> str:
    return (_account(request) or "") if account is None else account
