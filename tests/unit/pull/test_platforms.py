"""Which platform of an index an archive has."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.pull.archive.platforms import chosen


class Choice(SynchronousTestCase):
    def test_variants(self) -> None:
        """A platform without its variant is what most machines of it run; one with it is not taken for another."""
        offered = {
            "a": "linux/arm/v6",
            "b": "linux/arm/v7",
            "c": "linux/arm64/v8",
            "d": "linux/amd64",
            "e": "linux/s390x",
        }
        for wanted, key in {
            None: "d",
            "linux/arm": "b",
            "linux/arm/v6": "a",
            "linux/arm/v5": None,
            "linux/arm64": "c",
            "linux/arm64/v8": "c",
            "linux/amd64/v1": "d",
            "linux/amd64/v3": None,
            "windows/amd64": None,
        }.items():
            self.assertEqual(chosen(wanted, offered), key, wanted)
        self.assertEqual(chosen(None, {"only": "linux/s390x"}), "only")
        self.assertEqual(chosen("linux/arm64/v8", {"x": "linux/arm64"}), "x")
