"""The policy, read again at a SIGHUP by the one process that tells all others.

The law: *a file that is wrong changes nothing*: the policy in force stays, and the log says why, with the line that
a start with this file would end with.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from twisted.logger import Logger

from docxy.daemon.reloads import Reload, Reloaded
from docxy.settings.load import load_policy
from docxy.settings.model import ConfigError, Upstream
from docxy.settings.policy import Policy


class PolicyReload:
    """Reads the configuration file's policy at a SIGHUP."""

    _log = Logger()

    def __init__(
        self,
        file: str | None,
        upstreams: Sequence[Upstream],
        swap: Callable[[Policy], object],
        rest: Reload,
        reactor: Any,
    ) -> None:
        """`file`: None: there is none, and nothing to read; `swap`: puts a policy in force everywhere.

        `rest`: tells what else has changed in it.
        """
        self._file = file
        self._rest = rest
        self._upstreams = upstreams
        self._swap = swap
        self._reactor = reactor
        self._before: Any = None
        self._stopped = False

    def start(self) -> None:
        """Listen as soon as the reactor runs, beside those that listen to SIGHUP already."""
        if self._file is not None:
            self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self._stopped:
            self._before = signal.signal(signal.SIGHUP, self._hung_up)

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)
        if callable(self._before):
            self._before(number, frame)

    def reload(self) -> Sequence[Reloaded]:
        """Read the file; when it cannot be used, say so and keep the policy in force."""
        if self._file is None:
            return ()
        return (*self._reload(self._file), *self._rest())

    def _reload(self, file: str) -> Sequence[Reloaded]:
        try:
            policy = load_policy(file, self._upstreams)
        except ConfigError as error:
            self._log.error("the policy in force stays as it was: {error}", error=error)
            return (Reloaded("policy", False, str(error)),)
        self._swap(policy)
        self._log.info("policy of {file} is in force: {policy}", file=file, policy=policy)
        return (Reloaded("policy", True, f"{policy} of {file} are in force"),)

    def stop(self) -> None:
        """Listen no more."""
        self._stopped = True
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
