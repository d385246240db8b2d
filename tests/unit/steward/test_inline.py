"""The steward on the directory of a docxy that does not run."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from docxy.steward.inline import run
from docxy.steward.lines import Act, Arguments, Failed, Lines, done
from docxy.steward.steward import Steward
from docxy.storage.paths import Tree
from docxy.storage.presence import Presence
from tests.unit.steward.case import StewardCase


async def nothing(steward: Steward, arguments: Arguments) -> Lines:
    """An act."""
    yield done(free=await steward.store.free())


READS, CHANGES = Act(nothing, changes=False), Act(nothing, changes=True)
NONE = Arguments({})


class Stopped(StewardCase):
    def test_reads_and_changes(self) -> None:
        """Where no docxy serves, every act is done."""
        for act in (READS, CHANGES):
            (line,) = run(self.directory, act, NONE)
            self.assertGreater(line["done"]["free"], 0)

    def test_docxy_runs(self) -> None:
        """What changes anything is refused while a process serves from the directory, and what reads is not."""
        presence = Presence(Tree(self.directory))
        self.addCleanup(presence.close)
        self.assertEqual(len(list(run(self.directory, READS, NONE))), 1)
        error = self.assertRaises(Failed, list, run(self.directory, CHANGES, NONE))
        self.assertIn("without --cache", error.message)
        presence.close()
        self.assertEqual(len(list(run(self.directory, CHANGES, NONE))), 1)

    def test_two_serve(self) -> None:
        """The directory is used until the last of its processes has ended."""
        first, second = Presence(Tree(self.directory)), Presence(Tree(self.directory))
        first.close()
        self.assertRaises(Failed, list, run(self.directory, CHANGES, NONE))
        second.close()
        self.assertEqual(len(list(run(self.directory, CHANGES, NONE))), 1)


class NoCache(SynchronousTestCase):
    def test_no_cache(self) -> None:
        """A directory that is no cache is left as it is."""
        path = self.mktemp()
        os.makedirs(path)
        error = self.assertRaises(Failed, list, run(path, READS, NONE))
        self.assertIn("no cache", error.message)
        self.assertEqual(os.listdir(path), [])
