"""The `[archive]` table of the file: the object store behind the cache.

Pure apart from reading the files of secrets and CAs.  The law: no secret is ever part of an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from docxy.settings import parsers
from docxy.settings.model import ARCHIVE_PUTS, ArchiveSettings, ConfigError, Redirect
from docxy.settings.tables import TomlTable
from docxy.settings.upstreams import authorities

KEYS = frozenset(
    {
        "url",
        "endpoint",
        "region",
        "access_key",
        "secret_file",
        "secret_env",
        "ca_file",
        "rate",
        "puts",
        "redirect",
        "public_endpoint",
    }
)
SLOWEST = 1000**2
"""Bytes a second: with less a layer of some GB takes an hour, and a number without its unit is probably meant."""
MOST_PUTS = 4

_URL = re.compile(r"(?:s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9._-]+)*/?")
_WORD = re.compile(r"[!-~]+")


def parse(content: Any, source: str, environ: Mapping[str, str], cache: str | None) -> ArchiveSettings | None:
    """`content`: `archive` of the file `source`; None: there is none.  Raises ConfigError."""
    if content is None:
        return None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{source}: archive must be a table, [archive]")
    table = TomlTable(content, f"[archive] in {source}")
    for key in ("secret", "secret_key", "secret_access_key"):
        if key in table:
            raise table.error(f"{key}: use secret_file or secret_env, this file is no place for it")
    table.only(KEYS)
    if "url" not in table:
        raise table.error("url is missing")
    if cache is None:
        raise table.error("an archive needs a cache, which --cache turns off")
    url = table.text("url", _url)
    kind = urlsplit(url).scheme
    secret = _secret(table, environ)
    if kind != "s3":
        for key in ("region", "access_key"):
            if key in table:
                raise table.error(f"{key} is of s3:// only, and url is {url}")
    for key in ("endpoint", "public_endpoint"):
        if kind == "gs" and key in table:
            raise table.error(f"{key} is not for gs://, and url is {url}")
    if kind == "s3" and ("access_key" in table) != (secret is not None):
        raise table.error("access_key and secret_file (or secret_env) belong together")
    redirect = table.text("redirect", _redirect) if "redirect" in table else Redirect.NEVER
    public = table.text("public_endpoint", parsers.public_url) if "public_endpoint" in table else None
    if redirect is Redirect.NEVER and public is not None:
        raise table.error("public_endpoint is of use with redirect only")
    if redirect is not Redirect.NEVER and public is None and kind != "gs":
        raise table.error("redirect needs public_endpoint, the URL by which clients reach the store")
    return ArchiveSettings(
        url,
        endpoint=table.text("endpoint", parsers.public_url) if "endpoint" in table else None,
        region=table.text("region", _word) if "region" in table else None,
        access_key=table.text("access_key", _word) if "access_key" in table else None,
        secret=secret,
        authorities=table.text("ca_file", authorities) if "ca_file" in table else None,
        rate=table.text("rate", _rate) if "rate" in table else None,
        puts=table.number("puts", (int,), _puts) if "puts" in table else ARCHIVE_PUTS,
        redirect=redirect,
        public_endpoint=public,
    )


def _url(text: str) -> str:
    if _URL.fullmatch(text) is None or not {".", ".."}.isdisjoint(text.split("/")):
        raise ValueError("is not s3://bucket/prefix, gs://bucket/prefix or az://account/container/prefix")
    if text.startswith("az://") and len(text.rstrip("/").split("/")) < 4:
        raise ValueError("names no container: az://account/container/prefix")
    return text.rstrip("/")


def _word(text: str) -> str:
    if _WORD.fullmatch(text) is None:
        raise ValueError("is not one printable word")
    return text


def _redirect(text: str) -> Redirect:
    try:
        return Redirect(text)
    except ValueError:
        raise ValueError(f"is not {', '.join(each.value for each in Redirect)}") from None


def _rate(text: str) -> int:
    rate = parsers.size(text)
    if rate < SLOWEST:
        raise ValueError(f"is too slow: at least {parsers.shown_size(SLOWEST)} (a second)")
    return rate


def _puts(text: str) -> int:
    count = parsers.some(text)
    if count > MOST_PUTS:
        raise ValueError(f"is more than {MOST_PUTS}")
    return count


def _secret(table: TomlTable, environ: Mapping[str, str]) -> bytes | None:
    """What is in the file, read now: the user that the daemon becomes later may not be allowed to."""
    if "secret_file" in table and "secret_env" in table:
        raise table.error("secret_file and secret_env cannot be combined")
    if "secret_file" in table:
        return table.text("secret_file", _file)
    if "secret_env" not in table:
        return None
    variable = table.text("secret_env", _word)
    if not environ.get(variable):
        raise table.error(f"secret_env: {variable} is not set in the environment")
    return environ[variable].encode("utf-8")


def _file(path: str) -> bytes:
    text = parsers.text_in_file(path).strip()
    if not text:
        raise ValueError("is empty")
    return text.encode("utf-8")
