"""What an act is asked with, and what it says while it is at work.

Pure.  The laws: an act says *lines*, each a JSON object: any number of `{"item": {…}}`, what it found or did, and of
`{"progress": {…}}`, how far it is, and at its end one `{"done": {…}}`; an act that fails raises a RegistryError, which
its caller writes as `{"failed": "why"}`.  Arguments that make no sense are BadRequest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from attrs import frozen

from docxy.errors import BadRequest, RegistryError

Line = dict[str, Any]
Lines = AsyncGenerator[Line, None]


class Failed(RegistryError):
    """The act could not be done, though what was asked makes sense; the message says what to do."""

    status = 503
    code = "UNAVAILABLE"


def item(**found: Any) -> Line:
    """One thing that was found or done."""
    return {"item": found}


def progress(done: int, total: int | None, what: str = "", unit: str = "") -> Line:
    """How far the act is: `done` of `total` (None: nobody knows), in `unit` (`B`: bytes; else a noun).

    `what`: the name of what is worked at, and of its bar: each name has one.
    """
    return {"progress": {"done": done, "total": total, "what": what, "unit": unit}}


def done(**summary: Any) -> Line:
    """The act is done; what it came to."""
    return {"done": summary}


@frozen
class Arguments:
    """What an act is asked with: a JSON object, or the query of a URL, whose values are texts."""

    given: Mapping[str, Any]

    def texts(self, name: str) -> list[str]:
        """A list of texts; one text is a list of one; nothing is an empty one."""
        value = self.given.get(name, [])
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise BadRequest(f"{name} is not a list of texts")
        return found

    def text(self, name: str) -> str | None:
        """A text; None when it is not given."""
        found = self.texts(name)
        if len(found) > 1:
            raise BadRequest(f"{name} is given more than once")
        return found[0] if found else None

    def flag(self, name: str) -> bool:
        """Whether something is wanted; not, unless it is said."""
        value = self.given.get(name, False)
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if value not in (True, False, "true", "false"):
            raise BadRequest(f"{name} is true or false")
        return value in (True, "true")

    def number(self, name: str) -> float | None:
        """A number that is not below 0; None when it is not given."""
        value = self.given.get(name)
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if value is None:
            return None
        try:
            found = float(value)
        except (TypeError, ValueError):
            raise BadRequest(f"{name} is not a number") from None
        if not 0 <= found < 1e15:
            raise BadRequest(f"{name} is not a number that is not below 0")
        return found


@frozen
class Act:
    """One thing that an operator does."""

    run: Callable[[Any, Arguments], Lines]
    """Called with the Steward; without `cache` with the Processes."""
    changes: bool
    """Whether it changes anything: then it is asked by POST, and refused on a directory that a docxy uses."""
    cache: bool = True
    """Whether it is about the cache; else about the docxy that runs, which may have none."""
