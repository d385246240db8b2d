"""Answers to requests that are like one that was just answered.

The law: *an answer is repeated for at most a second, and only where the same request from anybody
would get it anew.*  So nothing of a request with credentials is kept, nor any answer that was not
from the cache alone (`Request.repeat_for`), nor anything at all where an address or a login
decides.  `Date`, `Age` and `ttl` count in seconds.

Requests are alike when all bytes of their heads are the same but those of a few headers that
docxy reads nowhere.  Machines that start the same image at the same moment ask like this.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import define, field, frozen

from docxy.metrics import Answered

LONGEST = 1.0
"""Seconds."""
UNREAD = ("User-Agent", "Accept-Encoding", "Accept-Language", "Traceparent", "Tracestate", "X-Request-Id")
"""Headers that say who asks, or for what, and that no answer depends on."""
# Not one that goes on in the next line, and not one that would be refused for its bytes.
_UNREAD = re.compile(rb"\r\n(?:%b):[ -~]*(?=\r\n[^ \t])" % "|".join(UNREAD).encode(), re.IGNORECASE)
MAX_HEAD = 4096
MAX_ANSWER = 256 * 1024
MAX_KEPT = 16 * 1024 * 1024
"""Bytes."""


@frozen
class Repeat:
    """An answer, as it was written."""

    answer: bytes
    line: str
    """What the access log says of it, behind the client's address."""
    what: Answered
    sent: int
    """Bytes of its body."""
    until: float


def alike(head: bytes) -> bytes:
    """What is the same of all requests that are alike; `head`: a whole one, with its empty line."""
    return _UNREAD.sub(b"", head)


@define
class Repeats:
    """The answers of this moment, by what `alike` says of the requests' heads."""

    _seconds: Callable[[], float]
    _kept: dict[bytes, Repeat] = field(init=False, factory=dict)
    _size: int = field(init=False, default=0)
    _oldest: float = field(init=False, default=0.0)

    def get(self, head: bytes) -> Repeat | None:
        """The answer to repeat to a request with this head, if there is one."""
        repeat = self._kept.get(head)
        if repeat is None or repeat.until <= self._seconds():
            return None
        return repeat

    def keep(self, head: bytes, answer: bytes, line: str, what: Answered, sent: int, seconds: float) -> None:
        """This was just answered, and holds for so many seconds, or less."""
        size = len(head) + len(answer)
        if len(head) > MAX_HEAD or len(answer) > MAX_ANSWER:
            return
        now = self._seconds()
        if self._size + size > MAX_KEPT or now - self._oldest > LONGEST:
            self._kept.clear()
            self._size, self._oldest = 0, now
        before = self._kept.get(head)
        self._size += size - (0 if before is None else len(head) + len(before.answer))
        self._kept[head] = Repeat(answer, line, what, sent, now + min(seconds, LONGEST))
