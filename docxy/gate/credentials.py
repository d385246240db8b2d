"""What a request's Authorization says.

Pure.  The law: anything can come, nothing raises.
"""

from __future__ import annotations

import base64
import binascii

from attrs import field, frozen


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


def parse(authorization: str | None) -> Password | Bearer | Unreadable | None:
    """None: nothing was sent."""
    if authorization is None or not authorization.strip():
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
