"""The audit line: whom docxy refused what, and why.

The law: each refusal is one line; a request to log in is none.  Text that a client chose is
escaped.  No line holds a password, a token or a hash.
"""

from __future__ import annotations

from twisted.logger import Logger

from docxy.errors import RegistryError

_log = Logger()


def refused(error: RegistryError, who: str | None, address: str, what: str) -> RegistryError:
    """Log the refusal of `what` and give back the error that is its answer.

    `who`: the user's name as the client gave it, None when it gave none.
    """
    _log.warn(
        "refused {who} at {address}: {what}: {status} {why}",
        who="nobody" if who is None else "user " + ascii(who[:64]),
        address=address,
        what=ascii(what[:400])[1:-1],
        status=error.status,
        why=error.message,
        audit=True,
    )
    return error
