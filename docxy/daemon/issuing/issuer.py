"""What gets a certificate, from an ACME server or from docxy's own authority."""

from __future__ import annotations

from attrs import frozen
from zope.interface import Attribute, Interface

from docxy.daemon.certificates import KeyPair

LIFE_SHARE = 2 / 3
"""Of a certificate's life, after which it is renewed unless its issuer names a time."""


class IssueError(Exception):
    """No certificate was got; the message is one line that says why and what to do."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        """`pause`: seconds that the issuer asks to wait for, at least."""
        Exception.__init__(self, message)
        self.pause = pause


@frozen
class RenewalPlan:
    """When a certificate is to be renewed, in seconds since the epoch."""

    renew: float
    look: float
    """When to ask again."""
    issued: float = 0.0
    """When the certificate was got that this is about."""


class IIssuer(Interface):
    """Both methods block."""

    source: str = Attribute("Who issues, for the operator: a URL, or `internal`.")

    def issue() -> bytes:
        """A new certificate with its chain, and its key, PEM.  Raises IssueError, OSError."""

    def plan(pem: bytes, pair: KeyPair, now: float) -> RenewalPlan:
        """When to renew one.  Raises nothing: where its issuer does not say, its life does."""


def by_life(pair: KeyPair, share: float = LIFE_SHARE) -> float:
    """When a certificate is to be renewed by its life alone, after this share of it."""
    begins, expires = pair.begins.timestamp(), pair.expires.timestamp()
    return begins + share * (expires - begins)
