"""What a worker needs to know, from its supervisor.

The law: it comes through a pipe that nobody else reads, for it holds the key of the certificate and
the passwords of accounts; nothing of it is on a command line, in the environment or on disk.
"""

from __future__ import annotations

import pickle
from typing import BinaryIO

from attrs import frozen

from docxy.settings.model import Config

CHANNEL = 3
"""Descriptor of the socket to the supervisor; from the next one on come the listeners'."""


@frozen
class ListenerStart:
    """A port that the supervisor opened."""

    description: str
    family: int


@frozen
class Start:
    """One worker."""

    number: int
    """From 1."""
    config: Config
    """With the size of the cache, and the public URL, that all of them go by."""
    secret: str
    """Of `Siblings`."""
    pem: tuple[bytes, bytes] | None
    """Certificate and key, which the worker may not be allowed to read; None: there is none (yet)."""
    listeners: tuple[ListenerStart, ...]
    timestamps: bool
    """Whether the lines it prints have the time; the supervisor's log may have its own."""

    def dump(self) -> bytes:
        return pickle.dumps(self)

    @classmethod
    def load(cls, file: BinaryIO) -> Start:
        """Reads to the end."""
        start = pickle.loads(file.read())
        assert isinstance(start, cls)
        return start
