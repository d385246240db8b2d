"""Tokens of docxy's own, for strangers while the upstream's token service is down.

The law: a pass reaches only what strangers were lately let read, only from the cache, and
not for long.  It is a JWT (RFC 7519) signed with a key that the processes sharing a cache share;
no upstream ever sees one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from attrs import frozen

from docxy.errors import UpstreamUnavailable
from docxy.pull.status import ONLY_CACHED, telling
from docxy.storage.catalog import Catalog
from docxy.storage.records import UpstreamCatalog

LIFETIME = 300
"""Seconds."""
PUBLIC_FOR = 24 * 3600.0
"""Seconds since a stranger was last let in for which a repository counts as public."""
_ISSUER = "docxy"


@frozen
class Passes:
    """Issues and reads passes for one upstream."""

    catalog: Catalog
    upstream: str

    def _key(self) -> str:
        return self.catalog.settle_fact("pass key", secrets.token_hex(32))

    def issue(self, repositories: Iterable[str]) -> str:
        """A pass for these repositories."""
        # Only where there are passes: it is large.
        import jwt

        now = int(self.catalog.seconds())
        claims = {
            "iss": _ISSUER,
            "aud": self.upstream,
            "iat": now,
            "exp": now + LIFETIME,
            "repositories": sorted(repositories),
        }
        return jwt.encode(claims, self._key(), algorithm="HS256")

    def is_public(self, known: UpstreamCatalog, repository: str) -> bool:
        """Whether a stranger was lately let read this repository."""
        at = known.public_at(repository)
        return at is not None and self.catalog.seconds() - at < PUBLIC_FOR

    def read(self, authorization: str | None) -> frozenset[str] | None:
        """The repositories a client's pass reaches, none when it is not good (any more).

        None when its Authorization does not even claim to be a pass.
        """
        import jwt

        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        try:
            if jwt.decode(token, options={"verify_signature": False}).get("iss") != _ISSUER:
                return None
        except (jwt.InvalidTokenError, ValueError):
            return None
        try:
            claims = jwt.decode(
                token,
                self._key(),
                algorithms=["HS256"],
                audience=self.upstream,
                issuer=_ISSUER,
                # Checked below, on the clock that was passed in.
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "aud", "iss"]},
            )
            if float(claims["exp"]) < self.catalog.seconds():
                return frozenset()
            return frozenset(str(name) for name in claims["repositories"])
        except (jwt.InvalidTokenError, LookupError, TypeError, ValueError):
            return frozenset()


def only_cached(what: str) -> UpstreamUnavailable:
    """What a client with a pass is told of something that is not cached: no upstream can be asked in its name."""
    message = f"{what} is not cached, and its upstream's token service is down"
    return UpstreamUnavailable(message, headers=telling(ONLY_CACHED))
