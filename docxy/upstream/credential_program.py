"""Credentials that a program prints: Docker's credential helpers, and commands that answer like them.

The laws: *what the program prints is in no log and no error*, not on its error output either; it runs once for all
who wait, for a limited time, with limited output, and after a failure not again at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from docxy.errors import AccountRefused
from docxy.settings.model import CredentialProgram
from docxy.single_flight import SingleFlight
from docxy.upstream.login import IAccountSecret, Login

WITHIN = 30.0
"""Seconds that a program may take."""
MOST_OUTPUT = 64 * 1024
"""Bytes of its output."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds from a failure to the next run, which grow."""
RENEWED_AFTER = 10.0
"""Seconds for which a credential that the upstream refuses is not fetched again: it would be the same."""
_MARGIN = 60.0
"""Seconds before its end from which a credential is not used any more."""
IDENTITY = "<token>"
"""The user name with which Docker's helpers say that the secret is an identity token."""
_NOT_FOUND = b"credentials not found in native keychain"
"""What a helper prints that has no credential (docker-credential-helpers, `credentials/error.go`)."""


class ProgramFailed(Exception):
    """Why there is no credential, as the end of a sentence, without what the program printed."""


@frozen
class Printed:
    """What a program printed."""

    login: Login
    expires: float | None
    """In seconds since the epoch; None: it did not say."""


def parse(output: bytes, now: float) -> Printed:
    """`{"Username": …, "Secret": …}`, in any case; `password` for `secret`, and when it ends, are taken too.

    `now`: seconds since the epoch.  Raises ProgramFailed.
    """
    try:
        told = json.loads(output)
    except (ValueError, RecursionError):
        raise ProgramFailed("printed something that is not JSON") from None
    if not isinstance(told, dict):
        raise ProgramFailed("printed JSON that is not an object")
    fields = {str(key).lower().replace("_", ""): value for key, value in told.items()}
    username, secret = fields.get("username"), fields.get("secret", fields.get("password"))
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        raise ProgramFailed("printed no username and secret")
    if not username.isprintable() or not secret.isprintable() or ":" in username:
        raise ProgramFailed("printed a username or secret that cannot be used")
    return Printed(Login(username, secret, username == IDENTITY), _expires(fields, now))


def _expires(fields: Mapping[str, Any], now: float) -> float | None:
    seconds = fields.get("expiresin")
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds < 1e9:
        return now + seconds
    text = fields.get("expiresat", fields.get("expiration"))
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)).timestamp()


class _Running(ProcessProtocol):
    """One run."""

    def __init__(self, said: bytes, done: Deferred[bytes]) -> None:
        self._said = said
        self._done = done
        self._output = bytearray()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._said)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output += data
        if len(self._output) > MOST_OUTPUT:
            self.give_up(f"printed more than {MOST_OUTPUT} bytes")

    def errReceived(self, data: bytes) -> None:
        """Nobody sees it: a script with `set -x` prints secrets here."""

    def give_up(self, why: str) -> None:
        """End it; what it started itself may live on, and is not waited for."""
        transport: Any = self.transport
        if not self._done.called:
            self._done.errback(ProgramFailed(why))
        if transport is not None:
            with suppress(ProcessExitedAlready):
                transport.signalProcess("KILL")
            transport.loseConnection()

    def processEnded(self, reason: Failure) -> None:
        if self._done.called:
            return
        status = getattr(reason.value, "exitCode", None)
        if status == 0:
            self._done.callback(bytes(self._output))
        elif _NOT_FOUND in self._output:
            self._done.errback(ProgramFailed("has no credential for this registry"))
        else:
            how = "was ended by a signal" if status is None else f"ended with status {status}"
            self._done.errback(ProgramFailed(how))


async def run(program: CredentialProgram, clock: IReactorTime, reactor: Any) -> bytes:
    """What a program prints that was told the registry on its standard input.  Raises ProgramFailed."""
    done: Deferred[bytes] = Deferred(lambda _: running.give_up("was given up"))
    running = _Running(f"{program.server}\n".encode(), done)
    late = clock.callLater(WITHIN, running.give_up, f"took more than {WITHIN:.0f} s")
    try:
        reactor.spawnProcess(running, program.command[0], program.command, dict(os.environ), "/")
        return await done
    except OSError as error:
        raise ProgramFailed(f"cannot be run: {error.strerror}") from None
    finally:
        if late.active():
            late.cancel()


@implementer(IAccountSecret)
class ProgramSecret:
    """The account that a program knows."""

    _log = Logger()

    def __init__(
        self,
        program: CredentialProgram,
        upstream: str,
        clock: IReactorTime,
        seconds: Callable[[], float],
        random: Random,
        reactor: Any,
    ) -> None:
        """`upstream`: its name, for messages; `seconds`: the time since the epoch."""
        self.username = program.name
        self.source: str | None = program.name
        self._program = program
        self._upstream = upstream
        self._clock = clock
        self._seconds = seconds
        self._random = random
        self._reactor = reactor
        self._running: SingleFlight[str, Printed] = SingleFlight()
        self._kept: Printed | None = None
        self._ran = float("-inf")
        self._failures = 0
        self._failure: str | None = None
        self._due = float("-inf")

    async def login(self) -> Login | None:
        kept = self._kept
        if kept is None or (kept.expires is not None and kept.expires - _MARGIN <= self._seconds()):
            try:
                kept = await self._fresh()
            except ProgramFailed as error:
                if self._program.or_anonymous:
                    return None
                raise AccountRefused(f"{self.username} {error}") from None
        return kept.login

    async def renew(self) -> bool:
        if self._clock.seconds() < self._ran + RENEWED_AFTER:
            return False
        before = self._kept
        try:
            found = await self._fresh()
        except ProgramFailed:
            return False
        return before is None or found.login != before.login

    def reload(self) -> str | None:
        """The next request runs it."""
        self._kept, self._due = None, float("-inf")
        return self._failure

    async def stop(self) -> None:
        """End the program that runs."""
        await self._running.stop()

    async def _fresh(self) -> Printed:
        """Raises ProgramFailed."""
        if self._clock.seconds() < self._due and self._failure is not None:
            raise ProgramFailed(self._failure)
        return await self._running.do("", self._run)

    async def _run(self) -> Printed:
        self._ran = self._clock.seconds()
        try:
            found = parse(await run(self._program, self._clock, self._reactor), self._seconds())
            if found.expires is not None and found.expires <= self._seconds():
                raise ProgramFailed("printed a credential that has ended")
        except ProgramFailed as error:
            pause = min(FIRST_PAUSE * 2.0 ** min(self._failures, 10), LONGEST_PAUSE) * self._random.uniform(0.5, 1.0)
            self._failures, self._failure = self._failures + 1, str(error)
            self._due = self._clock.seconds() + pause
            self._log.error(
                "no credential for {upstream}: {program} {why}; docxy asks it again in {pause:.0f} s at the earliest"
                "{meanwhile}",
                upstream=self._upstream,
                program=self.username,
                why=error,
                pause=pause,
                meanwhile=", and until then goes on without one" if self._program.or_anonymous else "",
            )
            raise
        if self._failures:
            self._log.info("{program} has a credential for {upstream}", program=self.username, upstream=self._upstream)
        self._failures, self._failure, self._kept = 0, None, found
        return found
