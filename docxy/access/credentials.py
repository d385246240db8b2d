"""What a request's Authorization says.

Pure.  The law: anything can come, nothing raises.
"""

from __future__ import annotations

import base64
import binascii

from attrs import field, frozen
from twisted.web.http import Request


@frozen
class Password:
    """Basic (RFC 7617)."""

    user: str
    password: str = field(repr=False)


@frozen
class Bearer:
    token: str = field(repr=False)


@frozen
class Unreadable:
    """Something else."""


Credentials = Password | Bearer | Unreadable


def of(request: Request) -> Credentials | None:
    """What a request sends; None: nothing."""
    # As bytes: text would have to be UTF-8, and whatever came must not be an error.
    lines = request.requestHeaders.getRawHeaders(b"Authorization")
    return parse(lines[-1].decode("latin-1")) if lines else None


def parse(authorization: str) -> Credentials | None:
    """None: nothing was sent."""
    if not authorization.strip():
        return None
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return Bearer(rest)
    if scheme.lower() != "basic":
        return Unreadable()
    try:
        raw = base64.b64decode(rest, validate=True)
    except (binascii.Error, ValueError):
        return Unreadable()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    user, colon, password = text.partition(":")
    return Password(user, password) if colon else Unreadable()
