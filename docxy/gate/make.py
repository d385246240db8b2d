"""From settings to the gate that they mean."""

from __future__ import annotations

from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from docxy.gate.gates import HtpasswdGate
from docxy.gate.htpasswd import HtpasswdFile
from docxy.gate.interfaces import IGate
from docxy.gate.passwords import Passwords
from docxy.gate.scopes import Readings
from docxy.gate.settings import GateSettings
from docxy.gate.throttle import Throttle
from docxy.gate.tokens import Signer
from docxy.gate.tokenservice import TokenRequests
from docxy.gossip import Gossip
from docxy.storage.threads import InThread


def make_gate(
    settings: GateSettings,
    htpasswd: str,
    public_url: str,
    key: bytes,
    in_thread: InThread,
    clock: IReactorTime,
    readings: Readings,
    gossip: Gossip | None = None,
) -> IGate:
    """The gate with the accounts of an htpasswd file.

    `public_url`: without a trailing slash; `key`: 32 bytes at least, the same in all processes
    that answer there; `in_thread`: where passwords are checked; `readings`: see
    `docxy.gate.scopes.readings`; `gossip`: with other processes, if there are any.  Raises
    ConfigError when the htpasswd file cannot be used.
    """
    file = HtpasswdFile(htpasswd, clock)
    passwords = Passwords(file, Throttle(clock, gossip), in_thread, clock)
    signer = Signer(public_url, urlsplit(public_url).netloc, f"{public_url}/auth/token", key)
    tokens = TokenRequests(settings.rules, file, passwords, signer, readings, clock)
    return HtpasswdGate(settings.perimeter, settings.rules, file, passwords, signer, tokens, clock)
