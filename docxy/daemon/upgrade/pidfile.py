"""twistd's pidfile, which goes over to the docxy that takes over.

The law: *the file has the number of the docxy that serves*.  It is opened with the privileges of the start and
written through that descriptor, because the user that docxy became may not be allowed to.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

_log = Logger()


class PidFile(Service):
    """As twistd's options name it; there may be none."""

    def __init__(self, twistd: MutableMapping[str, Any] | None, path: str, descriptor: int | None) -> None:
        """`twistd`: its options, where it runs this process, which writes and removes the file.

        `path`, `descriptor`: of the docxy from which this one takes over; without one `''` and None.
        """
        self._twistd = twistd
        self._taken = path
        self.descriptor = descriptor

    @property
    def path(self) -> str:
        """Its path; empty: there is none."""
        return self._taken or (str(self._twistd.get("pidfile") or "") if self._twistd is not None else "")

    def privilegedStartService(self) -> None:
        if self.descriptor is None and self.path:
            with suppress(OSError):
                self.descriptor = os.open(self.path, os.O_RDWR)

    def leave(self) -> None:
        """It is another process's from now on: twistd does not remove it when this one ends."""
        self._taken = ""
        if self._twistd is not None:
            self._twistd["pidfile"] = ""

    def take(self) -> None:
        """It is this process's from now on."""
        if not self.path:
            return
        try:
            if self.descriptor is None:
                raise OSError(0, "it could not be opened at the start")
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, b"%d" % os.getpid(), 0)
        except OSError as error:
            _log.warn("{path} still has the old docxy's number: {why}", path=self.path, why=error.strerror)
        if self._twistd is not None:
            self._twistd["pidfile"] = self.path
