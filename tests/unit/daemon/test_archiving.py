"""The look at the archive when docxy starts."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from docxy.archive.calm import CalmArchive
from docxy.daemon.archiving import CHECK, Archiving
from docxy.pull.marking import Marking
from tests.fakes.archive import MemoryArchive


@define(eq=False)
class WriteOnly(MemoryArchive):
    """Its records cannot be read."""

    async def record(self, name: str) -> bytes | None:
        return None


class CheckTests(SynchronousTestCase):
    def check(self, archive: MemoryArchive) -> list[str]:
        """What the operator is told."""
        calm = CalmArchive(archive, Clock())
        marking = Marking(calm, None, None, Clock().seconds)
        with capturedLogs() as logs:
            self.successResultOf(
                Deferred.fromCoroutine(Archiving(Service(), calm, None, marking, None, Clock()).check())
            )
        return [str(formatEvent(event)) for event in logs]

    def test_works(self) -> None:
        """It is written and read once."""
        archive = MemoryArchive()
        self.assertEqual(self.check(archive), ["the archive is s3://memory"])
        self.assertEqual(archive.asked, [f"write {CHECK}", f"record {CHECK}"])

    def test_fails(self) -> None:
        """What is wrong is told: not to be written, or not to be read."""
        end = "; pulls go on without the archive"
        self.assertEqual(
            self.check(MemoryArchive(failing=True)), [f"degraded: s3://memory: cannot write {CHECK}: 503{end}"]
        )
        self.assertEqual(
            self.check(WriteOnly()),
            [f"degraded: s3://memory: docxy may write there, but not read what it wrote{end}"],
        )
