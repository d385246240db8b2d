"""The keys that docxy signs tokens with: those of its cache, or of a file that the operator gives to every node.

The law: *the first key signs, all of them read*, so that a key can be changed without ending a login; nobody but the
user and the group that docxy runs as may read the file.  docxy does not start with a file that it cannot use; if a
later version of the file is wrong, the last good one stays in force.
"""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from docxy.settings.model import ConfigError
from docxy.settings.parsers import shown

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the file."""
MAX_FILE = 4096
"""Bytes."""
MAX_KEYS = 2
"""One that signs, and one that still reads or is to sign next."""
MIN_KEY = 32
"""Bytes."""

_Signature = tuple[int, int, int, int, int]


class ITokenKeys(Protocol):
    """Where keys come from."""

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """The keys for one purpose, of at least 32 bytes; nothing can be told from them of another purpose's."""


@frozen
class OwnKey:
    """A key that only the processes of this docxy share."""

    _derive: Callable[[str], bytes] = field(repr=False)

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        return (self._derive(purpose),)


class KeyFile:
    """The keys of a file, read again when it changes."""

    _log = Logger()

    def __init__(self, path: str, clock: IReactorTime) -> None:
        """Raises ConfigError."""
        self._path = path
        self._clock = clock
        self._seen = _signature(path)
        self._checked = clock.seconds()
        self._keys = load(path)
        self._derived: dict[str, tuple[bytes, ...]] = {}

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        now = self._clock.seconds()
        if not 0 <= now - self._checked < CHECK_INTERVAL:
            self._checked = now
            if _signature(self._path) != self._seen:
                self.reload()
        known = self._derived.get(purpose)
        if known is None:
            known = self._derived[purpose] = tuple(derive(key, purpose) for key in self._keys)
        return known

    @property
    def count(self) -> int:
        """How many keys are in force."""
        return len(self._keys)

    def reload(self) -> str | None:
        """Read the file now; why it cannot be used, None when it can.  The last good one stays in force."""
        # Before the file is read: what changes meanwhile is seen the next time.
        self._seen = _signature(self._path)
        try:
            self._keys = load(self._path)
        except ConfigError as error:
            self._log.error("token key file not reloaded, the keys stay as they were: {error}", error=error)
            return str(error)
        self._derived = {}
        self._log.info("token key file reloaded: {count} keys", count=len(self._keys))
        return None


def derive(key: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose."""
    return hmac.digest(key, f"docxy {purpose}".encode(), "sha256")


def load(path: str) -> tuple[bytes, ...]:
    """The keys of a file, one a line; `#` begins a comment.  Raises ConfigError, which holds no key."""
    what = f"[access] token_key_file: {shown(path)}"
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}") from None
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigError(f"{what} is open to others: its mode is {mode:04o}; make it 0600 with chmod")
    if len(raw) > MAX_FILE:
        raise ConfigError(f"{what} has more than {MAX_FILE} bytes")
    lines = [line.strip() for line in raw.split(b"\n")]
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys:
        raise ConfigError(f"{what} holds no key; make one with: openssl rand -base64 48")
    if len(keys) > MAX_KEYS:
        raise ConfigError(f"{what} holds {len(keys)} keys; {MAX_KEYS} are the most: the one that signs and another")
    if any(len(key) < MIN_KEY for key in keys):
        raise ConfigError(f"{what} holds a key of less than {MIN_KEY} bytes; make one with: openssl rand -base64 48")
    if len(set(keys)) < len(keys):
        raise ConfigError(f"{what} holds the same key twice")
    return keys


def _signature(path: str) -> _Signature | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
