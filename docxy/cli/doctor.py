"""`docxy doctor`: what keeps docxy from working on this machine, each with its mend."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import click
from attrs import asdict
from rich.text import Text

from docxy.access.htpasswd import load as load_accounts
from docxy.access.token_keys import load as load_keys
from docxy.archive.clients import check as check_archive
from docxy.cli import checks, reach
from docxy.cli.admin import Daemon, find, print_json
from docxy.cli.as_clients import as_clients
from docxy.cli.bucket import bucket
from docxy.cli.cache import completions
from docxy.cli.checks import Finding
from docxy.cli.failure import Failure
from docxy.cli.images import told
from docxy.cli.issuing import acme
from docxy.cli.screen import BAD, BOLD, GOOD, WARN, clean, console, grid
from docxy.cli.speed import disk_speed
from docxy.daemon import certificates
from docxy.daemon.listeners import has_ipv6
from docxy.settings.load import load
from docxy.settings.model import ConfigError

_MARKS = {"good": ("✓", GOOD), "warn": ("!", WARN), "bad": ("✗", BAD)}
AT_ONCE = 8
"""Registries that are asked at the same time."""


@click.command(
    short_help="What keeps docxy from working here, and how to mend it.",
    epilog="Example: docxy doctor --config /etc/docxy/docxy.toml",
)
@click.option("--config", "file", metavar="FILE", type=click.Path(), help="The file. Without it: DOCXY_CONFIG.")
@click.option("--socket", metavar="FILE", envvar="ADMIN_SOCKET", help="The running docxy's admin socket.")
@click.option(
    "--image", metavar="IMAGE", help="Pull this one from the docxy that runs. Without it: one that is cached."
)
@click.option("--user", metavar="NAME", help="Pull as this user of the htpasswd file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def doctor(file: str | None, socket: str | None, image: str | None, user: str | None, as_json: bool) -> None:
    """What keeps docxy from working here, and how to mend it.

    Looks at configuration, certificate, names, registries, archive, clock, disk and its speed, ports and limits. If
    docxy runs, an image is pulled from it as docker, containerd and podman do. The accounts of docxy go to their own
    registries only. Exit status 1 if something would not work.
    """
    found = list(examine(file, socket, image, user))
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        table = grid({"no_wrap": True}, {"no_wrap": True}, {"overflow": "fold"}, padding=1)
        for finding in found:
            mark, style = _MARKS[finding.level]
            table.add_row(Text(mark, style), Text(clean(finding.what), BOLD), Text(clean(finding.words)))
            if finding.mend:
                table.add_row("", "", Text(f"→ {clean(finding.mend)}", style))
        console().print(table)
    sys.exit(1 if any(finding.level == "bad" for finding in found) else 0)


def examine(
    file: str | None, socket: str | None, image: str | None = None, user: str | None = None
) -> Iterator[Finding]:
    """Everything, the configuration first: without it there is nothing else to look at."""
    given = {} if file is None else {"config": file}
    try:
        config = load(given, os.environ, root=os.geteuid() == 0, ipv6=has_ipv6())
        pair = certificates.standing(config)
        if config.access.htpasswd is not None:
            load_accounts(config.access.htpasswd)
        if config.access.token_key_file is not None:
            load_keys(config.access.token_key_file)
        check_archive(config.archive, config.public_url)
    except ConfigError as error:
        yield Finding("bad", "configuration", str(error), "change it; docxy does not start with it")
        return
    names = ", ".join(upstream.name for upstream in config.upstreams)
    yield Finding("good", "configuration", f"mirrors {names}")
    daemon = _running(socket or config.admin_socket)
    yield Finding("good", "docxy", "does not run, or this user may not ask it" if daemon is None else "runs")
    yield from checks.certificate(config, pair)
    yield from acme(config, daemon is not None)
    asked = [upstream for upstream in config.upstreams if not upstream.search]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for findings in pool.map(lambda upstream: list(reach.registry(upstream)), asked):
            yield from findings
    yield from bucket(config.archive)
    yield from checks.disk(config, daemon)
    if config.cache is not None and os.path.isdir(config.cache) and os.access(config.cache, os.W_OK | os.X_OK):
        yield from disk_speed(config.cache)
    yield from checks.ports(config, daemon is not None)
    yield from checks.limits(None if daemon is None else daemon.pid())
    if daemon is not None:
        yield from _pulls(daemon, image, user)


def _pulls(daemon: Daemon, image: str | None, user: str | None) -> Iterator[Finding]:
    """Whether clients can pull from the docxy that runs."""
    snapshot = daemon.status()
    url = snapshot["docxy"]["public_url"]
    name = checks.resolved(url)
    yield name
    if name.level == "bad":
        return
    try:
        cached = None if image else next((each for each in completions(daemon, "")), None)
    except Failure:
        cached = None
    if image is None and cached is None:
        yield Finding("good", "a pull", "not tried, for nothing is cached: --image NAME names one")
        return
    wanted = told(image or str(cached), snapshot)

    def token() -> str | None:
        asked = {"repository": [wanted.full], **({} if user is None else {"user": user})}
        with suppress(Failure):
            *_, end = daemon.act("token", asked)
            return str(end["done"]["token"])
        return None

    yield from as_clients(url, snapshot["upstreams"][0]["name"], wanted, token)


def _running(path: str | None) -> Daemon | None:
    """The daemon, if it answers."""
    with suppress(Failure):
        daemon = find(path, os.environ, os.geteuid() == 0)
        daemon.quota()
        return daemon
    return None
