"""What an operator chose for the gate; `docxy.gate.table` makes it."""

from __future__ import annotations

from attrs import field, frozen

from docxy.gate.addresses import Perimeter
from docxy.gate.rules import Rules


@frozen
class GateSettings:
    """Who may come in, as an operator wrote it."""

    htpasswd: str | None = None
    """Path; None: nobody is asked to log in."""
    perimeter: Perimeter = field(factory=Perimeter)
    rules: Rules = field(factory=Rules)
