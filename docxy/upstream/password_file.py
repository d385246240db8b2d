"""An account of docxy's own, whose password may change while docxy runs.

The law: a password in a file is read again when the file has changed, when the upstream refuses it and
at a SIGHUP, so that what renews it (ECR's lives 12 hours) needs no restart.  A file that can no longer
be used leaves the password that worked.
"""

from __future__ import annotations

from contextlib import suppress

from twisted.logger import Logger
from zope.interface import implementer

from docxy.file_mark import Mark, mark
from docxy.settings import parsers
from docxy.settings.model import Credential
from docxy.upstream.login import IAccountSecret, Login


@implementer(IAccountSecret)
class AccountPassword:
    """One account's name and present password."""

    _log = Logger()

    def __init__(self, credential: Credential) -> None:
        self.username = credential.username
        self._password = credential.password
        self._file = self.source = credential.password_file
        self.failure: str | None = None
        """Why the file could not be used when it was last read, as the end of a sentence."""
        self._seen = self._mark()
        if self._file is not None:
            # A worker that is started again may have been told the password of days ago.
            with suppress(ValueError):
                self._password = parsers.password_in_file(self._file)

    async def login(self) -> Login:
        if self._mark() != self._seen:
            self._read()
        return Login(self.username, self._password)

    async def renew(self) -> bool:
        return self._read()

    def reload(self) -> str | None:
        self._read()
        return self.failure

    def _read(self) -> bool:
        """Read the password's file now; whether it holds another one than before."""
        if self._file is None:
            return False
        self._seen = self._mark()
        try:
            password = parsers.password_in_file(self._file)
        except ValueError as error:
            self.failure = str(error)
            self._log.warn(
                "the password of {username} stays as it was: {path} {error}",
                username=self.username,
                path=self._file,
                error=error,
            )
            return False
        self.failure = None
        changed, self._password = password != self._password, password
        if changed:
            self._log.info("read the new password of {username} in {path}", username=self.username, path=self._file)
        return changed

    def _mark(self) -> Mark | None:
        return None if self._file is None else mark(self._file)
