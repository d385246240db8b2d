"""The object store that the operator's `[archive]` table names, as obstore reaches it.

The law: what is wrong with the table is said at the start, in one line; what is wrong with the store is found
when it is asked, and keeps nothing from serving.
"""

from __future__ import annotations

import re
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from docxy.settings.model import ArchiveSettings, ConfigError, Redirect

if TYPE_CHECKING:
    from docxy.archive.objects import Clients

CONNECT_WITHIN, SILENT_FOR = 2.0, 10.0
"""Seconds."""
PART_WITHIN = 120.0
"""Seconds for one request: a range that is read, or a part that is written."""


def check(settings: ArchiveSettings | None, public_url: str | None) -> None:
    """Raises ConfigError where there is nothing that could reach the store, or clients would leak what they know."""
    if settings is None:
        return
    if find_spec("obstore") is None:
        raise ConfigError(f"the archive {settings.url} needs obstore, which is not installed: pip install 'docxy[s3]'")
    theirs, ours = (urlsplit(url or "").hostname for url in (settings.public_endpoint, public_url))
    if theirs and ours and (theirs == ours or theirs.endswith(f".{ours}")):
        raise ConfigError(
            f"[archive]: public_endpoint {settings.public_endpoint} is on docxy's own host, {ours}, or below it: "
            "clients would send their credentials there, and stores refuse such requests; "
            "give the store a name beside docxy's"
        )


def connect(settings: ArchiveSettings) -> Clients:
    """Clients for the store, of which none has asked it anything yet."""
    # They need an extra.
    from obstore.store import from_url

    from docxy.archive.objects import Clients

    def client(retries: int, within: float, endpoint: str | None) -> Any:
        options: dict[str, Any] = {
            "connect_timeout": timedelta(seconds=CONNECT_WITHIN),
            "read_timeout": timedelta(seconds=SILENT_FOR),
            "timeout": timedelta(seconds=PART_WITHIN),
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
        }
        if settings.authorities is not None:
            options["root_certificate"] = settings.authorities
        make: Any = from_url  # which has an overload for each kind of store
        return make(
            settings.url,
            client_options=options,
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=within)},
            **_config(settings, endpoint),
        )

    return Clients(
        # Once more: a connection that was kept may end just when it is used again, and that is no failure of the store.
        reading=client(1, SILENT_FOR, settings.endpoint),
        writing=client(2, 2 * SILENT_FOR, settings.endpoint),
        # It signs, and asks the store nothing.
        public=None if settings.redirect is Redirect.NEVER else client(0, SILENT_FOR, settings.public_endpoint),
    )


def _config(settings: ArchiveSettings, endpoint: str | None) -> dict[str, Any]:
    """What obstore calls it for this kind of store; what is left out, it looks for in the environment."""
    secret = None if settings.secret is None else settings.secret.decode("utf-8")
    kind = urlsplit(settings.url).scheme
    if kind == "s3":
        named = {
            "endpoint": endpoint,
            "region": settings.region,
            "access_key_id": settings.access_key,
            "secret_access_key": secret,
        }
    elif kind == "gs":
        named = {"service_account_key": secret}
    else:
        named = {"endpoint": endpoint, "account_key": secret}
    return {key: value for key, value in named.items() if value is not None}


def words(error: Exception) -> str:
    """The first line of what obstore says, and why there was no connection, which stands in what follows."""
    text, _, inside = str(error).strip().partition("\n")
    refused = re.search(r"InvalidCertificate\(\s*(\w+)", inside)
    if refused is not None:
        text = f"{_brief(text)}: its certificate {_refusal(refused[1], inside)}"
    elif (failed := re.search(r'message: "([^"\n]{1,100})"', inside)) is not None:
        text = f"{_brief(text)}: {failed[1]}"
    return "".join(c for c in (text or type(error).__name__)[:500] if c.isprintable())


def _brief(text: str) -> str:
    """Without how often and how long it was tried, and without `error sending request`, which says nothing."""
    return re.sub(r"( in [\d.]+\S+, after .*?)?  - HTTP error: error sending request$", "", text[:300])


def _refusal(kind: str, inside: str) -> str:
    """What obstore's TLS, rustls, has against a certificate, in words."""
    if kind.startswith("NotValidForName"):
        names = re.findall(r'(?:DnsName|IpAddress)\(\\"([^"\\]{1,100})', inside)
        return f"is not for this host but for {', '.join(names[:5])}" if names else "names no host (no subjectAltName)"
    if kind.startswith("Expired"):
        return "has expired"
    if kind.startswith("NotValidYet"):
        return "is not valid yet; check that the clock of this machine is right"
    if kind == "UnknownIssuer":
        return "was issued by an authority that is not trusted here; name its PEM file in ca_file"
    return f"is refused ({kind})"
