"""The htpasswd file: one `user:hash` a line, bcrypt and nothing weaker.

The law: a file that cannot be used is refused at start with one line that says which line is
wrong; later, what was good stays in force until the file is good again.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping

import bcrypt
from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from docxy.config import ConfigError
from docxy.values import shown

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the file."""
MAX_FILE = 16 * 1024 * 1024
"""Bytes."""
_DEFAULT_COST = 10
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_KINDS = {
    "$apr1$": "MD5",
    "$1$": "MD5",
    "{SHA}": "SHA-1",
    "{SSHA}": "SHA-1",
    "$5$": "SHA-256",
    "$6$": "SHA-512",
    "$y$": "yescrypt",
    "$argon2": "Argon2",
}

_Signature = tuple[int, int, int, int]


@frozen
class Accounts:
    """What a file said."""

    hashes: Mapping[str, str]
    """By user name."""
    decoy: str
    """Checked for users that do not exist, so that they take as long as those that do."""

    @classmethod
    def parse(cls, text: str, path: str) -> Accounts:
        """Raises ConfigError; no message holds a hash."""
        hashes: dict[str, str] = {}
        for number, line in enumerate(text.split("\n"), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            where = f"{path}, line {number}"
            user, colon, hashed = line.partition(":")
            if not colon or not user or not user.isprintable():
                raise ConfigError(f"{where}: not a line of the form user:hash")
            if _BCRYPT.fullmatch(hashed) is None:
                kind = next((kind for start, kind in _KINDS.items() if hashed.startswith(start)), None)
                what = "not a bcrypt hash" if kind is None else f"of the kind {kind}, which is not supported"
                raise ConfigError(f"{where}: the hash of {shown(user)} is {what}; make one with htpasswd -B")
            if user in hashes:
                raise ConfigError(f"{where}: {shown(user)} is in the file twice")
            hashes[user] = hashed
        costs = Counter(int(hashed[4:6]) for hashed in hashes.values())
        cost = costs.most_common(1)[0][0] if costs else _DEFAULT_COST
        return cls(hashes, bcrypt.gensalt(cost).decode("ascii") + "." * 31)


class HtpasswdFile:
    """The accounts of a file, as it is now."""

    _log = Logger()

    def __init__(self, path: str, clock: IReactorTime) -> None:
        """Raises ConfigError."""
        self._path = path
        self._clock = clock
        self._seen: _Signature | None = _signature(path)
        self._checked = clock.seconds()
        self._accounts = load(path)

    def accounts(self) -> Accounts:
        """What is in force."""
        now = self._clock.seconds()
        if not 0 <= now - self._checked < CHECK_INTERVAL:
            self._checked = now
            self._check()
        return self._accounts

    def _check(self) -> None:
        # Before the file is read: what changes meanwhile is seen the next time.
        signature = _signature(self._path)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._accounts = load(self._path)
        except ConfigError as error:
            self._log.error("htpasswd file not reloaded, the accounts stay as they were: {error}", error=error)
        else:
            self._log.info("htpasswd file reloaded: {users} users", users=len(self._accounts.hashes))


def _signature(path: str) -> _Signature | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def load(path: str) -> Accounts:
    """The accounts of a file.  Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(raw) > MAX_FILE:
        raise ConfigError(f"{path}: is larger than any htpasswd file")
    try:
        return Accounts.parse(raw.decode("utf-8"), path)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
