"""The tokens that docxy signs for its own accounts: JWT (RFC 7519), HS256.

Pure.  The law: a token is bound to the password that its user had when docxy issued it.  A token
for pulling is no refresh token and the other way round: their audiences differ.  The first key signs, each key
reads.  A token from a node whose clock is ahead is good at once, and one from a node whose clock is behind does not
end before its time.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jwt
from attrs import field, frozen

from docxy.access.htpasswd import Accounts
from docxy.moments import LEEWAY

LIFETIME = 300
"""Seconds that a token for pulling is good."""
REFRESH_LIFETIME = 90 * 24 * 3600
"""Seconds that a refresh token is good."""
MAX_NAMES = 20
"""Repositories in one token: it travels in a header."""


@frozen
class Grant:
    """What a token says."""

    user: str | None
    """None: somebody who has not logged in."""
    names: frozenset[str] = frozenset()
    """Repositories to pull from, as the client wrote them."""
    binding: str = ""
    """See `Signer.binding`."""
    key: bytes = field(default=b"", repr=False)
    """The one that signed it."""


@frozen
class Signer:
    """Issues and reads tokens."""

    public_url: str
    """The issuer."""
    service: str
    """The audience of tokens for pulling."""
    realm: str
    """The audience of refresh tokens: the URL of the token endpoint."""
    keys: Callable[[], tuple[bytes, ...]] = field(repr=False)
    """Each of 32 bytes at least; the same in all processes that answer at the public URL."""

    @keys.validator
    def _long_enough(self, attribute: object, value: Callable[[], tuple[bytes, ...]]) -> None:
        if min(map(len, value())) < 32:
            raise ValueError("a key of 32 bytes at least is needed")

    def binding(self, stored: str | None, key: bytes) -> str:
        """What binds a token to a password hash without telling anything of it; `""` for None."""
        return "" if stored is None else hmac.new(key, b"binding " + stored.encode(), "sha256").hexdigest()[:32]

    def is_bound(self, grant: Grant, accounts: Accounts) -> bool:
        """Whether the token's user is there still, with the password that it was issued for."""
        stored = None if grant.user is None else accounts.hashes.get(grant.user)
        return hmac.compare_digest(grant.binding.encode(), self.binding(stored, grant.key).encode())

    def issue(self, user: str | None, stored: str | None, names: Iterable[str], now: float) -> str:
        """A token for pulling from these repositories."""
        access = [{"type": "repository", "name": name, "actions": ["pull"]} for name in names]
        return self._sign(user, stored, self.service, now, LIFETIME, {"access": access})

    def issue_refresh(self, user: str, stored: str, now: float) -> str:
        return self._sign(user, stored, self.realm, now, REFRESH_LIFETIME, {})

    def read(self, token: str, now: float) -> Grant | None:
        """None when it is not good, or not any more; the binding remains to be compared."""
        verified = self._verified(token, self.service, now)
        if verified is None:
            return None
        claims, key = verified
        try:
            access = claims["access"]
            names = frozenset(str(item["name"]) for item in access if "pull" in item["actions"])
        except (LookupError, TypeError):
            return None
        return _grant(claims, names, key)

    def read_refresh(self, token: str, now: float) -> Grant | None:
        """As `read`, for a refresh token."""
        verified = self._verified(token, self.realm, now)
        return None if verified is None else _grant(verified[0], frozenset(), verified[1])

    def _sign(
        self, user: str | None, stored: str | None, audience: str, now: float, lifetime: int, more: Mapping[str, object]
    ) -> str:
        key = self.keys()[0]
        claims = {
            "iss": self.public_url,
            "aud": audience,
            "sub": user or "",
            "iat": int(now),
            "exp": int(now) + lifetime,
            "jti": secrets.token_hex(16),
            "bound": self.binding(stored, key),
            **more,
        }
        return jwt.encode(claims, key, algorithm="HS256")

    def _verified(self, token: str, audience: str, now: float) -> tuple[dict[str, Any], bytes] | None:
        """What a token says, and the key that signed it."""
        for key in self.keys():
            claims = self._verified_with(key, token, audience, now)
            if claims is not None:
                return claims, key
        return None

    def _verified_with(self, key: bytes, token: str, audience: str, now: float) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                audience=audience,
                issuer=self.public_url,
                # Checked below, on the clock that was passed in.
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "aud", "iss", "sub", "bound"]},
            )
            return claims if float(claims["exp"]) + LEEWAY > now else None
        except (jwt.InvalidTokenError, TypeError, ValueError):
            return None


def _grant(claims: Mapping[str, Any], names: frozenset[str], key: bytes) -> Grant:
    return Grant(str(claims["sub"]) or None, names, str(claims["bound"]), key)
