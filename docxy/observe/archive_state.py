"""How the archive is, as the processes of a docxy tell it.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def merged(states: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the processes say of the archive, as one; one of them puts and knows what waits."""
    if not states:
        return None
    return {
        "name": states[0]["name"],
        "failure": next((state["failure"] for state in states if state["failure"]), None),
        **{what: sum(state[what] for state in states) for what in ("failed", "put", "read")},
        "waiting": next((state["waiting"] for state in states if state["waiting"] is not None), 0),
    }
