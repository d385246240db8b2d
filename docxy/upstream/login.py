"""Who docxy is at an upstream, as it shows itself there.

The law: no secret is part of a repr.
"""

from __future__ import annotations

from base64 import b64encode

from attrs import field, frozen
from zope.interface import Attribute, Interface


@frozen
class Login:
    """A name and a password; or a token of an identity, which only a token service takes."""

    username: str
    secret: str = field(repr=False)
    is_identity: bool = False

    @property
    def authorization(self) -> str:
        """As an Authorization header."""
        return basic(self.username, self.secret)


class IAccountSecret(Interface):
    """What one of docxy's accounts logs in with; it may change while docxy runs."""

    username: str = Attribute("What the account is called: in logs, metrics and the ledger.")
    source: str | None = Attribute("Where the secret is read from again at a SIGHUP, for the operator; None: nowhere.")

    async def login() -> Login | None:
        """What to log in with now; None: the operator wants docxy to ask without.  Raises AccountRefused."""

    async def renew() -> bool:
        """The upstream refused it: get it anew; whether there is another one now."""

    def reload() -> str | None:
        """Get it anew at the operator's word; why that failed, as the end of a sentence, as far as it is known."""


def basic(username: str, password: str) -> str:
    """A name and a password as an Authorization header."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")
