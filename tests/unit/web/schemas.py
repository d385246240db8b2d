"""The JSON Schemas of docs, for answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

_DOCS = Path(__file__).resolve().parents[3] / "docs"


def schema(name: str) -> dict[str, Any]:
    """`status`, `pulls` or `quota`."""
    found: dict[str, Any] = json.loads((_DOCS / f"{name}.schema.json").read_text("utf-8"))
    return found


def check(name: str, answer: object) -> None:
    """Fails if an answer is not what its schema says."""
    jsonschema.validate(answer, schema(name))
