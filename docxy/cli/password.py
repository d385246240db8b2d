"""`docxy password USER`: an account for docxy's htpasswd file.

The law: the file is whole at every moment, keeps its owner, and nobody else may read it; no password is ever an
argument, which other users of the machine could read.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import bcrypt
import click

from docxy.access.htpasswd import MAX_FILE, Accounts
from docxy.cli.failure import Failure
from docxy.settings.model import ConfigError

LONGEST = 72
"""Bytes of a password that bcrypt looks at."""


@click.command(
    short_help="An account for docxy's htpasswd file.",
    epilog="Example: docxy password alice --file /etc/docxy/htpasswd",
)
@click.argument("user")
@click.option("--file", "path", metavar="FILE", type=click.Path(dir_okay=False), help="Add or change USER in FILE.")
@click.option("--cost", type=click.IntRange(4, 15), default=10, show_default=True, help="One more doubles the work.")
@click.option("--stdin", "piped", is_flag=True, help="Read the password from the first line of standard input.")
def password(user: str, path: str | None, cost: int, piped: bool) -> None:
    """Print the htpasswd line of USER, or write it to FILE with mode 0600.

    docxy asks for the password on the terminal. It notices the changed file within a second.
    """
    if not user or not user.isprintable() or user != user.strip() or ":" in user or user.startswith("#"):
        raise click.UsageError("a user name is printable, has no colon, and neither starts with # nor ends in a space")
    if piped:
        secret = sys.stdin.readline().rstrip("\r\n")
    else:
        secret = click.prompt(f"Password for {user}", hide_input=True, confirmation_prompt=True, err=True)
    raw = secret.encode("utf-8")
    if not raw or b"\0" in raw:
        raise Failure("an empty password, or one with a null character, cannot be used")
    if len(raw) > LONGEST:
        raise Failure(f"the password has {len(raw)} bytes; bcrypt looks at {LONGEST} only, so take a shorter one")
    line = f"{user}:{bcrypt.hashpw(raw, bcrypt.gensalt(cost)).decode('ascii')}"
    if path is None:
        click.echo(line)
        return
    path = os.path.realpath(path)
    try:
        is_new = _update(path, user, line)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except (ConfigError, UnicodeDecodeError) as error:
        raise Failure(f"the file stays as it was: {error}") from None
    click.echo(f"{user} {'added to' if is_new else 'changed in'} {path}")


def _update(path: str, user: str, line: str) -> bool:
    """Put the user's line into the file; whether it is a new one.  Raises OSError, ConfigError, UnicodeDecodeError."""
    with _locked(os.path.dirname(path)):
        lines: list[str] = []
        owner: os.stat_result | None = None
        if os.path.exists(path):
            with open(path, "rb") as file:
                owner = os.fstat(file.fileno())
                lines = file.read(MAX_FILE).decode("utf-8").splitlines()
        places = [n for n, each in enumerate(lines) if each.strip().partition(":")[0] == user]
        if places:
            lines[places[0]] = line
        else:
            lines.append(line)
        text = "".join(f"{each}\n" for each in lines)
        Accounts.parse(text, path)
        _replace(path, text.encode("utf-8"), owner)
        return not places


def _replace(path: str, content: bytes, owner: os.stat_result | None) -> None:
    """Atomically, with mode 0600."""
    handle, temporary = tempfile.mkstemp(prefix=".htpasswd-", dir=os.path.dirname(path))
    try:
        with open(handle, "wb") as file:
            if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(handle, owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """So that two commands at once lose no account."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
