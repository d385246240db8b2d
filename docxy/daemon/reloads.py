"""What became of a file that docxy was told to load again.

The law: *a file that cannot be used changes nothing*: what was loaded before stays in force, and the operator is
told why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen


@frozen
class Reloaded:
    """One file."""

    what: str
    """As `certificate`, or `password of alice`."""
    ok: bool
    """False: the file was refused, and the old stays."""
    says: str
    """What is in force now, or what is wrong with the file."""


Reload = Callable[[], Sequence[Reloaded]]
"""Loads again; raises nothing."""


def reload_all(reloads: Iterable[Reload]) -> list[Mapping[str, Any]]:
    """Load everything again; for JSON."""
    return [asdict(each) for reload in list(reloads) for each in reload()]
