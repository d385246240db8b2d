"""What can go wrong, as clients see it: a status, a code, a sentence.

Pure.  The law: everything that a client can cause or meet is one of these classes, and each
renders itself as the error JSON of OCI distribution-spec v1.1, "Error codes".  A
message names what failed and never holds a credential.
"""

from __future__ import annotations

import json
from typing import ClassVar

from attrs import define, field


def delay(retry_after: str | None) -> float | None:
    """A Retry-After's seconds; None for what is no number of them."""
    # Not all that Python takes for a digit is one to `float`.
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None


@define(eq=False)
class RegistryError(Exception):
    """An answer that is an error.  Subclasses set `status` and `code`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "UNKNOWN"

    message: str
    headers: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    """Headers that go with the answer: a challenge, Retry-After, Allow."""

    def __str__(self) -> str:
        return self.message

    @property
    def retry_after(self) -> float | None:
        """Seconds that it asks to wait for; None when it does not say."""
        return delay(dict(self.headers).get("Retry-After"))

    def body(self) -> bytes:
        """The JSON document of the distribution-spec."""
        error = {"code": self.code, "message": self.message, "detail": None}
        return json.dumps({"errors": [error]}).encode("ascii") + b"\n"


class Internal(RegistryError):
    """A bug of docxy's."""


class NameInvalid(RegistryError):
    status = 400
    code = "NAME_INVALID"


class NameUnknown(RegistryError):
    status = 404
    code = "NAME_UNKNOWN"


class TagInvalid(RegistryError):
    status = 400
    code = "TAG_INVALID"


class DigestInvalid(RegistryError):
    status = 400
    code = "DIGEST_INVALID"


class ManifestUnknown(RegistryError):
    status = 404
    code = "MANIFEST_UNKNOWN"


class FrozenGone(ManifestUnknown):
    """The operator froze a tag at what is not there any more."""


class BlobUnknown(RegistryError):
    status = 404
    code = "BLOB_UNKNOWN"


class NotFound(RegistryError):
    """Nothing of a registry is at this path."""

    status = 404
    code = "UNSUPPORTED"


class PaginationInvalid(RegistryError):
    status = 400
    code = "PAGINATION_NUMBER_INVALID"


class RangeInvalid(RegistryError):
    """The range starts at or past the end; `Content-Range: bytes */size` goes with it."""

    status = 416
    code = "RANGE_INVALID"


class BadRequest(RegistryError):
    status = 400
    code = "UNSUPPORTED"


class URITooLong(RegistryError):
    status = 414
    code = "UNSUPPORTED"


class HeadTooLarge(RegistryError):
    """The request's headers are too many, or too long."""

    status = 431
    code = "UNSUPPORTED"


class Unsupported(RegistryError):
    """Writes: a mirror is read-only."""

    status = 405
    code = "UNSUPPORTED"

    @classmethod
    def method(cls, method: str, allow: str = "GET, HEAD") -> Unsupported:
        return cls(f"{method} is not supported: this is a read-only mirror", headers=(("Allow", allow),))


class Unauthorized(RegistryError):
    """Credentials are missing or refused; a challenge goes with it."""

    status = 401
    code = "UNAUTHORIZED"


class Denied(RegistryError):
    status = 403
    code = "DENIED"


class Withheld(Denied):
    """This mirror's own rules refuse it; the registry may have it."""


class Recalled(Withheld):
    """The operator ordered that this is not to be pulled any more."""

    @classmethod
    def of(cls, what: str, reason: str, *headers: tuple[str, str]) -> Recalled:
        """`what`: the image or digest as the client asked for it; `reason`: the operator's."""
        return cls(f"{what} is recalled: {reason}", headers=headers)


class TooManyRequests(RegistryError):
    status = 429
    code = "TOOMANYREQUESTS"
    limit: ClassVar[str] = ""
    """Whose limit it is, where that is not the registry's: `logins`, `tokens`."""


class TooManyLogins(TooManyRequests):
    """docxy's own: of wrong passwords."""

    limit = "logins"


class TooManyTokens(TooManyRequests):
    """The token service's."""

    limit = "tokens"


class UpstreamError(RegistryError):
    """The upstream could not be reached or did not answer as a registry does."""

    status = 502
    code = "UNAVAILABLE"


class UpstreamBroke(UpstreamError):
    """The upstream broke off or stumbled (500, 502): the same request may well succeed now."""


class AccountRefused(UpstreamError):
    """The upstream refused an account of docxy's own, which says nothing about what is there."""

    status = 403
    code = "DENIED"


class UpstreamUnavailable(UpstreamError):
    """The upstream says of itself that it is unavailable."""

    status = 503


class UpstreamTimeout(UpstreamError):
    status = 504
