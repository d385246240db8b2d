"""`docxy config`: check and show docxy's own configuration, and write that of clients.

The law: no password, key or credential is ever shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import click
from rich.text import Text

from docxy.cli.admin import find, print_json
from docxy.cli.config_tables import shown, told
from docxy.cli.failure import Failure
from docxy.cli.screen import BOLD, QUIET, clean, console, grid
from docxy.observe.verdict import amount
from docxy.settings.load import Setting, content, effective, load
from docxy.settings.model import Config, ConfigError
from docxy.settings.options import OPTIONS
from docxy.settings.origins import tables
from docxy.settings.schema import text
from docxy.web.pages.clients import ClientFile, clients, containerd, docker, k3s, kubernetes
from docxy.web.pages.trust import trust

_SECONDS = frozenset(option.key for option in OPTIONS if option.metavar == "SECONDS")
AT_START = "found out at start"


@click.group(
    short_help="Check and show docxy's configuration; write that of clients.",
    epilog="Example: docxy config check docxy.toml",
)
def config() -> None:
    """Check and show docxy's configuration; write that of clients."""


def checked(path: str | None) -> tuple[Config, Mapping[str, Setting]]:
    """The configuration, and each option with its source; with the files that it names.  Raises Failure."""
    # OpenSSL takes half a second to load, which the other commands need not wait for.
    from docxy.access.htpasswd import load as load_accounts
    from docxy.access.token_keys import load as load_keys
    from docxy.daemon import certificates
    from docxy.daemon.listeners import has_ipv6

    given = {} if path is None else {"config": path}
    try:
        found = load(given, os.environ, root=os.geteuid() == 0, ipv6=has_ipv6())
        certificates.standing(found)
        if found.access.htpasswd is not None:
            load_accounts(found.access.htpasswd)
        if found.access.token_key_file is not None:
            load_keys(found.access.token_key_file)
        return found, effective(given, os.environ)
    except ConfigError as error:
        raise Failure(str(error)) from None


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@config.command(epilog="Example: docxy config check /etc/docxy/docxy.toml && systemctl restart docxy")
@click.argument("file", type=click.Path())
@_json
def check(file: str, as_json: bool) -> None:
    """Check a --config FILE, and the certificate, key, passwords and accounts that it names.

    Exit status 1 if docxy would not start with it.
    """
    try:
        found, _ = checked(file)
    except Failure as failure:
        if as_json:
            print_json({"ok": False, "error": failure.message})
            raise SystemExit(1) from None
        raise
    names = [upstream.name for upstream in found.registries]
    if as_json:
        print_json({"ok": True, "upstreams": names})
    else:
        click.echo(f"{file} is good: {', '.join(names)}; {'HTTPS' if found.cert else 'plain HTTP'}")


@config.command(epilog="Example: docxy config show --config /etc/docxy/docxy.toml")
@click.option("--config", "file", metavar="FILE", type=click.Path(), help="The file. Without it: DOCXY_CONFIG.")
@_json
def show(file: str | None, as_json: bool) -> None:
    """Every option, and every key of the file's tables: its effective value, and where that came from.

    It reads the file and this shell's environment, as docxy would if it started here. No secret is shown. --json has
    the keys of tables, too, that have no value.
    """
    found, sources = checked(file)
    try:
        settled = tables(found, content({} if file is None else {"config": file}, os.environ), sources)
    except ConfigError as error:  # it has changed since
        raise Failure(str(error)) from None
    rows = {key: (_value(key, setting, found), setting.source or "default") for key, setting in sources.items()}
    if sources["upstream"].source is None and found.upstreams[0].url != sources["upstream"].value:
        rows["upstream"] = (found.upstreams[0].url, "[[upstreams]]")
    if as_json:
        options = {key: {"value": value, "from": source} for key, (value, source) in rows.items()}
        print_json({"options": options, "htpasswd": found.access.htpasswd, **told(settled)})
        return
    out = console()
    table = grid({"no_wrap": True}, {"overflow": "fold", "ratio": 2}, {"overflow": "fold", "ratio": 1})
    path = sources["config"].value
    for key, (value, source) in rows.items():
        is_default = source == "default"
        place = source.replace(f"{key} in {path}", "the file").replace(" in the environment", ", environment")
        style = QUIET if is_default else ""
        table.add_row(key.replace("_", "-"), Text(_shown(key, value), style or BOLD), Text(place, style))
    out.print(table)
    for part in shown(settled):
        out.print(part)


@config.command(
    short_help="The JSON Schema of the file, for editors.", epilog="Example: docxy config schema > docxy.schema.json"
)
def schema() -> None:
    """The JSON Schema of the configuration file, for editors.

    Editors with Taplo (Even Better TOML) take it from a line at the top of the file: #:schema ./docxy.schema.json
    """
    click.echo(text(), nl=False)


def _value(key: str, setting: Setting, found: Config) -> Any:
    """What an option came to; what is None in it was found by `load`, or is found at start."""
    settled = {
        "auth": found.auth,
        "cache": found.cache or "off",
        "admin_socket": found.admin_socket or "off",
        "access_log": found.access_log or "off",
        "workers": found.workers,
        "cert": found.cert or "off",
        "key": found.key or "off",
    }
    value = settled.get(key, setting.value)
    if isinstance(value, Enum):
        value = value.value
    if key == "interface":
        return value or "all"
    if value is None:
        return None if key == "config" else AT_START
    return value if isinstance(value, (bool, int, float, str)) else setting.text


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if key == "cache_size" and isinstance(value, int):
        return amount(value)
    if key in _SECONDS:
        return f"{value:.10g} s"
    if isinstance(value, bool):
        return "on" if value else "off"
    return clean(f"{value:.10g}" if isinstance(value, float) else value)


def _client(kind: str, text: str) -> None:
    """Adds the command that prints one kind of client's files."""

    @config.command(
        kind, short_help=f"{text} for this mirror.", epilog=f"Example: docxy config {kind} --url https://mirror.example"
    )
    @click.option("--url", metavar="URL", help="The mirror's. Without it: the running docxy's.")
    @click.option("--upstream", "names", metavar="NAME", multiple=True, help="A registry of it; may be repeated.")
    @click.option("--socket", metavar="FILE", envvar="ADMIN_SOCKET", help="The running docxy's admin socket.")
    @_json
    def command(url: str | None, names: Sequence[str], socket: str | None, as_json: bool) -> None:
        if url is None or not names:
            if url is None:
                told = find(socket, os.environ, os.geteuid() == 0).status()
                url = told["docxy"]["public_url"]
                known = [upstream["name"] for upstream in told["upstreams"] if upstream["named"]]
            else:
                known = ["docker.io"]
            names = names or known
        url = url.rstrip("/")
        if not url.startswith(("https://", "http://")):
            raise click.UsageError("--url: write it with its scheme, as https://mirror.example")
        _print(kind, _files(kind, url, list(names)), as_json)

    command.help = f"{text} for this mirror.\n\nOnly the file goes to standard output, so that it can be redirected."


@config.command(epilog="Example: docxy config ca --url https://mirror.lan")
@click.option("--url", metavar="URL", help="The mirror's. Without it: the running docxy's.")
@click.option("--socket", metavar="FILE", envvar="ADMIN_SOCKET", help="The running docxy's admin socket.")
@_json
def ca(url: str | None, socket: str | None, as_json: bool) -> None:
    """A line for each client to trust this mirror's own CA (--tls internal).

    Each line is to be typed as root on the client. It takes the CA from the mirror; compare its fingerprint.
    """
    if url is None:
        url = find(socket, os.environ, os.geteuid() == 0).status()["docxy"]["public_url"]
    url = url.rstrip("/")
    if not url.startswith("https://"):
        raise click.UsageError("--url: only an https mirror has a CA, as https://mirror.lan")
    lines = trust(url)
    if as_json:
        print_json([{"client": each.name, "where": each.where, "text": each.text} for each in lines])
        return
    for each in lines:
        click.echo(f"# {each.name}")
        click.echo(each.text)


def _files(kind: str, url: str, names: list[str]) -> list[ClientFile]:
    one_for_all = {"containerd": containerd, "kubernetes": kubernetes, "k3s": k3s}.get(kind)
    if one_for_all is not None:
        return [one_for_all(url)]
    found = [client for client in clients(url, names) if client.kind == kind]
    return [docker(url), *found] if kind == "docker" else found


def _print(kind: str, files: list[ClientFile], as_json: bool) -> None:
    if as_json:
        print_json([{"client": file.name, "where": file.where, "text": file.text} for file in files])
        return
    first, *others = files
    click.echo(f"# {first.name}: {first.where}", err=True)
    click.echo(first.text)
    for file in others:
        # An older way, or a command to type: on standard output it would spoil the file.
        place = f"{file.where}: " if file.where.startswith("/") else ""
        click.echo(f"# {file.name}: {place}{file.text}", err=True)


for _kind, _text in (
    ("docker", "The hosts.toml of Docker 29 and later (daemon.json for older ones)"),
    ("containerd", "The hosts.toml of containerd, and of Docker with the containerd image store,"),
    ("podman", "The registries.conf of Podman, CRI-O and Skopeo"),
    ("buildkit", "BuildKit's buildkitd.toml"),
    ("k3s", "The registries.yaml of k3s and RKE2"),
    ("kubernetes", "A ConfigMap and a DaemonSet, which write containerd's hosts.toml on every node,"),
):
    _client(_kind, _text)
