"""How each client comes to trust a mirror's own authority: one line to type, for the page and for the command line.

Pure.  The law: a client trusts it for this mirror alone, where it can tell servers apart.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from docxy.web.pages.clients import ClientFile


def trust(url: str) -> list[ClientFile]:
    """A line for each client of a mirror at `url`."""
    host = urlsplit(url).netloc
    # Nothing vouches for the file yet: docs/tls.md says how to compare its fingerprint.
    get = f"curl -fsSk {url}/ca.pem -o"

    def line(name: str, text: str) -> ClientFile:
        return ClientFile("ca", name, "root", text)

    def in_directory(name: str, directory: str) -> ClientFile:
        return line(name, f"mkdir -p {directory}/{host} && {get} {directory}/{host}/ca.crt")

    return [
        in_directory("CA · Docker", "/etc/docker/certs.d"),
        line(
            "CA · containerd",
            f"{get} /etc/containerd/docxy-ca.pem && echo 'ca = \"/etc/containerd/docxy-ca.pem\"' "
            ">> /etc/containerd/certs.d/_default/hosts.toml",
        ),
        in_directory("CA · Podman, CRI-O, Skopeo", "/etc/containers/certs.d"),
        line(
            "CA · Debian, Ubuntu (systemctl restart docker)",
            f"{get} /usr/local/share/ca-certificates/docxy.crt && update-ca-certificates",
        ),
        line(
            "CA · Fedora, RHEL (systemctl restart docker)",
            f"{get} /etc/pki/ca-trust/source/anchors/docxy.pem && update-ca-trust",
        ),
    ]
