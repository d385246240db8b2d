"""`credential_helper` and `credential_command`: programs that print docxy's account at an upstream.

Pure apart from looking for the program.  The law: a program that is not there is a ConfigError at the start, not a
failed pull later.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import PurePath
from urllib.parse import urlsplit

from docxy.settings.model import DOCKER_HUB, CredentialProgram, Upstream
from docxy.settings.tables import TomlTable

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HUB = "https://index.docker.io/v1/"
"""What Docker's helpers know Docker Hub by."""


def credential_program(table: TomlTable, upstream: Upstream, environ: Mapping[str, str]) -> CredentialProgram:
    """The program of a table that has either key; `environ`: where PATH is.  Raises ConfigError."""
    or_anonymous = "credential_or_anonymous" in table and table.flag("credential_or_anonymous")
    server = _HUB if upstream.url == DOCKER_HUB.url else urlsplit(upstream.url).netloc
    path = environ.get("PATH", os.defpath)

    def helper(text: str) -> str:
        if _HELPER.fullmatch(text) is None:
            raise ValueError("is not the name of a helper such as ecr-login")
        found = shutil.which(f"docker-credential-{text}", path=path)
        if found is None:
            raise ValueError(f"is not here: there is no docker-credential-{text} in PATH")
        return os.path.abspath(found)

    if "credential_helper" in table:
        program = table.text("credential_helper", helper)
        return CredentialProgram(PurePath(program).name, (program, "get"), server, or_anonymous)
    command = table.texts("credential_command", _word)
    if not command:
        raise table.error('credential_command is empty: it is a path and arguments, as ["/usr/local/bin/token"]')
    if not os.path.isabs(command[0]) or not os.access(command[0], os.X_OK) or os.path.isdir(command[0]):
        raise table.error("credential_command does not begin with the full path of a program that can be run")
    return CredentialProgram(PurePath(command[0]).name, tuple(command), server, or_anonymous)


def _word(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL")
    return text
