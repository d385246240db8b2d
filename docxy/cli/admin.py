"""The running daemon, asked over its admin socket.

The law: a daemon that cannot be asked is NotReachable (exit status 3), whose one line says which socket was
tried and what to do.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import update_wrapper
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, TypeVar
from urllib.parse import urlencode

import click

from docxy.cli.failure import Failure, NotReachable
from docxy.settings.load import admin_socket
from docxy.settings.model import ConfigError

TIMEOUT = 10.0
"""Seconds for each step of an answer."""
SILENCE = 60.0
"""Seconds of an event stream without a word; docxy sends one at least every 20."""
LARGEST_EVENT = 32 * 1024 * 1024
"""Bytes of one event."""
_SYSTEM = "/var/cache/docxy/admin.sock"
"""Where the socket of the system's docxy is."""

SOCKET_HELP = f"docxy's admin socket. Without it: where DOCXY_CONFIG and CACHE_DIR put it, or {_SYSTEM}."

Snapshot = Mapping[str, Any]
"""As docs/status.schema.json describes it."""
Command = TypeVar("Command", bound=Callable[..., Any])


class _Connection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        HTTPConnection.__init__(self, "docxy", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """The docxy behind one admin socket.  Every method raises NotReachable."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.where = path

    def pid(self) -> int | None:
        """Its process (the supervisor's, if it has workers); None where the system does not tell."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            return None
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(self.path)
            pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
            return int(pid) or None
        return None

    def status(self) -> Snapshot:
        """Everything that docxy knows of itself."""
        told: Snapshot = self._json("/status.json")
        return told

    def pulls(self, most: int, repository: str | None = None) -> list[Mapping[str, Any]]:
        """The newest pulls; `repository`: of this one only, as `docker.io/library/alpine`."""
        query = {"n": str(most), **({} if repository is None else {"repository": repository})}
        found: list[Mapping[str, Any]] = self._json(f"/pulls.json?{urlencode(query)}")["pulls"]
        return found

    def quota(self) -> Snapshot:
        """The pull limit of each upstream."""
        told: Snapshot = self._json("/quota.json")
        return told

    def events(self) -> Iterator[Snapshot]:
        """A snapshot at once, and another one when something changed; ends by NotReachable."""
        with self._answer("/events", SILENCE) as response:
            while True:
                line = response.readline(LARGEST_EVENT)
                if not line:
                    raise NotReachable(f"docxy on {self.path} closed the connection: it stopped, or starts again")
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def act(self, name: str, arguments: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """What an act says (`docxy.steward.lines`), the last of it its `done`.  Raises Failure when it fails."""
        with self._answer(f"/acts/{name}", SILENCE, json.dumps(arguments)) as response:
            while line := response.readline(LARGEST_EVENT):
                if line == b"\n":  # docxy is at it
                    continue
                told = json.loads(line)
                if "failed" in told:
                    raise Failure(told["failed"])
                yield told
                if "done" in told:
                    return
        raise NotReachable(f"docxy on {self.path} stopped before it was done: run the command again")

    def _json(self, path: str) -> Any:
        with self._answer(path, TIMEOUT) as response:
            return json.loads(response.read())

    @contextmanager
    def _answer(self, path: str, timeout: float, body: str | None = None) -> Iterator[HTTPResponse]:
        connection = _Connection(self.path, timeout)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            response = connection.getresponse()
            if body is not None and response.status >= 400:
                raise Failure(_message(response))
            if response.status != 200:
                raise NotReachable(f"docxy on {self.path} answered {response.status}: {_message(response)}")
            yield response
        except TimeoutError:
            raise NotReachable(f"docxy on {self.path} does not answer within {timeout:.0f} s") from None
        except PermissionError:
            raise NotReachable(
                f"this user may not open {self.path}: run the command as root or as docxy's user"
            ) from None
        except OSError as error:
            why = error.strerror or str(error)
            raise NotReachable(
                f"nothing answers on {self.path} ({why}): start docxy, or name its admin socket with --socket FILE"
            ) from None
        except (HTTPException, ValueError) as error:
            raise NotReachable(f"what answers on {self.path} is no docxy: {error!r}"[:300]) from None
        finally:
            connection.close()


def _message(response: HTTPResponse) -> str:
    """What an error answer says, on one line."""
    try:
        return str(json.loads(response.read(4096))["errors"][0]["message"])[:300]
    except (ValueError, LookupError, TypeError):
        return response.reason[:100]


def find(path: str | None, environ: Mapping[str, str], root: bool) -> Daemon:
    """The daemon to ask: on the socket that is given, else where the settings put it, else the system's."""
    if path is None:
        try:
            path = admin_socket({}, environ, root=root)
        except ConfigError as error:
            raise Failure(str(error)) from None
        if path is None:
            raise NotReachable("the settings turn the admin socket off; start docxy without --admin-socket off")
        named = any(environ.get(name) for name in ("ADMIN_SOCKET", "CACHE_DIR", "DOCXY_CONFIG"))
        if not named and not os.path.exists(path):
            path = _SYSTEM
    return Daemon(path)


def asks(command: Command) -> Command:
    """Gives a command `--socket` and `--json`; it is called with `daemon` and `as_json`."""

    @click.option("--socket", metavar="FILE", envvar="ADMIN_SOCKET", help=SOCKET_HELP)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
    def asking(socket: str | None, **given: Any) -> Any:
        return command(daemon=find(socket, os.environ, os.geteuid() == 0), **given)

    # What `click` attached to the command below this decorator comes along.
    return update_wrapper(asking, command)  # type: ignore[return-value]  # click only looks at its parameters


def print_json(content: object) -> None:
    """Content for a script, one document a line when that is all there is."""
    click.echo(json.dumps(content, indent=2))
