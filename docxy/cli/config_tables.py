"""What the tables of the configuration file came to, on the screen of `docxy config show` and as JSON.

The law: a default that is nothing takes no line on the screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from docxy.cli.screen import BOLD, QUIET, clean, grid, heading
from docxy.observe.verdict import amount, duration
from docxy.settings.origins import DEFAULT, Table, Tables

SHOWN = 20
"""Tables of one kind."""
_SECONDS = frozenset({"tag_ttl", "min_age", "every"})
_KINDS = {"freeze": "Frozen", "recall": "Recalled", "keep": "Kept", "cooldown": "Cooldown"}


def told(found: Tables) -> dict[str, Any]:
    """For JSON."""
    return {
        "upstreams": [
            {"name": each.values["name"].value, "url": each.values["url"].value, "settings": each.told()}
            for each in found.upstreams
        ],
        "access": found.access.told(),
        "policy": {kind: [each.told() for each in tables] for kind, tables in found.policy.items()},
        "webhooks": [each.told() for each in found.webhooks],
        "archive": None if found.archive is None else found.archive.told(),
    }


def shown(found: Tables) -> Iterator[RenderableType]:
    """For people."""
    for each in found.upstreams:
        yield heading(clean(each.values["name"].value))
        yield _rows([each], hidden=("name",))
    for name, tables in (
        ("Access", [found.access]),
        *((_KINDS[kind], of_kind) for kind, of_kind in found.policy.items()),
        ("Webhooks", found.webhooks),
        ("Archive", [] if found.archive is None else [found.archive]),
    ):
        if any(value.origin != DEFAULT for table in tables for value in table.values.values()):
            yield heading(name)
            yield _rows(tables[:SHOWN])
            if len(tables) > SHOWN:
                yield Text(f"and {len(tables) - SHOWN} more, which --json has", QUIET)


def _rows(tables: Sequence[Table], hidden: Sequence[str] = ()) -> RenderableType:
    rows = grid({"no_wrap": True}, {"overflow": "fold", "ratio": 2}, {"overflow": "fold", "ratio": 1})
    for number, table in enumerate(tables):
        if number:
            rows.add_row()
        for key, each in table.values.items():
            if key in hidden or (each.origin == DEFAULT and not each.value):
                continue
            if key == "on_new" and not table.values["min_age"].value:
                continue
            style = QUIET if each.origin == DEFAULT else ""
            # The file is named above.
            name, _, place = each.origin.partition(" in ")
            place = name if name.startswith("[") else "the file" if name == key else each.origin
            rows.add_row(key, Text(_value(key, each.value), style or BOLD), Text(clean(place), style))
    return rows


def _value(key: str, value: Any) -> str:
    if value is None:
        return "off"
    if key in _SECONDS:
        return duration(value) if value else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return "\n".join(f"{clean(name)}: {_value('', each)}" for name, each in value.items())
    if isinstance(value, list):
        gap = "\n" if any(isinstance(each, Mapping) for each in value) else ", "
        return gap.join(_value("", each) for each in value) or "none"
    if key == "max_rate":
        return f"{amount(value)}/s"
    return clean(f"{value:.10g}" if isinstance(value, float) else value)
