"""What one process of docxy learned and its siblings should know: a wrong password, a limit that an upstream set.

The law: a message goes once to all others, it may be lost, and nothing waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

Send = Callable[[str, str], object]
"""Takes a topic and facts, for all other processes."""


LONGEST = 32 * 1024
"""Characters of a message's facts; a value of AMP ends at 64 KiB."""


def to_nobody(topic: str, facts: str) -> None:
    """The `Send` of the only process."""


class Broadcast:
    """The topics of one process."""

    _log = Logger()

    def __init__(self, send: Send) -> None:
        self._send = send
        self._heard: dict[str, Callable[..., object]] = {}

    def topic(self, name: str, heard: Callable[..., object]) -> Callable[..., None]:
        """Have `heard` called with what other processes send; returns what sends to them.

        Facts are anything that JSON can hold.
        """
        self._heard[name] = heard

        def tell(*facts: Any) -> None:
            message = json.dumps(facts)
            if len(message) <= LONGEST:
                self._send(name, message)
            else:
                self._log.warn("too long to be sent to other processes: {name}", name=name)

        return tell

    def leave(self, name: str) -> None:
        """Hear no more of a topic, nor of those that begin with its name and a colon."""
        for topic in [topic for topic in self._heard if topic == name or topic.startswith(f"{name}:")]:
            del self._heard[topic]

    def received(self, name: str, facts: str) -> None:
        """Another process sent this."""
        heard = self._heard.get(name)
        if heard is None:
            return
        try:
            heard(*json.loads(facts))
        except Exception:  # what another process says must not end this one's work
            self._log.failure("cannot use what another process sent about {name}", name=name)
