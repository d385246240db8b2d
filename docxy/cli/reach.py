"""Whether the registries can be reached from this machine: name, connection, TLS, an answer of the API, accounts.

The law: a credential goes only where docxy itself would send it (`docxy.upstream.realms`), and no redirect is
followed.
"""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from publicsuffixlist import PublicSuffixList

from docxy.cli import tls
from docxy.cli.checks import Finding, skewed
from docxy.errors import UpstreamError
from docxy.observe.verdict import duration
from docxy.settings.model import Credential, CredentialProgram, Upstream
from docxy.upstream.api_url import ApiUrl
from docxy.upstream.challenge import bearer, parse
from docxy.upstream.credential_program import WITHIN, ProgramFailed
from docxy.upstream.credential_program import parse as parse_credential
from docxy.upstream.realms import Realms

PATIENCE = 10.0
"""Seconds for each step."""


class _Stay(HTTPRedirectHandler):
    """Follows nothing."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        return None


def registry(upstream: Upstream) -> Iterator[Finding]:
    """Each URL of an upstream."""
    try:
        context = tls.context(upstream.authorities, only=upstream.ca_only)
    except ssl.SSLError as error:
        yield Finding("bad", upstream.name, f"its ca_file cannot be used: {error.reason}", "check ca_file")
        return
    for url in (upstream.url, *upstream.endpoints):
        yield from _endpoint(upstream, url, context)


def _endpoint(upstream: Upstream, url: str, context: ssl.SSLContext) -> Iterator[Finding]:
    proxies = {} if upstream.proxy is None else {"http": upstream.proxy, "https": upstream.proxy}
    opener = build_opener(ProxyHandler(proxies), HTTPSHandler(context=context), _Stay)
    begun = time.monotonic()
    try:
        with opener.open(Request(f"{ApiUrl.of(url).root}/v2/"), timeout=PATIENCE) as response:
            status, headers = response.status, response.headers
    except HTTPError as error:
        with error:
            status, headers = error.code, error.headers
    except (URLError, OSError, ValueError) as error:
        yield _unreachable(upstream, url, error)
        return
    took = duration(time.monotonic() - begun)
    if status == 200:
        yield Finding("good", upstream.name, f"{url} answers in {took}, without a login")
    elif status == 401 and headers.get("WWW-Authenticate"):
        scheme = str(headers["WWW-Authenticate"]).partition(" ")[0][:20]
        yield Finding("good", upstream.name, f"{url} answers in {took}, asks for a login ({scheme})")
        if url == upstream.url:
            yield from accounts(upstream, opener, headers.get_all("WWW-Authenticate", []))
    elif status == 401 or status == 403:
        yield Finding("warn", upstream.name, f"{url} answers {status}", "check the account, and who may come in there")
    else:
        mend = "check the url: GET /v2/ of a registry answers 200 or 401"
        yield Finding("bad", upstream.name, f"{url} answers {status}", mend)
    try:
        theirs = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return
    found = skewed(upstream.name, theirs.timestamp() - time.time())
    if found is not None:
        yield found


def accounts(upstream: Upstream, opener: OpenerDirector, challenges: list[str]) -> Iterator[Finding]:
    """Whether the registry takes docxy's own accounts there; `challenges`: its WWW-Authenticate."""
    target = f"{ApiUrl.of(upstream.url).root}/v2/"
    challenge = bearer(parse(challenges))
    if challenge is not None and upstream.credentials:
        realms = Realms(PublicSuffixList)
        try:
            realm = realms.check(upstream, challenge.parameters["realm"])
            if not realms.may_know(upstream, realm):
                realms.refuse(upstream, realm, form=True)
        except UpstreamError as error:
            yield Finding("bad", upstream.name, str(error), "list the host of its token service in realm_hosts")
            return
        query = {name: value for name, value in challenge.parameters.items() if name == "service"}
        target = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
    for account in upstream.credentials:
        if isinstance(account, CredentialProgram):
            yield _program(upstream, account)
        else:
            yield _account(upstream, opener, target, account)


def _program(upstream: Upstream, program: CredentialProgram) -> Finding:
    """Whether the program prints a credential; what it prints is shown to nobody."""
    words = ""
    try:
        ran = subprocess.run(
            program.command,
            input=f"{program.server}\n".encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WITHIN,
            cwd="/",
            check=True,
        )
        parse_credential(ran.stdout, time.time())
    except subprocess.TimeoutExpired:
        words = f"{program.name} took more than {WITHIN:.0f} s"
    except subprocess.CalledProcessError as error:
        words = f"{program.name} ended with status {error.returncode}"
    except (ProgramFailed, OSError) as error:
        words = f"{program.name} {error}"
    if words:
        return Finding(
            "bad", upstream.name, words, f"run it as docxy's user: echo {program.server} | {program.name} get"
        )
    return Finding("good", upstream.name, f"{program.name} prints a credential")


def _account(upstream: Upstream, opener: OpenerDirector, target: str, account: Credential) -> Finding:
    pair = base64.b64encode(f"{account.username}:{account.password}".encode()).decode("ascii")
    try:
        with opener.open(Request(target, headers={"Authorization": f"Basic {pair}"}), timeout=PATIENCE):
            return Finding("good", upstream.name, f"takes the account {account.username}")
    except HTTPError as error:
        with error:
            words = f"answers {error.code} to the account {account.username}"
        return Finding("bad", upstream.name, words, "check username and password; a token may have expired")
    except (URLError, OSError, ValueError) as error:
        return _unreachable(upstream, target.partition("?")[0], error)


def _unreachable(upstream: Upstream, url: str, error: Exception) -> Finding:
    """What went wrong, and the mend."""
    why = error.reason if isinstance(error, URLError) else error
    through = "" if upstream.proxy is None else " through its proxy"
    if isinstance(why, socket.gaierror):
        words, mend = f"no address for {url}{through}", "check the name, and DNS in /etc/resolv.conf"
    elif isinstance(why, ssl.SSLCertVerificationError):
        words, mend = f"{url}: {why.verify_message}", "give its CA in ca_file, or check its certificate"
    elif isinstance(why, ssl.SSLError):
        words, mend = f"{url}: no TLS: {why.reason}", "check scheme and port; client_cert if it asks for one"
    elif isinstance(why, TimeoutError):
        words, mend = f"{url} does not answer{through}", "check the firewall, and whether a proxy is needed"
    else:
        reason = getattr(why, "strerror", None) or str(why)
        words, mend = f"{url}{through}: {reason}", "check url and port, and whether a proxy is needed"
    return Finding("bad", upstream.name, words, mend)
