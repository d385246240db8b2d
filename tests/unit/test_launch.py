"""What is settled before anything is served."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.listeners import Listeners
from docxy.launch import serve, settled
from docxy.observe.metrics import NoMeter
from docxy.observe.one_process import OneProcess
from docxy.observe.view import Reading
from docxy.orders.in_force import InForce
from docxy.orders.policies import Policies
from docxy.settings.load import load
from docxy.settings.model import Config, ConfigError
from docxy.siblings import Siblings
from docxy.storage.cache_size import SHARE
from tests.harness.built import read_model
from tests.unit.access.harness import logged

Usage = namedtuple("Usage", "total used free")


class FailingMeter(NoMeter):
    """Counts how often it is told that there is no cache."""

    failed = 0

    def failing(self) -> None:
        self.failed += 1


class Closed:
    """A listener that nobody reaches."""

    def serve(self, factory: object) -> None:
        return


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.patch(shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**9))

    def config(self, **environ: str) -> Config:
        return load({}, {"CERT_PATH": "off", **environ})

    def test_named(self) -> None:
        """A cache that was named and cannot be used ends the start with a line that says what to do."""
        self.directory.write_text("a file")
        for environ in ({"CACHE_DIR": str(self.directory)}, {"CACHE_DIR": str(self.directory / "below")}):
            error = self.assertRaises(ConfigError, settled, self.config(**environ))
            self.assertRegex(
                str(error), rf"\Athe cache {environ['CACHE_DIR']} cannot be used: (File|Not a dir).*--cache off\Z"
            )

    def test_default(self) -> None:
        """The cache at its default place is done without where there is none, for all processes alike."""
        self.directory.write_text("a file")
        config = self.config(XDG_CACHE_HOME=str(self.directory))
        self.assertIsNotNone(config.cache)
        with logged() as lines:
            without = settled(config)
        self.assertEqual((without.cache, without.cache_failure), (None, "Not a directory"))
        self.assertIn("going on WITHOUT a cache", lines[0])

    def test_failing_is_told(self) -> None:
        """A cache that could not be used at the start is a metric, and told to the model; one that is off is not."""
        for failure, failed in (("Permission denied", 1), (None, 0)):
            config = evolve(self.config(CACHE_DIR="off", PUBLIC_URL="http://a.example"), cache_failure=failure)
            reactor, meter = MemoryReactorClock(), FailingMeter()
            view, model = read_model(config, reactor)
            front: Any = Closed()
            listeners = Listeners(front, None)
            reading = Reading(OneProcess(model, 1), view)
            in_force = InForce(config, Policies(config.policy))
            serving = serve(config, None, listeners, meter, Siblings.alone(), reading, in_force, reactor)
            self.assertEqual((meter.failed, model.snapshot()["docxy"]["cache_failure"]), (failed, failure))
            self.successResultOf(Deferred.fromCoroutine(serving.stop(0.0)))

    def test_size(self) -> None:
        """Without a size it is a share of what is free."""
        with logged() as lines:
            self.assertEqual(settled(self.config(CACHE_DIR=str(self.directory))).cache_size, int(SHARE * 10**9))
        self.assertEqual(lines, [f"cache in {self.directory}, at most 800 MB"])

    def test_small_disk(self) -> None:
        """A disk that is full before the cache is gets a warning at the start."""
        with logged() as lines:
            settled(self.config(CACHE_DIR=str(self.directory), CACHE_SIZE="20GB"))
        self.assertIn("has room for 1 GB, less than --cache-size 20 GB", lines[1])
        with logged() as lines:
            settled(self.config(CACHE_DIR=str(self.directory), CACHE_SIZE="1GB"))
        self.assertEqual(len(lines), 1)

    def test_off(self) -> None:
        """Without a cache nothing is looked at."""
        with logged() as lines:
            self.assertIsNone(settled(self.config(CACHE_DIR="off")).cache)
        self.assertEqual(lines, [])
