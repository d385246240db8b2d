"""The secret of one cache: what keeps a stolen database from telling whose credentials it knows.

The law: no credential, nor a hash that can be tried out without the secret, is ever written down.  The secret
lies beside the databases in a file of its own that only the daemon's user can read; all processes that share
the cache share it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

_LENGTH = 32
_KEPT = 512
"""Credentials whose keys are kept in memory."""


class Secret:
    """Keys made of the secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.credential: Callable[[str | None], str] = lru_cache(maxsize=_KEPT)(self._credential)
        """What an `Authorization` is known by, hexadecimal; `""` for none."""

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose; nothing can be told from it of another purpose's."""
        return hmac.digest(self._secret, f"docxy {purpose}".encode(), "sha256")

    def keyed(self, hashed: str) -> str:
        """What a credential is known by, given its SHA-256 (hexadecimal), as version 1 of the catalog kept it."""
        return hmac.new(self._secret, hashed.encode("ascii", "replace"), "sha256").hexdigest() if hashed else ""

    def _credential(self, authorization: str | None) -> str:
        if authorization is None:
            return ""
        return self.keyed(hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).hexdigest())


def load_secret(path: str) -> Secret:
    """The secret that is kept in a file; the first process to ask makes it.  Raises OSError."""
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    made = f"{path}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_LENGTH))
            file.flush()
            os.fsync(file.fileno())
        try:
            with suppress(FileExistsError):  # another process was first
                os.link(made, path)  # whole or not at all
        except OSError:  # a file system without links
            os.replace(made, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(made)
    return _read(path)


def _read(path: str) -> Secret:
    with open(path, "rb") as file:
        kept = file.read(_LENGTH + 1)
    if len(kept) != _LENGTH:
        raise OSError(f"{path} is not a secret of docxy, which has {_LENGTH} bytes: remove it, and a new one is made")
    os.chmod(path, 0o600)
    return Secret(kept)
