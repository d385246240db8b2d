"""The audit line: who was refused what, and why.

The law: one line a refusal, and no line for being asked to log in; what a client chose is
escaped; a password, a token or a hash is never in it.
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
