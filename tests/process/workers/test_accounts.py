"""Accounts of docxy's own, at several workers: one login, one count of wrong passwords."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import bcrypt

from tests.process.workers.harness import WorkersCase


class AccountTests(WorkersCase):
    def setUp(self) -> None:
        self.where = Path(self.mktemp()).resolve()
        self.where.mkdir()
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
        (self.where / "htpasswd").write_text(f"alice:{hashed}\n")
        self.config = self.where / "docxy.toml"
        self.config.write_text(f'[access]\nhtpasswd = "{self.where}/htpasswd"\n')

    def basic(self, password: str, user: str = "alice") -> dict[str, str]:
        return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}

    def test_tokens(self) -> None:
        """A token that one worker issued is good at another, without a cache too."""
        for cache in ("off", str(self.where / "cache")):
            self.start(DOCXY_CONFIG=str(self.config), CACHE_DIR=cache)
            first, second = (self.connect(pid) for pid in self.workers())
            answer = self.ask(first, "/auth/token?scope=repository:library/alpine:pull", self.basic("secret"))
            token = answer.read().decode().split('"token": "')[1].split('"')[0]
            self.assertEqual(self.status(second, "/v2/", {"Authorization": f"Bearer {token}"}), 200)
            self.assertEqual(self.status(second, "/v2/", {"Authorization": f"Bearer {token}x"}), 401)
            self.daemon.stop()

    def test_wrong_passwords(self) -> None:
        """Wrong passwords at one worker count at the others."""
        self.start(DOCXY_CONFIG=str(self.config))
        first, second = (self.connect(pid) for pid in self.workers())
        statuses = [self.status(first, "/v2/", self.basic(f"wrong{number}")) for number in range(8)]
        self.assertEqual((statuses[:5], set(statuses[5:])), ([401] * 5, {429}))
        self.settle()
        self.assertEqual(self.status(second, "/v2/", self.basic("secret")), 429)

    def test_hangup(self) -> None:
        """When a reload has ended every worker knows the accounts of the file; a broken one leaves those that were."""
        self.start(DOCXY_CONFIG=str(self.config))
        connections = [self.connect(pid) for pid in self.workers()]

        def statuses(user: str) -> set[int]:
            return {self.status(each, "/v2/", self.basic("secret", user)) for each in connections}

        self.assertEqual(statuses("alice"), {200})
        accounts = self.where / "htpasswd"
        text = accounts.read_text().replace("alice", "bob")
        accounts.write_text(text)
        self.daemon.reload()
        self.assertEqual((statuses("alice"), statuses("bob")), ({401}, {200}))
        accounts.write_text(text + "broken\n")
        self.daemon.reload()
        self.assertGreaterEqual(self.daemon.text().count("the accounts stay as they were"), 2)
        self.assertEqual(statuses("bob"), {200})
