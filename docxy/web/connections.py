"""How many connections clients may have open.

The law: *connections do not take what answers need*: of the descriptors that the process may have, a quarter is
left for files of the cache, registries and databases.  Without, a flood of idle connections would fail every answer.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

QUIET = 60.0
"""Seconds between two lines about connections that are refused."""


def most_connections() -> int:
    """Those of all clients of this process; 0: any number, as it may have any number of descriptors."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if limit == resource.RLIM_INFINITY else limit - limit // 4


@define
class Connections:
    """Those of one process, on one port or several."""

    of_address: int
    """That one address may have open; 0: any number."""
    most: int
    """That all may have open; 0: any number."""
    seconds: Callable[[], float]
    open: int = field(default=0, init=False)
    _by_address: Counter[str] = field(factory=Counter, init=False)
    _quiet_until: float = field(default=0.0, init=False)

    _log = Logger()

    def opened(self, address: str) -> bool:
        """Count one more; whether it may stay.  `closed` is called for it in any case."""
        self.open += 1
        self._by_address[address] += 1
        if self.most and self.open > self.most:
            now = self.seconds()
            if now >= self._quiet_until:
                self._quiet_until = now + QUIET
                self._log.warn(
                    "clients have {most} connections open, as many as this process's limit of open files leaves room "
                    "for: others are closed at once; raise LimitNOFILE, or set --client-connections",
                    most=self.most,
                )
            return False
        return not self.of_address or self._by_address[address] <= self.of_address

    def closed(self, address: str) -> None:
        """One of them is gone."""
        self.open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
