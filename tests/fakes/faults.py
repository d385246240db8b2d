"""What can be made to go wrong, and when.

The law: a fault that replaces the answer (`status`, `body`), drops or stalls before the headers
strikes whatever request its rule matches; every other fault deforms an answer that would have been a
200 or 206, and lets challenges, redirects and refusals pass without being used up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

LEAKING = {
    "Set-Cookie": "session=secret; Path=/",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Registry-Supports-Signatures": "1",
    "Keep-Alive": "timeout=5",
}
"""Headers that a mirror must not let through."""


@frozen
class Fault:
    """One way for an answer to be wrong; fields combine.  Offsets and lengths are in bytes."""

    status: int | None = None
    """Answer with this status, and an OCI error unless there is a `body`."""
    body: bytes | None = None
    """Answer with this body; status 200 unless there is a `status`."""
    headers: Mapping[str, str | None] = field(factory=dict)
    """Headers to set; None leaves one out.  A GET without Content-Length ends with the connection."""
    drop: bool = False
    """Close the connection without an answer."""
    cut_after: int | None = None
    """Close the connection after so many bytes of body."""
    reset: bool = False
    """`drop` and `cut_after` reset the connection (RST); bytes in flight may be lost."""
    stall_headers: bool = False
    """Say nothing until `Rule.release`."""
    stall_after: int | None = None
    """Say nothing more after so many bytes of body until `Rule.release`."""
    flip: int | None = None
    """Turn one bit of the byte at this offset of the blob or manifest (not of the range)."""
    length_delta: int = 0
    """Added to Content-Length.  The body keeps its size; the connection is closed behind it."""
    chunked: bool = False
    """Transfer-Encoding: chunked instead of Content-Length."""
    gzip: bool = False
    """Content-Encoding: gzip, whatever was accepted."""
    ignore_range: bool = False
    """Answer 200 with everything although a range was asked."""
    bytes_per_second: int | None = None
    """Drip the body, ten pieces a second."""
    line_end: str = "\r\n"
    """Between the header lines; `"\\n"` is what Docker Hub's abuse limit sends."""

    @property
    def replaces(self) -> bool:
        """Whether it strikes whatever the answer would have been."""
        return self.status is not None or self.body is not None or self.drop or self.stall_headers

    @classmethod
    def wrong_type(cls, media_type: str = "text/plain") -> Fault:
        """The right bytes under a media type that is not theirs."""
        return cls(headers={"Content-Type": media_type})

    @classmethod
    def digest_header(cls, value: str | None) -> Fault:
        """Docker-Content-Digest missing (None) or wrong."""
        return cls(headers={"Docker-Content-Digest": value})

    @classmethod
    def no_length(cls) -> Fault:
        """No Content-Length: on a HEAD just that, on a GET the body ends with the connection."""
        return cls(headers={"Content-Length": None})

    @classmethod
    def leaking(cls) -> Fault:
        """Set-Cookie, HSTS and X-Registry-Supports-Signatures with the right answer."""
        return cls(headers=LEAKING)

    @classmethod
    def html_page(cls) -> Fault:
        """A captive portal's 200."""
        return cls(body=b"<html><body>Please log in</body></html>", headers={"Content-Type": "text/html"})

    @classmethod
    def huge(cls, size: int = (8 << 20) + 1) -> Fault:
        """A 200 with a valid JSON document of this size, by default one byte over 8 MiB."""
        body = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"'
        return cls(body=body + b" " * (size - len(body) - 1) + b"}")

    @classmethod
    def too_many_requests(cls, retry_after: str | None = "60") -> Fault:
        """The pull limit's 429 with TOOMANYREQUESTS."""
        return cls(status=429, headers={"Retry-After": retry_after})

    @classmethod
    def abuse(cls) -> Fault:
        """Docker Hub's abuse 429: plain text and LF-only header lines."""
        headers = {"Content-Type": "text/plain", "Retry-After": "60"}
        return cls(status=429, body=b"Too Many Requests\n", headers=headers, line_end="\n")


@define(eq=False)
class Rule:
    """A fault, which requests it strikes, and how often."""

    fault: Fault
    kind: str | None
    method: str | None = None
    path: str | None = None
    times: int | None = 1
    skip: int = 0
    hits: int = 0
    """How many requests it took on."""
    struck_count: int = 0
    """How many times it has come to effect: stalled, cut, or the answer sent."""
    released: bool = False
    _stalled: list[Callable[[], None]] = field(factory=list)
    _waiting: list[tuple[int, Deferred[None]]] = field(factory=list)

    def matches(self, kind: str, method: str, path: str) -> bool:
        """Whether a request is this rule's, counting not considered."""
        return (
            self.times != 0
            and self.kind in (None, kind)
            and self.method in (None, method)
            and (self.path is None or self.path in path)
        )

    def take(self) -> bool:
        """Count a matching request; whether the fault strikes it."""
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        if self.times is not None:
            self.times -= 1
        return True

    def cancel(self) -> None:
        """Strike no further request."""
        self.times = 0

    def release(self) -> None:
        """Let every answer that this rule stalled go on, and stall no other."""
        self.released = True
        stalled, self._stalled = self._stalled, []
        for resume in stalled:
            resume()

    def struck(self, count: int = 1) -> Deferred[None]:
        """Fires once the fault has come to effect so many times in all."""
        waiting: Deferred[None] = Deferred()
        if self.struck_count >= count:
            waiting.callback(None)
        else:
            self._waiting.append((count, waiting))
        return waiting

    def stalled(self, resume: Callable[[], None]) -> None:
        """An answer has come to its stall; `resume` lets it go on."""
        self._stalled.append(resume)
        self.came_to_effect()

    def came_to_effect(self) -> None:
        self.struck_count += 1
        ready = [waiting for count, waiting in self._waiting if count <= self.struck_count]
        self._waiting = [(count, waiting) for count, waiting in self._waiting if count > self.struck_count]
        for waiting in ready:
            waiting.callback(None)
