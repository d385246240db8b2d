"""What one process of docxy learned and its siblings should know: a wrong password, a limit that an upstream set.

The law: it is told once and to all others, it may be lost, and nothing waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

Send = Callable[[str, str], object]
"""Takes a topic and facts, to all others."""


class Gossip:
    """The topics of one process."""

    _log = Logger()

    def __init__(self, send: Send | None = None) -> None:
        """`send`: left out where there are no others."""
        self._send = send
        self._heard: dict[str, Callable[..., object]] = {}

    def topic(self, name: str, heard: Callable[..., object]) -> Callable[..., None]:
        """Have `heard` called with what others tell; what is returned tells others.

        Facts are what JSON has.
        """
        self._heard[name] = heard

        def tell(*facts: Any) -> None:
            if self._send is not None:
                self._send(name, json.dumps(facts))

        return tell

    def received(self, name: str, facts: str) -> None:
        """Another process told this."""
        heard = self._heard.get(name)
        if heard is None:
            return
        try:
            heard(*json.loads(facts))
        except Exception:  # what another process says must not end this one's work
            self._log.failure("cannot make use of what was told of {name}", name=name)
