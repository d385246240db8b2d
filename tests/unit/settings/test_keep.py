"""`[[keep]]`: what its tables mean."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.settings.keep import read
from docxy.settings.model import ConfigError, Upstream
from docxy.settings.policy import Keep, Quiet
from docxy.settings.tables import TomlTable

UPSTREAMS = [Upstream("docker.io", "https://x.test", library=True), Upstream("ghcr.io", "https://y.test")]


def keep(**table: Any) -> Keep:
    return read(TomlTable(table, "[[keep]] 1 in docxy.toml"), UPSTREAMS)


class Tables(SynchronousTestCase):
    def test_whole(self) -> None:
        """Every key, and names as docker has them."""
        found = keep(
            images=["python:3.*", "ghcr.io/o/i", "alpine:3.20"],
            platforms=["linux/amd64", "all"],
            every="12h",
            quiet="23:30-05:00",
            hot=50,
        )
        self.assertEqual(
            [*map(str, found.images)],
            ["docker.io/library/python:3.*", "ghcr.io/o/i:latest", "docker.io/library/alpine:3.20"],
        )
        self.assertEqual((found.platforms, found.every, found.hot), (("linux/amd64", "all"), 43200.0, 50))
        self.assertEqual(str(found.quiet), "23:30-05:00")
        self.assertEqual((keep(hot=1).every, keep(hot=1).quiet), (6 * 3600.0, None))

    def test_wrong(self) -> None:
        """What is wrong is one line that names the table, the key and the value."""
        for table, what in (
            ({}, "give images, or hot"),
            ({"image": ["alpine"]}, "did you mean images?"),
            ({"images": "alpine"}, "not an array"),
            ({"images": ["library/*:3"]}, "wildcard in its repository"),
            ({"images": ["quay.io/o/i"]}, "does not mirror"),
            ({"images": ["alpine"], "platforms": ["amd64"]}, "not a platform"),
            ({"images": ["alpine"], "every": "5m"}, "from 10m to 31d"),
            ({"images": ["alpine"], "every": "soon"}, "from 10m to 31d"),
            ({"images": ["alpine"], "quiet": "1-5"}, "01:00-05:00"),
            ({"images": ["alpine"], "quiet": "01:00-24:00"}, "01:00-05:00"),
            ({"hot": 0}, "from 1 to 500"),
            ({"hot": True}, "not a number"),
        ):
            error = self.assertRaises(ConfigError, keep, **table)
            self.assertIn("[[keep]] 1 in docxy.toml", str(error))
            self.assertIn(what, str(error))

    def test_quiet(self) -> None:
        """The hours of a night that has midnight in it, of a day, and all day."""
        night, day, always = Quiet(23 * 60, 5 * 60), Quiet(60, 120), Quiet(60, 60)
        self.assertEqual([night.holds(each) for each in (1379, 1380, 1439, 0, 299, 300)], [False, *[True] * 4, False])
        self.assertEqual([day.holds(each) for each in (59, 60, 119, 120)], [False, True, True, False])
        self.assertTrue(always.holds(0) and always.holds(60))
