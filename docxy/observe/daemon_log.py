"""What the daemon's log says of events: for people, or as JSON; and how much.

The law: a line that is complete already, of the access log or of a worker, is written as it is, whatever
the level; of all else, a line says when,
which part of docxy (`docxy.settings.log_level.PARTS`), and what.
"""

from __future__ import annotations

import json
import time
from typing import Any, TextIO

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    eventAsText,
    formatEvent,
    formatTime,
)
from zope.interface import implementer

from docxy.observe.access_line import stamp
from docxy.settings.log_level import PARTS, LogLevels
from docxy.settings.model import LogFormat

WHOLE = "docxy.whole"
"""The namespace of lines that are complete already; an event of it has its line as `whole`."""
_OWN = "docxy"
"""The part of what is in none of the packages."""


@implementer(ILogObserver)
class DaemonObserver:
    """Writes events to a file."""

    def __init__(self, file: TextIO, format: LogFormat, levels: LogLevels, stamped: bool) -> None:
        """`stamped`: whether lines for people have the time; without it the reader of the stream adds it."""
        self._file = file
        self._line = _json if format is LogFormat.JSON else _stamped if stamped else _text
        self._passes = LogLevelFilterPredicate(LogLevel.levelWithName(levels.usual))
        for name, level in levels.parts.items():
            if name != "twisted":
                self._passes.setLogLevelForNamespace(f"docxy.{name}", LogLevel.levelWithName(level))
        # Twisted's own: its parts have names of their own, legacy events one of none of them.
        beneath = LogLevel.levelWithName(levels.parts.get("twisted", levels.usual))
        for name in _BENEATH:
            self._passes.setLogLevelForNamespace(name, beneath)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == WHOLE:
            line = event["whole"]
        elif self._passes(event) is PredicateResult.no:
            return
        else:
            line = self._line(event)
        self._file.write(f"{line}\n")
        self._file.flush()


_BENEATH = ("twisted", "log_legacy", "stdout", "stderr")


def part(event: LogEvent) -> str:
    """Which part of docxy says this."""
    first, _, rest = (event.get("log_namespace") or "").partition(".")
    if first == "docxy":
        name = rest.partition(".")[0]
        return name if name in PARTS else _OWN
    return first if first in ("stdout", "stderr") else "twisted"


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return "info" if level is None else str(level.name)


def _text(event: LogEvent) -> str:
    level, what = _level(event), eventAsText(event, includeTimestamp=False, includeSystem=False)
    mark = "" if level == "info" else f" {level}"
    return f"[{part(event)}{mark}] {what}".replace("\n", "\n\t")


def _stamped(event: LogEvent) -> str:
    return f"{formatTime(event.get('log_time'))} {_text(event)}"


def _json(event: LogEvent) -> str:
    told: dict[str, Any] = {
        "time": stamp(event.get("log_time") or time.time()),
        "log": "daemon",
        "level": _level(event),
        "part": part(event),
        "message": formatEvent(event),
    }
    if "log_failure" in event:
        told["traceback"] = event["log_failure"].getTraceback()
    if "request_id" in event:
        told["request_id"] = event["request_id"]
    return json.dumps(told, separators=(",", ":"))
