"""How getting certificates goes, for those who look at docxy.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from docxy.daemon.issuing.state import IssuingRecord


@frozen
class CertificateStanding:
    """As one process sees it."""

    source: str
    names: Sequence[str]
    renews: float | None = None
    """When the certificate is to be renewed; None: there is none, or nobody has looked yet."""
    record: IssuingRecord = field(factory=IssuingRecord)

    def to_json(self) -> dict[str, Any]:
        failed = self.record.failures > 0
        return {
            "source": self.source,
            "names": list(self.names),
            "renews": self.renews,
            "failures": self.record.failures,
            "error": self.record.error if failed else None,
            "failed": self.record.failed if failed else None,
            "next": self.record.due if failed else None,
        }
