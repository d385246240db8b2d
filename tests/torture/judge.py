"""Whether what a client got is right, excusable, or a mark against the daemon.

Pure: the heart of the programme.  The law:

- What looks whole must be the known bytes, and what is said of it (size, digest, range) must be true,
  whatever the upstream did.  Excused is a range of a blob that the upstream corrupted, or
  lied about the length of, while it was being fetched: a part cannot be checked before the whole is here.
- A failure must have a cause that the daemon could not heal: it was killed, or one of the upstream's servers failed
  the same question as often as the daemon had to ask, or in a way that nothing heals.  The registry and its token
  service are two servers: what one failed excuses nothing of the other.
- No fault of the upstream makes a thing that is there unknown, denied or malformed.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from tests.torture.faults import KINDS, Heals, Kind
from tests.torture.library import Thing

ENDPOINTS = ("a", "b")
"""Those that stand in for each other."""
STORES = ("cdn",)
"""Where both redirect to."""
LIMITED = 5.0
"""Seconds for which a 429 of the upstream may still be told to clients: its Retry-After, rounded up, twice."""
LOOK_BACK = 20.0
"""Seconds before a request within which what the upstream did may still be its cause: clients share
fetches, and an upstream that failed is left alone for a while."""


LEFT_ALONE = 3.0
"""Seconds after its 429 for which an endpoint may be left alone: the one of its Retry-After, and what the
answer takes to be read on a machine that is busy."""


@frozen
class Refusal:
    """A 429 that the upstream gave to whatever request."""

    endpoint: str
    at: float


TOKEN = "token "
"""How the key of a request to the token service begins; the repository follows."""


@frozen
class Attempt:
    """One request that the upstream saw.  Times are of the monotonic clock, which all processes share."""

    key: str
    endpoint: str
    started: float
    ended: float
    fault: str | None
    method: str = "GET"

    @property
    def question(self) -> tuple[str, str]:
        """What is asked again when it failed, at whichever endpoint."""
        return self.method, self.key

    @property
    def is_token(self) -> bool:
        """Whether the token service was asked, not the registry."""
        return self.key.startswith(TOKEN)


@frozen
class Outcome:
    """What came of one request of a client's."""

    method: str
    thing: Thing
    asked: tuple[int, int | None] | None
    """The range: first byte, and last byte unless it is open."""
    started: float
    ended: float
    status: int | None = None
    """None: no answer."""
    headers: dict[str, str] = field(factory=dict)
    """Names in lower case."""
    received: int = 0
    """Bytes of body."""
    right: bool = True
    """Whether they are those of the thing (from the range's first byte on), as far as they go."""
    whole: bool = False
    """Whether the body ended as HTTP says that a whole one ends."""
    left: bool = False
    """Whether the client itself went away."""
    error: str = ""
    timed_out: bool = False

    @property
    def hit(self) -> bool:
        """Whether the daemon says that this is from the cache, and so was verified."""
        return "hit" in self.headers.get("cache-status", "").split("; ")


@frozen
class Situation:
    """What else is known about the time of a request."""

    attempts: Sequence[Attempt] = ()
    """All that the upstream saw for the thing, as it was asked for, and for its repository's tokens, in the order of
    their ends."""
    endpoints: int = 1
    disturbed: str = ""
    """What was done to the daemon meanwhile (killed, stopped), if that excuses a broken connection."""
    off: bool = False
    """Whether all of the upstream was down for a part of the time, so that only what is cached can come."""
    others: Sequence[Thing] = ()
    """Other manifests that the tag may point to at this time."""
    given: bool = False
    """Whether somebody got the manifest from this daemon before, so that its length is known."""
    slow: bool = False
    """Whether the upstream stood still, at this time or shortly before, so that the daemon may have given it up."""
    refusals: Sequence[Refusal] = ()
    """All of them since a while before the request."""


@frozen
class Verdict:
    """`mark`: a name of `marks.NAMES`; `excuse`: why a failure is none.  Both empty: all is right."""

    mark: str = ""
    excuse: str = ""
    why: str = ""


RIGHT = Verdict()


def judge(outcome: Outcome, situation: Situation) -> Verdict:
    """The verdict on one request."""
    if outcome.timed_out:
        return Verdict("hangs", why=f"no end after {outcome.ended - outcome.started:.1f} s")
    if outcome.status == 500:
        return Verdict("500s", why="status 500")
    if outcome.status in (200, 206):
        untrue = _untrue(outcome, situation)
        if untrue:
            if outcome.status == 206 and not outcome.hit and _corrupted(outcome, situation):
                return Verdict(excuse="a range of a blob that the upstream corrupted")
            if _only_passed_on(outcome, situation):
                return Verdict(excuse="a HEAD that the upstream lied to, of a manifest that nobody had yet")
            return Verdict("wrong", why=untrue)
        if outcome.whole or outcome.left:
            return RIGHT
    return _failure(outcome, situation)


def _untrue(outcome: Outcome, situation: Situation) -> str:
    """What an answer that looks whole, or the head of any good answer, says that is not so."""
    thing, headers = outcome.thing, outcome.headers
    candidates = [thing, *situation.others]
    told_digest = headers.get("docker-content-digest")
    if told_digest is not None and all(told_digest != each.digest for each in candidates):
        return f"Docker-Content-Digest is {told_digest}"
    told = headers.get("content-length")
    if outcome.hit and not outcome.right:
        return f"wrong bytes from the cache, among {outcome.received}"
    if outcome.status == 206:
        return _untrue_range(outcome)
    if outcome.whole and not outcome.right:
        return f"{outcome.received} bytes are whole and not those of {thing.digest}"
    sizes = {each.size for each in candidates}
    if told is not None and int(told) not in sizes and (outcome.method == "HEAD" or outcome.whole):
        return f"Content-Length is {told}, not {thing.size}"
    if outcome.method != "HEAD" and outcome.whole and outcome.received not in sizes:
        return f"a whole body of {outcome.received} bytes, not {thing.size}"
    if thing.media_type is not None and headers.get("content-type") != thing.media_type:
        return f"Content-Type is {headers.get('content-type')}, not {thing.media_type}"
    return ""


def _untrue_range(outcome: Outcome) -> str:
    size = outcome.thing.size
    assert outcome.asked is not None, "only who asks for a range gets one"
    first, last = outcome.asked
    stop = size if last is None else min(size, last + 1)
    due = f"bytes {first}-{stop - 1}/{size}"
    if outcome.headers.get("content-range") != due:
        return f"Content-Range is {outcome.headers.get('content-range')}, not {due}"
    if outcome.whole and outcome.received != stop - first:
        return f"a whole range of {outcome.received} bytes, not {stop - first}"
    if outcome.whole and not outcome.right:
        return "a whole range of wrong bytes"
    return ""


def _recent(outcome: Outcome, situation: Situation) -> list[Attempt]:
    since = outcome.started - LOOK_BACK
    return [each for each in situation.attempts if each.ended >= since and each.started <= outcome.ended]


def _corrupted(outcome: Outcome, situation: Situation) -> bool:
    """Whether the upstream sent wrong bytes of it, or, if these are right, a wrong length."""
    kinds = [KINDS[each.fault] for each in _recent(outcome, situation) if each.fault is not None]
    return any(kind.corrupts or (kind.lies and outcome.right) for kind in kinds)


def _only_passed_on(outcome: Outcome, situation: Situation) -> bool:
    """Whether a HEAD's answer is the upstream's word, and nothing better can be known."""
    passed_on = outcome.method == "HEAD" and not situation.given
    lied = any(each.fault is not None and KINDS[each.fault].lies for each in _recent(outcome, situation))
    return passed_on and lied and outcome.thing.kind == "manifests"


def _failure(outcome: Outcome, situation: Situation) -> Verdict:
    """A client got an error or half a body: is there a cause that could not be healed?"""
    if situation.disturbed and (outcome.status is None or not outcome.whole):
        return Verdict(excuse=situation.disturbed)
    if situation.off:
        return Verdict(excuse="all of the upstream was down")
    what = f"status {outcome.status}" if outcome.status else "no answer"
    what += f", {outcome.received} bytes, {outcome.error}" if not outcome.whole else ""
    if outcome.status == 429 and _limited(outcome, situation):
        return Verdict(excuse="the upstream limits requests")
    if situation.slow:
        return Verdict(excuse="the machine stood still")
    if outcome.status is not None and 300 <= outcome.status < 500 and not _passed_on(outcome, situation):
        return Verdict("unexplained", why=f"{what}, of a thing that is there")
    runs = _runs_of_faults(outcome, situation)
    faulty = [each for run in runs for each in run]
    if not faulty:
        return Verdict("unexplained", why=what)
    named = ", ".join(f"{each.fault} at {each.endpoint}" for each in faulty)
    grave = [run for run in ([each for each in run if not _kind(each).harmless] for run in runs) if run]
    if not grave:
        return Verdict("unexplained", why=f"{what}; the upstream was unusual, not wrong: {named}")
    if any(len(run) > 1 for run in grave):
        return Verdict(excuse="the upstream failed again and again")
    for (attempt,) in grave:
        heals = _heals(attempt, outcome)
        if heals is Heals.ELSEWHERE and situation.endpoints > 1 and _must_not_ask_another(attempt, situation):
            return Verdict(excuse="the other endpoint limits requests")
        if heals is not Heals.RETRY and (heals is Heals.NOTHING or situation.endpoints == 1):
            return Verdict(excuse=f"nothing heals {attempt.fault}")
    return Verdict("healable", why=f"{what}; the upstream did wrong once: {named}")


def _kind(attempt: Attempt) -> Kind:
    return KINDS[attempt.fault or ""]


def _heals(attempt: Attempt, outcome: Outcome) -> Heals:
    if attempt.is_token:
        # No other token service stands in for it, so it is asked again itself.
        return Heals.RETRY
    heals = _kind(attempt).heals
    if heals is Heals.NOTHING and outcome.thing.kind == "manifests":
        # It is read and checked before any byte of it goes out.
        return Heals.ELSEWHERE
    return heals


def _refused(outcome: Outcome, situation: Situation) -> set[str]:
    """Who said 429 a moment ago, to whatever request."""
    since = outcome.started - LIMITED
    return {each.endpoint for each in situation.refusals if since < each.at <= outcome.ended}


def _limited(outcome: Outcome, situation: Situation) -> bool:
    """Whether each endpoint said 429 a moment ago, or the store behind all of them."""
    refused = _refused(outcome, situation)
    return not refused.isdisjoint(STORES) or refused.issuperset(ENDPOINTS[: situation.endpoints])


def _passed_on(outcome: Outcome, situation: Situation) -> bool:
    """Whether the upstream said so too: 429, or told a wrong end, behind which a range begins."""
    if outcome.status == 429:
        return bool(_refused(outcome, situation))
    lied = any(each.fault is not None and _kind(each).lies for each in _recent(outcome, situation))
    return outcome.status == 416 and outcome.asked is not None and lied


def _must_not_ask_another(attempt: Attempt, situation: Situation) -> bool:
    """Whether the other endpoint, when this attempt failed, had asked to be left alone."""
    return any(
        each.endpoint in ENDPOINTS
        and each.endpoint != attempt.endpoint
        and each.at <= attempt.ended < each.at + LEFT_ALONE
        for each in situation.refusals
    )


def _runs_of_faults(outcome: Outcome, situation: Situation) -> list[list[Attempt]]:
    """For each question the faults that the upstream made in a row, up to the end of the request.

    A good answer in between ends the run, unless it began before the fault's: parts of one blob come
    over several connections at once.  A token that came before the registry's last fault heals those before it.
    """
    runs: dict[tuple[str, str], list[Attempt]] = {}
    over: set[tuple[str, str]] = set()
    recent = _recent(outcome, situation)
    last = max((each.started for each in recent if each.fault is not None and not each.is_token), default=0.0)
    for each in reversed(recent):
        if each.question in over:
            continue
        run = runs.setdefault(each.question, [])
        if each.fault is not None:
            run.append(each)
            continue
        healed = each.is_token and not run and each.ended <= last
        if healed or (run and each.ended < min(outcome.started, *(fault.started for fault in run))):
            over.add(each.question)
    return list(runs.values())
