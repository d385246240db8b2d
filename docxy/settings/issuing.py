"""The options of certificates that docxy gets for itself, and what they come to.

Pure.  The law: everything wrong is a ConfigError whose one line names the value and where it came from.
"""

from __future__ import annotations

import binascii
import ipaddress
import os.path
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from docxy.settings import parsers
from docxy.settings.model import Acme, Binding, ConfigError, Issuing
from docxy.settings.option import Option

FILES, INTERNAL = "files", "internal"
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
MOST_NAMES = 100
"""That Let's Encrypt takes in one certificate."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_EMAIL = re.compile(r"[!-?A-~]+@[A-Za-z0-9.-]+")
_WORD = re.compile(r"[!-~]{1,256}")


def _mode(text: str) -> str:
    if text not in (FILES, INTERNAL):
        raise ValueError("is neither files nor internal")
    return text


def names(text: str) -> tuple[str, ...]:
    """Host names and IP addresses, separated by commas, in their canonical form; each once."""
    found = []
    for part in text.split(","):
        name = part.strip().rstrip(".").lower()
        try:
            name = str(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            if "*" in name:
                raise ValueError("has a wildcard, for which HTTP-01 proves nothing: list each name") from None
            if _NAME.fullmatch(name) is None:
                raise ValueError("is not a list of host names and IP addresses, as mirror.example,192.0.2.1") from None
        found.append(name)
    if len(set(found)) > MOST_NAMES:
        raise ValueError(f"has more than {MOST_NAMES} names")
    return tuple(dict.fromkeys(found))


def _email(text: str) -> str:
    if _EMAIL.fullmatch(text) is None:
        raise ValueError("is not an e-mail address")
    return text


def _word(text: str) -> str:
    if _WORD.fullmatch(text) is None:
        raise ValueError("is not a word without spaces")
    return text


ISSUING: tuple[Option, ...] = (
    Option(
        "tls",
        "TLS",
        _mode,
        "files: HTTPS with --cert and --key; internal: with a certificate of docxy's own authority, whose "
        "certificate is at /ca.pem",
        FILES,
        metavar="MODE",
    ),
    Option(
        "tls-names",
        "TLS_NAMES",
        names,
        "with --tls internal: host names and IP addresses that the certificate is for, as mirror.lan,192.168.1.5",
        default_help="the host of the public URL, else the address that is bound, else this machine's name",
        metavar="NAMES",
    ),
    Option(
        "acme",
        "ACME",
        names,
        "get and renew a certificate for these host names or public IP addresses from an ACME server such as Let's "
        "Encrypt, to whose terms you agree; needs --http-port, reached as port 80, and the extra docxy[acme]",
        default_help="none",
        metavar="NAMES",
    ),
    Option(
        "acme-email",
        "ACME_EMAIL",
        _email,
        "where the ACME server may write to you",
        default_help="none",
        metavar="ADDRESS",
    ),
    Option(
        "acme-directory",
        "ACME_DIRECTORY",
        parsers.public_url,
        "the ACME server",
        LETS_ENCRYPT,
        metavar="URL",
    ),
    Option(
        "acme-ca-file",
        "ACME_CA_FILE",
        parsers.path,
        "PEM file with the CAs to trust when docxy asks the ACME server, in place of the usual ones",
        default_help="the usual ones",
        metavar="FILE",
    ),
    Option(
        "acme-profile",
        "ACME_PROFILE",
        _word,
        "certificate profile to ask the ACME server for",
        default_help="shortlived where there is an IP address, else the server's own default",
        metavar="NAME",
    ),
    Option(
        "acme-eab-key-id",
        "ACME_EAB_KEY_ID",
        _word,
        "name of the key for external account binding, where the ACME server asks for that",
        default_help="none",
        metavar="ID",
    ),
    Option(
        "acme-eab-key-file",
        "ACME_EAB_KEY_FILE",
        parsers.path,
        "file that holds this key, in base64url",
        default_help="none",
        metavar="FILE",
    ),
    Option(
        "state",
        "STATE_DIR",
        parsers.path,
        "directory of the certificates that docxy gets for itself, with their keys",
        default_help="tls in the cache's directory",
        metavar="DIR",
    ),
)


def issuing(found: Mapping[str, Any], cache: str | None, hostname: str) -> Issuing | None:
    """What the options come to; None: docxy gets no certificate.

    `found`: each option's `Setting` by its key; `cache`: its directory; `hostname`: this machine's.
    Raises ConfigError.
    """
    acme, mode = found["acme"], found["tls"]
    if acme.value is None and mode.value != INTERNAL:
        for key in ("tls_names", "acme_email", "acme_profile", "acme_eab_key_id", "acme_eab_key_file", "acme_ca_file"):
            if found[key].source is not None:
                needs = "--tls internal" if key == "tls_names" else "--acme"
                raise ConfigError(f"{found[key].source}: means nothing without {needs}")
        return None
    if acme.value is not None and mode.source is not None:
        raise ConfigError(f"{acme.source} and {mode.source} contradict each other: choose one")
    chosen = acme if acme.value is not None else mode
    for key in ("cert", "key"):
        if found[key].source is not None:
            raise ConfigError(f"{chosen.source} and {found[key].source} contradict each other: choose one")
    state = found["state"].value or (None if cache is None else os.path.join(cache, "tls"))
    if state is None:
        raise ConfigError(f"{chosen.source}: with the cache off, --state must say where certificates are kept")
    if acme.value is None:
        return Issuing(_internal_names(found, hostname), state, None)
    if find_spec("acme") is None:
        raise ConfigError(
            f"{acme.source}: needs certbot's library acme, which is not installed: pip install 'docxy[acme]'"
        )
    if found["http_port"].value == 0:
        raise ConfigError(f"{acme.source}: the ACME server asks at --http-port, which is off")
    return Issuing(acme.value, state, _acme(found))


def _internal_names(found: Mapping[str, Any], hostname: str) -> tuple[str, ...]:
    wanted: list[str] = list(found["tls_names"].value or ())
    url = found["public_url"].value
    host = None if url is None else urlsplit(url).hostname
    if host is not None and host not in wanted:
        wanted.insert(0, host)
    interface = found["interface"].value
    if not wanted and interface not in (None, "", "::", "0.0.0.0"):
        wanted.append(interface)
    try:
        return names(",".join(wanted or [hostname.replace("_", "-")]))
    except ValueError:
        raise ConfigError("--tls internal: this machine's name is no host name; set --tls-names") from None


def _acme(found: Mapping[str, Any]) -> Acme:
    directory = found["acme_directory"]
    if not directory.value.startswith("https://"):
        raise ConfigError(f"{directory.source}: {parsers.shown(directory.value)} is not an https URL")
    ca_file = found["acme_ca_file"]
    if ca_file.value is not None and not os.access(ca_file.value, os.R_OK):
        raise ConfigError(f"{ca_file.source}: {parsers.shown(ca_file.value)} cannot be read")
    key_id, key_file = found["acme_eab_key_id"], found["acme_eab_key_file"]
    binding = None
    if (key_id.value is None) != (key_file.value is None):
        given = key_id if key_file.value is None else key_file
        raise ConfigError(f"{given.source}: --acme-eab-key-id and --acme-eab-key-file go together")
    if key_id.value is not None:
        binding = Binding(key_id.value, _key(key_file))
    return Acme(directory.value, found["acme_email"].value, ca_file.value, found["acme_profile"].value, binding)


def _key(setting: Any) -> str:
    """The content of the key's file, which is base64url.  Raises ConfigError, which never shows it."""
    try:
        text = parsers.password_in_file(setting.value).rstrip("=")
        urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error) as error:
        why = "holds no base64url" if isinstance(error, binascii.Error) else str(error)
        raise ConfigError(f"{setting.source}: {parsers.shown(setting.value)} {why}") from None
    return text
