"""What each part of the bed was asked, read from its log."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http.client import HTTPConnection
from typing import IO

from attrs import Factory, define, frozen

from tests.harness.processes import read_new, until

_ACCESS = re.compile(r'^\S+ - \S+ \[[^]]+\] "(?P<method>\S+) (?P<path>\S+) [^"]*" (?P<status>\d+) (?P<sent>\d+) ')
_MARK = "/mark-"


@frozen
class Request:
    """One request, when it has ended."""

    method: str
    path: str
    """With its query (token service: without)."""
    status: int
    sent: int = 0
    """Bytes of the response's body (token service: not told)."""
    range: str = ""
    """The Range header (blobs only)."""
    account: str | None = None
    """Token service only: "" for anyone, None for a refused one."""
    scopes: tuple[str, ...] = ()
    """Token service only."""


def registry_line(line: str) -> Request | None:
    """A line of docker-registry's access log, which is between its other log lines."""
    found = _ACCESS.match(line)
    if found is None:
        return None
    return Request(found["method"], found["path"], int(found["status"]), int(found["sent"]))


def blobs_line(line: str) -> Request:
    """A line of nginx's log, as `bed.py` configures it."""
    said = json.loads(line)
    return Request(said["method"], said["path"], int(said["status"]), int(said["sent"]), said["range"])


def tokens_line(line: str) -> Request | None:
    """A line of the token service."""
    if not line.startswith("{"):
        return None
    said = json.loads(line)
    return Request(said["method"], said["path"], said["status"], account=said["account"], scopes=tuple(said["scopes"]))


@define
class Watch:
    """The requests one part of the bed got since the watch began.

    Use it as a context manager, or close it.
    """

    _log: IO[bytes]
    _parse: Callable[[str], Request | None]
    _address: tuple[str, int]
    _seen: list[Request] = Factory(list)
    _marks: int = 0

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more."""
        self._log.close()

    def requests(self, method: str | None = None, path: str = "") -> list[Request]:
        """Those with this method (None: any) whose path holds `path`, in the order they ended.

        Everything that a client has got the end of is in it.
        """
        self._settle()
        return [r for r in self._seen if method in (None, r.method) and path in r.path]

    def sent(self, path: str = "") -> int:
        """Body bytes of those requests."""
        return sum(request.sent for request in self.requests(path=path))

    def _settle(self) -> None:
        """Ask something recognisable and read on until it is in the log; a stopped part adds nothing more."""
        self._marks += 1
        mark = f"{_MARK}{id(self)}-{self._marks}"
        asked = self._ask(mark)
        # The line is written just after the answer went out.
        until(lambda: self._read_on(mark) or not asked)

    def _read_on(self, mark: str) -> bool:
        """Whether the line of this request is among those that have come since the last look."""
        found = False
        for request in map(self._parse, read_new(self._log)):
            if request is not None and not request.path.startswith(_MARK):
                self._seen.append(request)
            found = found or (request is not None and request.path == mark)
        return found

    def _ask(self, path: str) -> bool:
        connection = HTTPConnection(*self._address, timeout=10)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        except ConnectionRefusedError:
            return False
        finally:
            connection.close()
        return True
