"""Whom the commands speak to over TLS.

The law is `docxy.upstream.trust`'s: a certificate is for a host by its subjectAltNames alone.  Python's own contexts
take a common name where there are none, or only an e-mail address.
"""

from __future__ import annotations

import ssl


def context(authorities: bytes | None = None, ca_file: str | None = None, only: bool = False) -> ssl.SSLContext:
    """Trusts the system's authorities and those of a PEM text or file; with `only`, the text alone.

    Raises ssl.SSLError, OSError for authorities that cannot be used.  With `ca_file` the system's do not count.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if only else ssl.create_default_context(cafile=ca_file)
    made.hostname_checks_common_name = False
    if authorities is not None:
        made.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
    return made


def reason(error: Exception) -> str:
    """Why there is no connection, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message.rstrip('.')}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
