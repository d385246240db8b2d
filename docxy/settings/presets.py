"""Registries that docxy knows by their name.

Pure.  The law: a name that has no entry here is a registry at `https://<name>`.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from docxy.addresses import is_public
from docxy.settings.model import DOCKER_HUB, Upstream

_GITLAB = Upstream("registry.gitlab.com", "https://registry.gitlab.com", realm_hosts=frozenset({"gitlab.com"}))
_OLLAMA = Upstream("registry.ollama.ai", "https://registry.ollama.ai", library=True)
_SPECIAL = {name: known for known in (DOCKER_HUB, _GITLAB, _OLLAMA) for name in (known.name, *known.aliases)}
"""Registries of which more is to be known than their name.

ghcr.io, quay.io, registry.k8s.io, gcr.io, mcr.microsoft.com, public.ecr.aws, nvcr.io and the
<region>-docker.pkg.dev need nothing here: each is at https://<name>, and so are its tokens.
"""


def preset(name: str) -> Upstream:
    """What is known of a registry by its name or an alias: the least is that it is at `https://<name>`."""
    return _SPECIAL.get(name) or Upstream(name=name, url=f"https://{name}", private=is_private(f"https://{name}"))


def is_private(url: str) -> bool:
    """Whether a URL itself says that it is not of the public internet, by its address or the kind of its name."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    try:
        ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_NAMES)
    return not is_public(host)


_PRIVATE_NAMES = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".test", ".svc")
