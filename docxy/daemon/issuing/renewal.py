"""Gets docxy's certificate when there is none, renews it in time, and tries again after failures.

The laws: *the certificate in use stays until a better one is on the disk, whole and tried*; *an issuer is
never pressed*: after each failure the pause grows, a restart does not shorten it, and what the issuer asks
for counts; one process of all that share the directory does it.

Nothing is kept in memory that another process needs: all of them see the files change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from docxy.daemon.certificates import KeyPair, load, make_pair
from docxy.daemon.issuing.issuer import IIssuer, IssueError, RenewalPlan
from docxy.daemon.issuing.standing import CertificateStanding
from docxy.daemon.issuing.state import IssuingRecord, StateDirectory
from docxy.daemon.reloads import Reloaded
from docxy.settings.model import ConfigError
from docxy.threads import InThread

FIRST_PAUSE, LONGEST_PAUSE = 120.0, 3600.0
"""Seconds after a failure; Let's Encrypt takes five failed validations of a name an hour."""
JITTER = 0.25
"""By this part at most a pause is longer: many mirrors may have failed at once."""
LONGEST_ASKED = 24 * 3600.0
"""Seconds of an issuer's Retry-After that are heeded."""
SHORTEST_TERM = 24 * 3600.0
"""Seconds, but no more than a tenth of its life, for which a new certificate stays, due or not."""
LONGEST_SLEEP = 3600.0
"""Seconds until docxy looks at its clock again: clocks are set, machines sleep."""
BUSY_PAUSE = 60.0
"""Seconds until docxy looks again at what another docxy does in the same directory."""


def pause(failures: int, asked: float, random: Callable[[], float]) -> float:
    """Seconds to wait after this many failures in a row; `asked`: by the issuer; `random`: from 0 to 1."""
    grown = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE)
    return max(grown, min(asked, LONGEST_ASKED)) * (1 + JITTER * random())


def standing_pair(state: StateDirectory) -> KeyPair | None:
    """What the state directory holds; None for nothing that can be served.  Blocks."""
    try:
        return load(state.certificate, state.certificate)
    except ConfigError:
        return None


def fits(pair: KeyPair, names: Sequence[str]) -> bool:
    """Whether a certificate covers exactly these names: a name that was taken away is not served on."""
    return set(names) == {*pair.dns_names, *pair.addresses}


def obtain(
    issuer: IIssuer, state: StateDirectory, names: Sequence[str], now: float, before: RenewalPlan | None = None
) -> tuple[RenewalPlan, bool]:
    """Renew the certificate if it is due; blocks.

    `before`: what came of it the last time.  A server names a span of time, out of which a moment is drawn; one that
    was drawn anew at each look would come later and later.

    Returns when to renew it, and whether it is new.  Raises IssueError, Busy, OSError.
    """
    plan = _plan(issuer, state, names, now)
    if plan is not None and before is not None and before.issued == plan.issued:
        plan = evolve(plan, renew=min(plan.renew, before.renew))
    if plan is not None and now < plan.renew:
        return plan, False
    with state.alone() as alone:
        if not alone:
            raise Busy
        again = _plan(issuer, state, names, now)
        if again is not None and now < again.renew and (plan is None or again.issued != plan.issued):
            return again, False  # another docxy was faster
        pem = issuer.issue()
        try:
            pair = make_pair(state.certificate, state.certificate, (pem, pem))
        except ConfigError as error:
            raise IssueError(f"{issuer.source} issued what cannot be served: {error}") from None
        missing = sorted(set(names) - {*pair.dns_names, *pair.addresses})
        if missing or not pair.begins.timestamp() - 3600 <= now < pair.expires.timestamp():
            what = f"that does not cover {', '.join(missing)}" if missing else "that is not valid now"
            raise IssueError(f"{issuer.source} issued a certificate {what}: check the clock of this machine")
        state.write(state.certificate, pem)
        state.remember(IssuingRecord(issuer.source, issued=now))
        plan = _plan(issuer, state, names, now)
        assert plan is not None
        return plan, True


def _plan(issuer: IIssuer, state: StateDirectory, names: Sequence[str], now: float) -> RenewalPlan | None:
    """When to renew what is there; None where there is nothing fit to be served on."""
    pair, record = standing_pair(state), state.record()
    if pair is None or not fits(pair, names) or record.source not in ("", issuer.source):
        return None
    plan = issuer.plan(pair.pem[0], pair, now)
    life = pair.expires.timestamp() - pair.begins.timestamp()
    soonest = record.issued + min(SHORTEST_TERM, life / 10) if record.issued <= now else 0.0
    return RenewalPlan(max(plan.renew, soonest), plan.look, record.issued)


def tidy(state: StateDirectory) -> None:
    """Answer no challenge that an order left open which ended with its process; blocks.  Raises OSError."""
    with state.alone() as alone:
        if alone:
            state.withdraw()


class Busy(Exception):
    """Another docxy gets a certificate in this directory."""


class Renewal(Service):
    """Runs in one process."""

    _log = Logger()

    def __init__(
        self,
        issuer: IIssuer,
        state: StateDirectory,
        names: Sequence[str],
        issued: Callable[[], object],
        in_thread: InThread,
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        """`issued`: called when a new certificate is on the disk; `clock`: tells the time since the epoch."""
        self._issuer = issuer
        self._state = state
        self._names = names
        self._issued = issued
        self._in_thread = in_thread
        self._clock = clock
        self._random = random
        self._plan: RenewalPlan | None = None
        self._call: IDelayedCall | None = None
        self._working = False
        self.standing = CertificateStanding(issuer.source, names)

    def startService(self) -> None:
        Service.startService(self)
        self._turn()

    def stopService(self) -> None:
        """A thread that waits for an issuer is left alone: what it writes is whole or nothing."""
        Service.stopService(self)
        if self._call is not None and self._call.active():
            self._call.cancel()

    def at_once(self) -> Sequence[Reloaded]:
        """The operator asks: after a failure, wait no longer."""
        if self._working or not self.running or self.standing.record.failures == 0:
            return []
        self.standing = evolve(self.standing, record=evolve(self.standing.record, due=0.0))
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._turn(asked=True)
        return [Reloaded("own certificate", True, f"asking {self._issuer.source} again")]

    def _turn(self, asked: bool = False) -> None:
        self._working = True
        Deferred.fromCoroutine(self._work(asked)).addBoth(self._rest)

    def _rest(self, sleep: Any) -> None:
        self._working = False
        if not isinstance(sleep, float):
            self._log.failure("looking after the certificate failed", sleep)
            sleep = LONGEST_SLEEP
        if self.running:
            self._call = self._clock.callLater(min(max(1.0, sleep), LONGEST_SLEEP), self._turn)

    async def _work(self, asked: bool) -> float:
        """Look, and act where something is due; returns seconds until the next look."""
        now = self._clock.seconds()
        if self._plan is not None and now < min(self._plan.renew, self._plan.look):
            return min(self._plan.renew, self._plan.look) - now
        record = await self._in_thread(self._state.record)
        if record.source not in ("", self._issuer.source):
            record = IssuingRecord()  # another issuer's failures
        # A clock that was set back would put it off.
        if not asked and record.failures and now < record.due <= now + LONGEST_ASKED * (1 + JITTER):
            self.standing = evolve(self.standing, record=record)
            return record.due - now
        try:
            if self._plan is None:
                await self._in_thread(tidy, self._state)
            plan, is_new = await self._in_thread(obtain, self._issuer, self._state, self._names, now, self._plan)
        except Busy:
            return BUSY_PAUSE
        except IssueError as error:
            return await self._failed(record, str(error), error.pause)
        except OSError as error:
            why = f"cannot write to {self._state.directory}: {error.strerror or error}"
            return await self._failed(record, why, 0.0)
        self._plan = plan
        if record.failures and not is_new:  # another docxy got it
            await self._in_thread(self._state.remember, evolve(record, failures=0, error=""))
        self.standing = evolve(self.standing, renews=plan.renew, record=IssuingRecord(self._issuer.source))
        if is_new:
            self._log.info("got a certificate for {names} from {source}", names=self._shown, source=self._issuer.source)
            self._issued()
        return min(plan.renew, plan.look) - now

    async def _failed(self, record: IssuingRecord, why: str, asked: float) -> float:
        now = self._clock.seconds()
        wait = pause(record.failures + 1, asked, self._random)
        record = evolve(
            record,
            source=self._issuer.source,
            failures=record.failures + 1,
            due=now + wait,
            error=why[:1000],
            failed=now,
        )
        self.standing = evolve(self.standing, record=record)
        await self._in_thread(self._state.remember, record)
        self._log.error(
            "no new certificate for {names}: {why}; {meanwhile}; docxy tries again in {minutes:.0f} min, or at once "
            "after `docxy reload`",
            names=self._shown,
            why=why,
            meanwhile="HTTPS waits for it" if self.standing.renews is None else "the one in use stays",
            minutes=wait / 60,
        )
        return wait

    @property
    def _shown(self) -> str:
        return ", ".join(self._names)
