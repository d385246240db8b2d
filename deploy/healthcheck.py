"""Ask the docxy of this machine for /health; exit status 0 when it answers 200.

The law: the standard library only, and the same environment variables as docxy.  For
images that have no curl.
"""

from __future__ import annotations

import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

TIMEOUT = 4.0  # seconds


def url(environ: Mapping[str, str]) -> str:
    """Where a docxy with this environment answers."""
    host = environ.get("INTERFACE") or "127.0.0.1"
    host = f"[{host.strip('[]')}]" if ":" in host else host
    is_own = environ.get("ACME") or environ.get("TLS") == "internal"
    if is_own or environ.get("CERT_PATH", "off") not in ("", "off"):
        return f"https://{host}:{environ.get('HTTPS_PORT') or 443}/health"
    return f"http://{host}:{environ.get('PORT') or 8080}/health"


def main() -> int:
    # The certificate is for the public name, and we ask ourselves by address.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # No proxy from the environment may stand between us and ourselves.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    where = url(os.environ)
    try:
        with opener.open(where, timeout=TIMEOUT):
            return 0
    except (OSError, urllib.error.URLError) as problem:
        sys.stderr.write(f"{where}: {problem}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
