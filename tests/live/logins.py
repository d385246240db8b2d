"""What tests of logins share: an account of docxy's own, a client without one, and a log without secrets."""

from __future__ import annotations

import base64
from pathlib import Path

import bcrypt

from tests.live.case import LiveTestCase
from tests.live.clients import Client, Make
from tests.live.daemon import Docxy

ACCOUNT = ("anna", "glass-mountain-seven")


def account_table(directory: Path) -> str:
    """The `[access]` table with which docxy wants this account; its htpasswd file is in `directory` then."""
    user, password = ACCOUNT
    htpasswd = directory / "htpasswd"
    htpasswd.write_text(f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n")
    return f'[access]\nhtpasswd = "{htpasswd}"\n'


class LoginTestCase(LiveTestCase):
    """How tests of logins get a client and look into the log."""

    docxy: Docxy
    """In front of the bed, running."""

    def client(self, make: Make) -> Client:
        """A client without an account, running."""
        client = make(self.machine(self.docxy.target), self.reactor)
        self.addCleanup(client.stop)
        client.start()
        return client

    def assert_no_secrets(self, *accounts: tuple[str, str]) -> None:
        """No password of these (user, password) and no token is in docxy's log, in any form that it travels in."""
        log = self.docxy.daemon.text()
        for user, password in accounts:
            self.assertNotIn(password, log)
            self.assertNotIn(base64.b64encode(f"{user}:{password}".encode()).decode(), log)
        # Every JSON Web Token begins with `{"` in base64.
        self.assertNotIn("eyJ", log)
        self.assertNotIn("refresh_token=", log)
