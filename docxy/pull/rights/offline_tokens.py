"""Tokens of docxy's own, for anonymous clients while the upstream's token service is down.

The law: an offline token reaches only what anonymous clients were lately let read, only from
the cache, and not for long.  It is a JWT (RFC 7519) signed with a key that the processes
sharing a cache share, and nodes whose operator gave them one; no upstream ever sees one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import field, frozen

from docxy.catalog.interfaces import IVerdicts, is_recent
from docxy.errors import UpstreamUnavailable
from docxy.moments import LEEWAY
from docxy.pull.cache_status import ONLY_CACHED, telling

LIFETIME = 300
"""Seconds."""
PUBLIC_FOR = 24 * 3600.0
"""Seconds for which a repository counts as public after the upstream let an anonymous client read it."""
_ISSUER = "docxy"


@frozen
class OfflineTokens:
    """Issues and reads the offline tokens of one upstream."""

    keys: Callable[[], tuple[bytes, ...]] = field(repr=False)
    """Of all processes that share the cache; the first signs, all of them read."""
    upstream: str
    verdicts: IVerdicts
    seconds: Callable[[], float]
    """The time since the epoch."""

    def issue(self, repositories: Iterable[str]) -> str:
        """A token for these repositories."""
        # Imported where it is used: it is large, and most configurations issue no token.
        import jwt

        now = int(self.seconds())
        claims = {
            "iss": _ISSUER,
            "aud": self.upstream,
            "iat": now,
            "exp": now + LIFETIME,
            "repositories": sorted(repositories),
        }
        return jwt.encode(claims, self.keys()[0], algorithm="HS256")

    async def is_public(self, repository: str) -> bool:
        """Whether the upstream lately let an anonymous client read this repository."""
        at = await self.verdicts.public_at(repository)
        return at is not None and is_recent(at, self.seconds(), PUBLIC_FOR)

    def read(self, authorization: str | None) -> frozenset[str] | None:
        """The repositories that a client's offline token reaches; none when it is forged or expired.

        None when the client's Authorization does not claim to be an offline token.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or token.count(".") != 2:
            return None
        import jwt

        try:
            if jwt.decode(token, options={"verify_signature": False}).get("iss") != _ISSUER:
                return None
        except (jwt.InvalidTokenError, ValueError):
            return None
        reached: frozenset[str] = frozenset()
        for key in self.keys():
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=["HS256"],
                    audience=self.upstream,
                    issuer=_ISSUER,
                    # Checked below, on the clock that was passed in.
                    options={"verify_exp": False, "verify_iat": False, "require": ["exp", "aud", "iss"]},
                )
                if float(claims["exp"]) + LEEWAY >= self.seconds():
                    reached = frozenset(str(name) for name in claims["repositories"])
            except (jwt.InvalidTokenError, LookupError, TypeError, ValueError):
                continue
        return reached


def only_cached(what: str) -> UpstreamUnavailable:
    """The error for a client with an offline token and something that is not cached."""
    message = f"{what} is not cached, and its upstream's token service is down"
    return UpstreamUnavailable(message, headers=telling(ONLY_CACHED))
