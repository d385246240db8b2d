"""The configuration reference is made from the tables, and the page in `docs/` is the newest one."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docxy.settings import reference
from docxy.settings.options import OPTIONS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


class ReferenceTests(SynchronousTestCase):
    """`python -m docxy.settings.reference`."""

    def test_page_is_new(self) -> None:
        """If this fails: `python -m docxy.settings.reference > docs/configuration.md`."""
        self.assertEqual(PAGE.read_text("utf-8"), reference.reference())

    def test_every_option(self) -> None:
        """Each option has its row, with its variable in the environment."""
        text = reference.reference()
        for option in OPTIONS:
            self.assertIn(f"`{option.env}`", text)

    def test_unexplained_key(self) -> None:
        """A key that the program takes and the page does not explain is an error that names it."""
        self.patch(reference, "UPSTREAM_KEYS", {"name": "…"})
        error = self.assertRaises(LookupError, reference.reference)
        self.assertIn("max_connections", str(error))
