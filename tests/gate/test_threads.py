"""Passwords are checked off the reactor's thread."""

from __future__ import annotations

import threading

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from docxy.gate.threads import PasswordThreads


class ThreadTests(TestCase):
    async def test_elsewhere(self) -> None:
        """Work is done in another thread, whose end the service's stop waits for."""
        service = PasswordThreads(reactor)
        service.startService()
        where = await service.in_thread(threading.current_thread)
        self.assertNotEqual(where, threading.current_thread())
        service.stopService()
        self.assertFalse(where.is_alive())
