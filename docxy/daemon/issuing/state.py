"""Where docxy keeps the certificates that it gets for itself.

    <directory>/                        0700
        certificate.pem                 chain and key of what is served; one file, so that they always fit
        ca.pem, ca.key                  docxy's own authority (`--tls internal`)
        account-<of the directory>.key  the account at an ACME server
        challenges/<token>              answers that an ACME server is about to ask for
        renewal.json                    failures in a row, and when to try again
        lock                            held by who gets a certificate

The law: a file is private and whole: it is written beside its place with mode 0600, flushed to the disk,
and then renamed.  All of it blocks: it runs in a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attrs import asdict, frozen

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
LARGEST = 1 << 20
"""Bytes of a file that are read."""


@frozen
class IssuingRecord:
    """How getting certificates has gone, kept so that a restart asks no earlier."""

    source: str = ""
    """Who issues them."""
    failures: int = 0
    """In a row."""
    due: float = 0.0
    """When to try again after a failure, in seconds since the epoch."""
    error: str = ""
    """Of the last failure."""
    failed: float = 0.0
    """When that was."""
    issued: float = 0.0
    """When the last certificate was got."""


@frozen
class StateDirectory:
    """The files below one directory.  Methods that write raise OSError."""

    directory: str

    @property
    def certificate(self) -> str:
        return os.path.join(self.directory, "certificate.pem")

    @property
    def ca(self) -> str:
        return os.path.join(self.directory, "ca.pem")

    @property
    def ca_key(self) -> str:
        return os.path.join(self.directory, "ca.key")

    def account(self, url: str) -> str:
        """The key of the account at the ACME server with this directory."""
        return os.path.join(self.directory, f"account-{hashlib.sha256(url.encode()).hexdigest()[:16]}.key")

    def create(self) -> None:
        """Make what is missing."""
        os.makedirs(self.directory, 0o700, exist_ok=True)

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is none.  Raises OSError if it cannot be read."""
        try:
            with open(path, "rb") as file:
                return file.read(LARGEST)
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Put a file in its place, whole."""
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))  # with mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def challenge(self, token: str) -> bytes | None:
        """What to answer an ACME server that asks for a token; None for one that docxy does not know."""
        if _TOKEN.fullmatch(token) is None:
            return None
        try:
            return self.read(self._challenge(token))
        except OSError:
            return None

    def offer(self, token: str, answer: bytes) -> None:
        """From now on every process answers this challenge.  Raises ValueError for what is no token."""
        if _TOKEN.fullmatch(token) is None:
            raise ValueError("the server's token is none (RFC 8555, section 8.3)")
        self.write(self._challenge(token), answer)

    def withdraw(self) -> None:
        """Answer no challenge any more, of any process."""
        with suppress(OSError):
            for entry in os.scandir(os.path.join(self.directory, "challenges")):
                os.unlink(entry.path)

    def _challenge(self, token: str) -> str:
        return os.path.join(self.directory, "challenges", token)

    def record(self) -> IssuingRecord:
        """How it has gone; an empty one where that is unknown."""
        try:
            return IssuingRecord(**json.loads(self.read(os.path.join(self.directory, "renewal.json")) or b"{}"))
        except (OSError, ValueError, TypeError):
            return IssuingRecord()

    def remember(self, record: IssuingRecord) -> None:
        """Keep it for a restart, if the disk takes it."""
        with suppress(OSError):
            self.write(os.path.join(self.directory, "renewal.json"), json.dumps(asdict(record)).encode("ascii"))

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other docxy with this directory gets a certificate meanwhile."""
        self.create()
        descriptor = os.open(os.path.join(self.directory, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
