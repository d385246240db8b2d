"""`docs/security.md` names the tests that show what it promises: they are there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import TestCase

from twisted.trial.unittest import SynchronousTestCase

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"


def found(name: str) -> Any:
    """The module, class or method of this dotted name; raises LookupError."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            thing = getattr(thing, part, None)
        if thing is not None:
            return thing
        break
    raise LookupError(name)


def tests_of(thing: Any) -> list[str]:
    """The names of the tests in it."""
    if isinstance(thing, type):
        return [name for name in dir(thing) if name.startswith("test")] if issubclass(thing, TestCase) else []
    if callable(thing):
        return [thing.__name__]
    return [name for each in vars(thing).values() if isinstance(each, type) for name in tests_of(each)]


class SecurityPage(SynchronousTestCase):
    def test_tests_exist(self) -> None:
        """Every test, class or module that the page names is there, and has tests."""
        names = re.findall(r"`(tests\.[\w.]+)`", PAGE.read_text("utf-8"))
        self.assertGreater(len(names), 25)
        for name in names:
            self.assertTrue(tests_of(found(name)), name)

    def test_promises(self) -> None:
        """Every promise names a test."""
        _, _, rest = PAGE.read_text("utf-8").partition("## What docxy promises\n")
        promises = re.findall(r"^- (?:.+\n)(?:  .+\n)*", rest.partition("\n## ")[0], re.MULTILINE)
        self.assertEqual(len(promises), rest.partition("\n## ")[0].count("\n- "))
        self.assertGreater(len(promises), 35)
        self.assertEqual([promise for promise in promises if "`tests." not in promise], [])

    def test_others_are_missed(self) -> None:
        """A name that leads nowhere is noticed."""
        for name in ("tests.unit.no_such", "tests.unit.pull.test_private.NoSuch", f"{__name__}.SecurityPage.test_no"):
            self.assertRaises(LookupError, found, name)
        self.assertEqual(tests_of(Path), [])
