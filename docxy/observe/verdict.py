"""Why a pull took as long as it did.

Pure.  The law: *a verdict names one cause, and the figures that show it.*  The causes, in the order in which they
go before each other: it was recalled, docxy or the upstream limited it, it failed, and of the waits the one that
took the longest.  A 429 that the client overcame is a wait.  Figures are of the whole pull, of all that ran at
once together.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import evolve, field, frozen

from docxy.observe.exchange import WAITS, Exchange
from docxy.observe.journal import Pull

NOTICED = 0.25
"""The share of a pull's time from which a wait is its cause."""
FAST = 50e6
"""Bytes a second from which a client that took them is no cause: nothing was slow."""
BRIEF = 1.0
"""Seconds up to which docxy's waits say nothing of a pull whose layers the client got elsewhere."""


class Cause(enum.Enum):
    """What a pull waited for most."""

    CACHE = "cache"  # nothing: it came from the cache
    RECALLED = "recalled"  # docxy refused or cut it: the operator ordered that it is not to be pulled
    RESERVED = "reserved"  # docxy answered 429: what is left of the pull limit is kept for others
    LIMITED = "limited"  # the upstream answered 429
    FAILED = "failed"  # an answer was an error, or ended early
    CLIENT = "client"  # the client took its bytes slowly
    UPSTREAM = "upstream"  # the upstream sent its bytes slowly
    RATE = "rate"  # docxy's own limit held the upstream's bytes back
    HEADERS = "headers"  # the upstream took long to answer
    CONNECTION = "connection"  # there was no free connection to the upstream
    LOGIN = "login"  # docxy was slow to check the client's password
    DISK = "disk"  # the cache's disk was slow
    REDIRECTED = "redirected"  # the client was sent to the archive, and docxy cannot see how long that took
    NOTHING = "nothing"  # no wait stands out


@frozen
class Verdict:
    """A cause and its figures."""

    cause: Cause
    upstream: str
    sent: int
    """Bytes."""
    seconds: float
    """Of the pull."""
    waited: float = 0.0
    """Seconds, for the cause; those that a registry asked for where it limits the pull."""
    limit: str = ""
    """What limits it, where that is not the pull limit: `layers`, or `tokens` for the token service."""
    overcome: bool = False
    """Whether the pull waited as long as it was told to, and went through."""
    rate: float | None = None
    """Bytes a second: what the client took, or the upstream sent."""
    archived: bool = False
    """Whether what was waited for most was the archive."""
    redirected: int = 0
    """Layers for which the client was sent to the archive."""
    connections: int = 0
    status: int | None = None
    """Of the answer that failed."""
    error: str = ""
    """What it said; empty where the client went away."""
    resumed: int = 0
    failovers: int = 0
    joined: int = 0
    """Layers whose fetch another client had begun."""
    shares: Mapping[str, float] = field(factory=dict)
    """Seconds of each wait, added over all answers."""


def verdict(pull: Pull) -> Verdict:
    """What to say of a pull, from its parts."""
    parts = pull.parts
    own = {part.request_id for part in parts if part.request_id}
    shares = dict.fromkeys(WAITS, 0.0)
    for part in parts:
        for wait, seconds in part.waits.items():
            shares[wait] += seconds
    found = Verdict(
        cause=Cause.NOTHING,
        upstream=pull.upstream,
        sent=pull.sent,
        seconds=pull.seconds,
        connections=max((part.connections for part in parts), default=0),
        resumed=sum(part.resumed for part in parts),
        failovers=sum(part.failovers for part in parts),
        redirected=sum(part.cache == "redirect" for part in parts),
        joined=sum(bool(part.joined) and part.joined not in own for part in parts),
        shares={name: round(seconds, 3) for name, seconds in shares.items() if seconds > 0},
    )
    recalled = [part for part in parts if part.cache == "recalled"]
    if recalled:
        reason = recalled[-1].error.partition(" is recalled: ")[2]
        return evolve(found, cause=Cause.RECALLED, status=recalled[-1].status, error=reason)
    if any(part.cache == "reserved" for part in parts):
        return evolve(found, cause=Cause.RESERVED, status=429)
    # What docxy itself answers to too many wrong passwords is a failure, which names itself.
    limited = [part for part in parts if part.status == 429 and part.limit != "logins"]
    limits = [part for part in limited if _is_failure(part, parts)]
    if limits:
        asked = max(part.retry_after or 0.0 for part in limits)
        return evolve(found, cause=Cause.LIMITED, waited=asked, status=429, limit=_limit(limits))
    failed = [part for part in parts if _is_failure(part, parts)]
    if not failed and parts and all(part.status >= 400 for part in parts):
        # 401 and 404 belong to many a pull; where there was nothing else, they are what became of it.
        failed = parts
    if failed:
        return evolve(found, cause=Cause.FAILED, status=failed[-1].status, error=failed[-1].error)
    paused = max((_pause(part, parts) for part in limited), default=0.0)
    if paused > 0 and paused >= NOTICED * pull.seconds:
        return evolve(found, cause=Cause.LIMITED, waited=paused, status=429, limit=_limit(limited), overcome=True)
    wait = max(WAITS, key=shares.__getitem__)
    working = sum(part.seconds for part in parts)
    if found.redirected and shares[wait] < BRIEF:
        return evolve(found, cause=Cause.REDIRECTED)
    if shares[wait] > 0 and shares[wait] >= NOTICED * working:
        waiting = [part for part in parts if part.waits.get(wait)]
        rate = _rate(wait, waiting)
        if wait != "client" or rate is None or rate < FAST:
            archived = 2 * sum(part.waits[wait] for part in waiting if part.archived) > shares[wait]
            return evolve(found, cause=Cause(wait), waited=_wall(waiting, wait), rate=rate, archived=archived)
    if parts and all(part.cache in ("hit", "stale", "negative") for part in parts):
        return evolve(found, cause=Cause.CACHE)
    return found


def _is_failure(part: Exchange, parts: list[Exchange]) -> bool:
    """Whether an answer failed and no later one for the same made up for it; 401 and 404 belong to many a pull."""
    if part.whole and (part.status < 400 or part.status in (401, 404, 405, 416)):
        return False
    return _made_up(part, parts) is None


def _made_up(part: Exchange, parts: list[Exchange]) -> Exchange | None:
    """The first later answer for the same that went well."""
    well = (
        other
        for other in parts
        if other.at > part.at and other.reference == part.reference and other.whole and other.status < 400
    )
    return min(well, key=lambda other: other.at, default=None)


def _pause(part: Exchange, parts: list[Exchange]) -> float:
    """Seconds from an answer that failed to the request that made up for it."""
    later = _made_up(part, parts)
    return 0.0 if later is None else max(0.0, later.at - later.seconds - part.at)


def _limit(parts: list[Exchange]) -> str:
    """What limits these: the pull limit (empty) where it is that of one of them."""
    limits = {part.limit or ("layers" if part.kind == "blobs" else "") for part in parts}
    return min(limits)


def _wall(parts: list[Exchange], wait: str) -> float:
    """Seconds of a wait, those of answers that ran at once not added up: at most as long as they took together."""
    if not parts:
        return 0.0
    span = max(part.at for part in parts) - min(part.at - part.seconds for part in parts)
    return min(span, sum(part.waits[wait] for part in parts))


def _rate(wait: str, parts: list[Exchange]) -> float | None:
    """Bytes a second over the time in which the answers that waited ran."""
    if wait not in ("client", "upstream", "rate"):
        return None
    span = max(part.at for part in parts) - min(part.at - part.seconds for part in parts)
    count = sum(part.sent if wait == "client" else part.received or part.sent for part in parts)
    return count / span if span > 0 else None


def words(told: Verdict) -> str:
    """In English, one line."""
    name = told.upstream
    bytes_in = f"{amount(told.sent)} in {duration(told.seconds)}"
    if told.cause is Cause.LIMITED:
        wait = f", {'waited' if told.overcome else 'wait'} {duration(told.waited)}" if told.waited else ""
        if told.limit == "tokens":
            return f"the token service of {name} answered 429: it limits requests{wait}"
        if told.limit == "layers":
            return f"{name} answered 429 for a layer: it limits requests{wait}"
        return f"{name} answered 429: its pull limit is used up{wait}"
    if told.cause is Cause.RECALLED:
        return f"recalled: {told.error}"
    if told.cause is Cause.RESERVED:
        return f"what is left of the pull limit of {name} is kept for others"
    if told.cause is Cause.FAILED:
        why = f": {told.error}" if told.error else ""
        if told.status and told.status >= 400:
            return f"failed with status {told.status}{why}"
        return f"broke off{why}" if why else "the client broke off"
    after = "".join(
        (
            f"; resumed {_times(told.resumed)}" if told.resumed else "",
            f"; failed over {_times(told.failovers)}" if told.failovers else "",
            _joined(told.joined),
        )
    )
    if told.cause is Cause.CLIENT and told.rate is not None:
        return f"the client took {amount(told.rate)}/s{after}"
    if told.cause is Cause.UPSTREAM and told.rate is not None:
        if told.archived:
            return f"the archive sent {amount(told.rate)}/s{after}"
        over = f" over {told.connections} connections" if told.connections > 1 else ""
        return f"{name} sent {amount(told.rate)}/s{over}{after}"
    if told.cause is Cause.RATE and told.rate is not None:
        sender = "the archive" if told.archived else name
        return f"docxy's own limit (max_rate) let {sender} send {amount(told.rate)}/s{after}"
    if told.cause is Cause.HEADERS:
        # Docxy asks both: the registry says whether the repository has it.
        sender = f"{name} or the archive" if told.archived else name
        return f"{sender} took {duration(told.waited)} to answer{after}"
    if told.cause is Cause.CONNECTION:
        return f"waited {duration(told.waited)} for a free connection to {name}{after}"
    if told.cause is Cause.LOGIN:
        return f"the check of the password took {duration(told.waited)}{after}"
    if told.cause is Cause.DISK:
        return f"the cache's disk took {duration(told.waited)}{after}"
    if told.cause is Cause.REDIRECTED:
        layers = "a layer" if told.redirected == 1 else f"{told.redirected} layers"
        return f"the client got {layers} from the archive itself, which docxy does not measure{after}"
    if told.cause is Cause.CACHE:
        return f"from the cache, {bytes_in}"
    return f"{bytes_in}{after}"


def _joined(count: int) -> str:
    if not count:
        return ""
    return "; joined a fetch of another client" if count == 1 else f"; joined {count} fetches of other clients"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def amount(count: float) -> str:
    """Bytes for people: `2.0 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # which is 1.0 of the next
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people: `20 ms`, `0.2 s`, `12 s`, `3 min`, `5 h`, `14 days`."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
