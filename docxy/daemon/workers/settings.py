"""Other settings on their way from the supervisor to a worker.

The law: a worker puts settings in force when all of them have come, and not before.  As all else that a worker knows,
they come from the supervisor, which alone reads the file: so all workers have the same ones.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable

from twisted.protocols.amp import AMP

from docxy.daemon.workers.messages import NewSettings
from docxy.settings.model import Config

PIECE = 60_000
"""Bytes; AMP's own bound is 65,535."""


def send_settings(link: AMP, config: Config) -> None:
    """Send them to the worker at the other end."""
    whole = pickle.dumps(config)
    for at in range(0, len(whole), PIECE):
        link.callRemote(NewSettings, piece=whole[at : at + PIECE], is_last=at + PIECE >= len(whole))


class SettingsPieces:
    """What has come of them."""

    def __init__(self, put: Callable[[Config], object]) -> None:
        self._put = put
        self._pieces: list[bytes] = []

    def take(self, piece: bytes, is_last: bool) -> None:
        """One more piece; they come in order."""
        self._pieces.append(piece)
        if is_last:
            config = pickle.loads(b"".join(self._pieces))
            self._pieces = []
            assert isinstance(config, Config)
            self._put(config)
