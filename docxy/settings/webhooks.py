"""The `[[webhook]]` tables of the file: receivers of events.

The law: no secret is ever part of an error.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from docxy.settings import parsers
from docxy.settings.model import ConfigError, Webhook
from docxy.settings.tables import TomlTable
from docxy.settings.upstreams import authorities

KEYS = frozenset({"url", "secret_file", "events", "ca_file"})
EVENTS = (
    "tag-moved",
    "tag-vanished",
    "recalled-pulled",
    "quota-low",
    "upstream-down",
    "upstream-up",
    "renewal-failed",
    "renewed",
)
PREFIX = "whsec_"
"""Of a secret in base64, as the Standard Webhooks have it."""
SHORTEST = 24
"""Bytes of a secret, at least (Standard Webhooks, "Symmetric signatures")."""
MOST = 20


def parse(tables: Any, source: str) -> tuple[Webhook, ...]:
    """`tables`: `webhook` of the file `source`.  Raises ConfigError."""
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"{source}: webhook must be [[webhook]] tables")
    if len(tables) > MOST:
        raise ConfigError(f"{source}: there are {len(tables)} [[webhook]] tables, and docxy serves {MOST}")
    return tuple(_webhook(TomlTable(table, f"[[webhook]] {n} in {source}")) for n, table in enumerate(tables, 1))


def _webhook(table: TomlTable) -> Webhook:
    if "secret" in table:
        raise table.error("secret: use secret_file, this file is no place for it")
    table.only(KEYS)
    for key in ("url", "secret_file"):
        if key not in table:
            raise table.error(f"{key} is missing")
    events = tuple(dict.fromkeys(table.texts("events", _event))) if "events" in table else EVENTS
    if not events:
        raise table.error("events: it names none, so nothing would be sent")
    pem = table.text("ca_file", authorities) if "ca_file" in table else None
    # A receiver's URL often is a secret itself.
    return Webhook(table.secret("url", parsers.webhook), table.text("secret_file", _secret), events, pem)


def _event(text: str) -> str:
    if text not in EVENTS:
        raise ValueError(f"is not one of {', '.join(EVENTS)}")
    return text


def _secret(path: str) -> bytes:
    """What is in the file, read now: the user that the daemon becomes later may not be allowed to."""
    text = parsers.password_in_file(path)
    secret = text.encode("utf-8")
    if text.startswith(PREFIX):
        try:
            secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"holds no base64 behind {PREFIX}") from None
    if len(secret) < SHORTEST:
        raise ValueError(f"holds a secret of fewer than {SHORTEST} bytes")
    return secret
