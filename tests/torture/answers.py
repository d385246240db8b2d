"""What the upstream says to one request, whole or deformed by a fault.

Pure: a plan of the bytes; `upstream` sends it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from attrs import evolve, field, frozen

from tests.torture.library import Thing

OCTETS = "application/octet-stream"


@frozen
class Answer:
    """A response, and how the connection behaves while it is sent."""

    status: int
    headers: Mapping[str, str] = field(factory=dict)
    thing: Thing | None = None
    """Its bytes from `first` on are the body; else `text` is."""
    first: int = 0
    length: int = 0
    text: bytes = b""
    head: bool = False
    """Whether the body stays here."""

    # How it is sent:
    flip: int | None = None
    """One bit is wrong in the byte at this offset of the thing."""
    cut: int | None = None
    """The connection ends after this many bytes of body."""
    reset: bool = False
    """And how: with a reset."""
    stall: int | None = None
    """Nothing more comes after this many bytes."""
    chunked: bool = False
    close: bool = False
    """Whether the connection ends with the body."""
    slow: bool = False
    """A tenth of a second between four parts of the body."""


def plain(status: int, text: bytes, headers: Mapping[str, str] | None = None, media_type: str = OCTETS) -> Answer:
    """An answer from memory."""
    told = {"Content-Type": media_type, "Content-Length": str(len(text)), **(headers or {})}
    return Answer(status, told, text=text, length=len(text))


def error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An error in the distribution-spec's JSON."""
    body = json.dumps({"errors": [{"code": code, "message": "as the plan says", "detail": None}]}).encode()
    return plain(status, body, headers, "application/json")


def right(thing: Thing, asked: tuple[int, int | None] | None, head: bool) -> Answer:
    """The right answer."""
    headers = {
        "Content-Type": thing.media_type or OCTETS,
        "Docker-Content-Digest": thing.digest,
        "Content-Length": str(thing.size),
        "Accept-Ranges": "bytes",
    }
    if asked is None or thing.kind == "manifests":
        return Answer(200, headers, thing, 0, thing.size, head=head)
    first = asked[0]
    last = thing.size - 1 if asked[1] is None else min(asked[1], thing.size - 1)
    if first >= thing.size:
        return error(416, "RANGE_INVALID", {"Content-Range": f"bytes */{thing.size}"})
    headers["Content-Length"] = str(last - first + 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{thing.size}"
    return Answer(206, headers, thing, first, last - first + 1, head=head)


def deformed(fault: str, answer: Answer, at: float, nowhere: str) -> Answer:
    """The answer as this fault has it; `at` (0 … 1) says where in the body."""
    where = int(at * answer.length)
    told = dict(answer.headers)
    if fault in ("500", "502", "503"):
        return error(int(fault), "UNKNOWN")
    if fault == "429":
        return error(429, "TOOMANYREQUESTS", {"Retry-After": "1"})
    if fault == "nowhere":
        return plain(307, b"", {"Location": nowhere})
    if fault == "portal":
        return plain(200, b"<html>Please log in</html>", media_type="text/html")
    if fault == "empty":
        return plain(200, b"", {"Content-Type": told["Content-Type"]})
    if fault in ("cut", "cut-reset"):
        return evolve(answer, cut=where, reset=fault == "cut-reset")
    if fault == "stall":
        return evolve(answer, stall=where)
    if fault == "flip":
        return evolve(answer, flip=answer.first + where)
    if fault == "short":
        left = max(0, answer.length - 1 - where // 2)
        return evolve(answer, headers={**told, "Content-Length": str(left)}, length=left)
    if fault == "long":
        more = {**told, "Content-Length": str(answer.length + 1 + where)}
        return evolve(answer, headers=more, close=True)
    if fault == "wrong-range" and answer.status == 206:
        more = {**told, "Content-Range": told["Content-Range"].replace("bytes ", "bytes 1")}
        return evolve(answer, headers=more)
    if fault == "wrong-total" and answer.status == 206:
        more = {**told, "Content-Range": told["Content-Range"].rpartition("/")[0] + "/*"}
        return evolve(answer, headers=more)
    if fault == "ignore-range" and answer.status == 206 and answer.thing is not None:
        return right(answer.thing, None, answer.head)
    if fault == "chunked" and not answer.head:
        del told["Content-Length"]
        return evolve(answer, headers={**told, "Transfer-Encoding": "chunked"}, chunked=True)
    if fault == "until-close" and not answer.head:
        del told["Content-Length"]
        return evolve(answer, headers={**told, "Connection": "close"}, close=True)
    if fault == "slow":
        return evolve(answer, slow=True)
    return answer
