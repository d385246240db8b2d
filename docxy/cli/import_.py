"""`docxy import FILE`: images of an archive into a cache, beside a docxy that runs or without one.

The laws: the file is read with the rights of who runs the command, the cache is written with those of its owner;
nothing that is not whole is shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click
from rich.text import Text

from docxy.cli.admin import SOCKET_HELP, find, print_json
from docxy.cli.cache import followed
from docxy.cli.failure import Failure, NotReachable
from docxy.cli.images import named, registries
from docxy.cli.screen import BAD, BOLD, GOOD, WARN, clean, console
from docxy.errors import RegistryError
from docxy.names import Tag
from docxy.observe.verdict import amount
from docxy.settings.image_names import IRegistry
from docxy.settings.load import cache_directory, load
from docxy.settings.model import ConfigError
from docxy.steward.archive import ArchiveFileError, OpenedArchive, open_archive
from docxy.steward.importing import Import, Place
from docxy.steward.inline import beside, steps
from docxy.steward.layout import ArchivedImage, images
from docxy.steward.lines import Line
from docxy.storage.shares import USUAL, Shares

_UNBOUNDED = 1 << 62


@click.command(
    "import",
    short_help="Images of an archive into the cache.",
    epilog="Example: docxy import images.tar",
)
@click.argument("file", type=click.Path(exists=True))
@click.option("--as", "name", metavar="IMAGE", help="The name of the only image in FILE.")
@click.option("--dry-run", is_flag=True, help="Only say which images FILE has.")
@click.option(
    "--cache",
    "directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="The cache. Without it: where DOCXY_CONFIG and CACHE_DIR put it.",
)
@click.option("--socket", metavar="FILE", envvar="ADMIN_SOCKET", help=SOCKET_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def import_(
    file: str, name: str | None, dry_run: bool, directory: str | None, socket: str | None, as_json: bool
) -> None:
    """Take the images of FILE into the cache, under their names, as if they had been pulled.

    FILE is a tar that docxy export, docker save, skopeo or podman wrote, or the directory of an OCI layout. Each
    layer is checked against its digest. docxy may run or not. Run the command as root or as docxy's user.

    Exit status 1 if an image is not whole: a differential archive needs the layers of the one before it.
    """
    upstreams, where, budget, shares = _target(directory, socket)
    try:
        archive = open_archive(file)
        found = [(image, _places(image, name, upstreams)) for image in images(archive)]
    except ArchiveFileError as error:
        raise Failure(str(error)) from None
    if name is not None and len(found) != 1:
        raise click.UsageError(f"--as: {file} has {len(found)} images")
    if dry_run:
        _show_names(found, as_json)
        return
    with followed(_lines(where, budget, shares, archive, found), quiet=as_json) as rest:
        lines = list(rest)
    items, end = [line["item"] for line in lines if "item" in line], lines[-1]["done"]
    if as_json:
        print_json({"images": items, **end})
    else:
        _show(items, end)
    if end["incomplete"] or any(not places for _, places in found):
        raise SystemExit(1)


def _target(directory: str | None, socket: str | None) -> tuple[Sequence[IRegistry], str, int, Shares]:
    """The registries, the cache's directory, the bytes that it may take, and the shares of these."""
    is_root = os.geteuid() == 0
    running: Any = None
    with suppress(NotReachable):
        running = find(socket, os.environ, is_root).status()
    try:
        where, size = cache_directory({}, os.environ, root=is_root)
        if running is not None:
            known: Sequence[IRegistry] = registries(running)
            cache = running["cache"]
            if running["docxy"]["cache"] and os.path.isabs(running["docxy"]["cache"]):
                where = running["docxy"]["cache"]
            size = cache["budget"] if cache else size
            shares = Shares.heard(cache["shares"]) if cache and "shares" in cache else USUAL
        else:
            config = load({}, os.environ, root=is_root)
            known, shares = config.registries, Shares.of(config)
    except ConfigError as error:
        raise Failure(str(error)) from None
    where = directory or where
    if where is None or not os.path.isdir(where):
        raise Failure("there is no cache: name its directory with --cache, or the settings with DOCXY_CONFIG")
    return known, where, size or _UNBOUNDED, shares


def _places(image: ArchivedImage, name: str | None, upstreams: Sequence[IRegistry]) -> list[Place]:
    """Where an image goes: under its names, as far as their registries are mirrored."""
    places = []
    for text in image.names if name is None else (name,):
        try:
            parsed = named(text, upstreams)
        except click.UsageError as error:
            if name is not None:
                raise
            click.echo(f"docxy: {clean(text)} is left out: {error.message}", err=True)
            continue
        tag = parsed.tag or (None if parsed.digest is not None else "latest")
        places.append(Place(parsed.upstream, parsed.repository, None if tag is None else Tag(tag)))
    if not image.names and name is None:
        click.echo(f"docxy: {image.root.digest} is left out: it has no name; give it one with --as IMAGE", err=True)
    return places


def _lines(
    directory: str,
    budget: int,
    shares: Shares,
    archive: OpenedArchive,
    found: Sequence[tuple[ArchivedImage, Sequence[Place]]],
) -> Iterator[Line]:
    """What the import says.  Raises Failure."""
    named = [(image, places) for image, places in found if places]
    try:
        _become_owner(directory)
        with beside(directory, budget, shares) as (store, catalog):
            yield from steps(Import(store, catalog, archive, budget).run(named))
    except RegistryError as error:
        raise Failure(error.message) from None
    except ArchiveFileError as error:
        raise Failure(str(error)) from None


def _become_owner(directory: str) -> None:
    """Root writes as the user whose cache it is, who must be able to read what is written."""
    if os.geteuid() != 0:
        return
    owner = os.stat(directory)
    if owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def _show_names(found: Sequence[tuple[ArchivedImage, Sequence[Place]]], as_json: bool) -> None:
    rows = [{"names": [place.name for place in places], "digest": str(image.root.digest)} for image, places in found]
    if as_json:
        print_json({"images": rows})
        return
    out = console()
    for row in rows:
        for each in row["names"]:
            out.print(Text.assemble((clean(each), BOLD), f"\n  {row['digest']}"))


def _show(items: Sequence[Any], end: Any) -> None:
    out = console()
    for each in items:
        for name in each["names"]:
            if not each["lacking_count"]:
                out.print(Text.assemble(("✓ ", GOOD), (clean(name), BOLD)))
                continue
            out.print(Text.assemble(("✗ ", BAD), (clean(name), BOLD), (" stays hidden: it lacks", WARN)))
            for digest in each["lacking"]:
                out.print(f"    {digest}", soft_wrap=True)
            if each["lacking_count"] > len(each["lacking"]):
                out.print(f"    and {each['lacking_count'] - len(each['lacking'])} more")
    out.print(f"{amount(end['new_bytes'])} new")
