"""The htpasswd file: one `user:hash` a line, bcrypt and nothing weaker.

The law: docxy does not start with a file that it cannot use, and names the line that is wrong.
If a later version of the file is wrong, the last good one stays in force.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from docxy.file_mark import Mark, mark
from docxy.settings.model import ConfigError
from docxy.settings.parsers import shown

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


@frozen
class Accounts:
    """The contents of one version of the file."""

    hashes: Mapping[str, str]
    """By user name."""
    cost: int
    """The highest of any hash: every check takes as long as one of this cost."""

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
        return cls(hashes, max(map(cost_of, hashes.values()), default=_DEFAULT_COST))


def cost_of(hashed: str) -> int:
    """The binary logarithm of the rounds that a bcrypt hash takes."""
    return int(hashed[4:6])


class HtpasswdFile:
    """The accounts of a file, read again when it changes."""

    _log = Logger()

    def __init__(self, path: str, clock: IReactorTime) -> None:
        """Raises ConfigError."""
        self._path = path
        self._clock = clock
        self._seen: Mark | None = mark(path)
        self._checked = clock.seconds()
        self._accounts = load(path)

    def accounts(self) -> Accounts:
        """The accounts in force."""
        now = self._clock.seconds()
        if not 0 <= now - self._checked < CHECK_INTERVAL:
            self._checked = now
            self._check()
        return self._accounts

    def _check(self) -> None:
        if mark(self._path) != self._seen:
            self.reload()

    def reload(self) -> str | None:
        """Read the file now; why it cannot be used, None when it can.  The last good one stays in force."""
        # Before the file is read: what changes meanwhile is seen the next time.
        self._seen = mark(self._path)
        try:
            self._accounts = load(self._path)
        except ConfigError as error:
            self._log.error("htpasswd file not reloaded, the accounts stay as they were: {error}", error=error)
            return str(error)
        self._log.info("htpasswd file reloaded: {users} users", users=len(self._accounts.hashes))
        return None


def load(path: str) -> Accounts:
    """The accounts of a file.  Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"[access] htpasswd: {shown(path)} cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE:
        raise ConfigError(f"{path}: is larger than any htpasswd file")
    try:
        return Accounts.parse(raw.decode("utf-8"), path)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
