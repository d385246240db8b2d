"""The steward of a docxy that runs."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from docxy.questions import Nobody
from docxy.settings.load import load
from docxy.settings.policy import Policy
from docxy.steward import steward
from docxy.steward.lines import Failed
from docxy.steward.steward import Stewardship
from docxy.storage.large import Large
from docxy.storage.shares import Shares

reactor: Any = _reactor


class StewardshipTests(TestCase):
    def test_shares(self) -> None:
        """It opens the cache with the shares that are configured: what goes first does so whoever makes room."""
        opened: list[Any] = []

        def open_cache(*given: Any) -> Any:
            opened.extend(given)
            raise Failed("enough")

        self.patch(steward, "open_cache", open_cache)
        settings = {"CERT_PATH": "off", "HISTORY_SHARE": "0.25", "LARGE_SHARE": "0.75", "LARGE_BLOB": "1GB"}
        view: Any = None
        mine = Stewardship(load({}, settings), Policy, "/cache", 100, Nobody(), view, reactor, reactor)
        self.assertRaises(Failed, mine.steward)
        self.assertEqual(opened[:3], ["/cache", 100, Shares(0.25, Large(10**9, 0.75))])
