"""Who is let in: the gate of one process, and the keys of the tokens that it issues.

The law: without an htpasswd file nobody is asked to log in; nodes and processes read each other's tokens only where
they share the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from docxy.access.htpasswd import HtpasswdFile
from docxy.access.htpasswd_gate import HtpasswdGate
from docxy.access.interfaces import IGate
from docxy.access.open_gate import OpenGate
from docxy.access.passwords import Passwords
from docxy.access.scopes import Readings, readings
from docxy.access.signer import Signer
from docxy.access.throttle import Throttle
from docxy.access.token_keys import ITokenKeys, KeyFile, OwnKey, derive
from docxy.access.token_requests import TokenRequests
from docxy.addresses import Perimeter
from docxy.broadcast import Broadcast
from docxy.daemon.reloads import Reloaded
from docxy.errors import Denied
from docxy.pulls import Parts, SharedCache
from docxy.routing import Router
from docxy.settings.model import AccessSettings
from docxy.settings.rules import Rules
from docxy.siblings import Siblings
from docxy.steward.processes import TOKEN
from docxy.threads import InThread, Threads

PASSWORD_THREADS = 2
"""Few, so that somebody who tries many passwords leaves cores to those who pull."""


def gate_of(parts: Parts, router: Router) -> IGate:
    """Who may come in, as the settings in force say."""
    config, keys = parts.config, parts.token_keys
    if isinstance(keys, KeyFile):
        parts.reloads.append(partial(_keys_reloaded, keys))
    if config.access.htpasswd is None:
        parts.siblings.questions.answer(TOKEN, _no_accounts)
        return OpenGate(parts.in_force.perimeter)
    threads = Threads(parts.reactor, PASSWORD_THREADS, "passwords")
    parts.services.addService(threads)
    gate = make_gate(
        parts.in_force.perimeter,
        parts.in_force.rules,
        config.access.htpasswd,
        parts.public_url,
        partial(keys.derived, "gate"),
        threads.in_thread,
        parts.clock,
        readings(router, parts.in_force.rules),
        parts.siblings.broadcast,
    )
    parts.reloads.append(lambda: _accounts_reloaded(gate.file))
    parts.siblings.questions.answer(TOKEN, gate.tokens.mint)
    return gate


def token_keys(
    access: AccessSettings, cache: SharedCache | None, siblings: Siblings, clock: IReactorTime
) -> ITokenKeys:
    """What tokens are signed with; processes that share a cache read each other's anyway."""
    if access.token_key_file is not None:
        return KeyFile(access.token_key_file, clock)
    return OwnKey(partial(derive, bytes.fromhex(siblings.secret)) if cache is None else cache.catalog.secret.derive)


async def _no_accounts(user: str | None, names: Sequence[str]) -> None:
    raise Denied("this docxy has no accounts of its own ([access] htpasswd), so nobody needs a token of it")


def _accounts_reloaded(file: HtpasswdFile) -> Sequence[Reloaded]:
    failure = file.reload()
    return [Reloaded("accounts", failure is None, failure or f"{len(file.accounts().hashes)} in the htpasswd file")]


def _keys_reloaded(file: KeyFile) -> Sequence[Reloaded]:
    failure = file.reload()
    return [Reloaded("token keys", failure is None, failure or f"{file.count} in the token key file")]


def make_gate(
    perimeter: Callable[[], Perimeter],
    rules: Callable[[], Rules],
    htpasswd: str,
    public_url: str,
    keys: Callable[[], tuple[bytes, ...]],
    in_thread: InThread,
    clock: IReactorTime,
    readings: Readings,
    broadcast: Broadcast,
) -> HtpasswdGate:
    """The gate with the accounts of an htpasswd file.

    `perimeter`, `rules`: those in force; `public_url`: without a trailing slash.  `keys`: of its tokens, the same in
    all processes that answer there; `in_thread`: where passwords are checked.  Raises ConfigError when the file cannot
    be used.
    """
    file = HtpasswdFile(htpasswd, clock)
    passwords = Passwords(file, Throttle(clock, broadcast), in_thread, clock)
    signer = Signer(public_url, urlsplit(public_url).netloc, f"{public_url}/auth/token", keys)
    tokens = TokenRequests(rules, file, passwords, signer, readings, clock)
    return HtpasswdGate(perimeter, rules, file, passwords, signer, tokens, clock)
