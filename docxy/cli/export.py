"""`docxy export IMAGE… -o FILE`: images as one tar, from a docxy that may be anywhere.

The laws: the file is there whole or not at all; a connection that breaks is made again and goes on where it was;
what `--since` leaves out is not even asked for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import click

from docxy.cli.admin import SOCKET_HELP, find, print_json
from docxy.cli.cache import followed
from docxy.cli.download import Download, authorization
from docxy.cli.failure import Failure
from docxy.cli.screen import clean, console
from docxy.names import Digest
from docxy.observe.verdict import amount
from docxy.pull.archive.tar import BLOCK, entry_of
from docxy.steward.archive import ArchiveFileError, open_archive
from docxy.steward.lines import Line, progress

_PIECE = 1 << 20


@click.command(
    short_help="Images as one tar, for docker load and as an OCI layout.",
    epilog="Example: docxy export alpine:3.20 ghcr.io/o/i:v1 -o images.tar",
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(dir_okay=False), help="The tar.")
@click.option("--platform", metavar="OS/ARCH", help="linux/amd64 unless you say; all: every one, not for docker load.")
@click.option(
    "--since",
    "before",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True),
    help="Leave out the layers that this archive has; may be repeated.",
)
@click.option("--url", metavar="URL", help="docxy's. Without it: the running docxy's public URL.")
@click.option("--user", metavar="NAME", help="Log in; the password is asked for, or is in DOCXY_PASSWORD.")
@click.option("--ca-file", metavar="FILE", type=click.Path(exists=True), help="CAs of docxy's certificate.")
@click.option("--socket", metavar="FILE", envvar="ADMIN_SOCKET", help=SOCKET_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def export(
    images: Sequence[str],
    output: str,
    platform: str | None,
    before: Sequence[str],
    url: str | None,
    user: str | None,
    ca_file: str | None,
    socket: str | None,
    as_json: bool,
) -> None:
    """Write images to one tar, which docker load takes, and which is an OCI layout.

    docxy fetches what it does not have. The rights are those of a pull: log in with --user where a pull has to.
    A download that breaks off goes on by itself; FILE is there whole or not at all.
    """
    if url is None:
        url = str(find(socket, os.environ, os.geteuid() == 0).status()["docxy"]["public_url"])
    if not url.startswith(("https://", "http://")):
        raise click.UsageError("--url: write it with its scheme, as https://mirror.example")
    try:
        known = {digest for path in before for digest in open_archive(path).digests()}
    except ArchiveFileError as error:
        raise Failure(str(error)) from None
    if before and not known:
        raise Failure(f"{', '.join(before)}: no layer is named by its digest there; export it anew with docxy")
    query = [("image", image) for image in images] + ([] if platform is None else [("platform", platform)])
    download = Download(url, query, authorization(user, os.environ), ca_file)
    with _written(output) as file:
        lines = copied(download, file, known)
        with followed(lines, quiet=as_json) as rest:
            end: Mapping[str, Any] = next(line["done"] for line in rest)
    told = {"file": output, **end}
    if as_json:
        print_json(told)
        return
    words = f"{clean(output)}: {amount(end['bytes'])}"
    if known:
        words += f"; left out {amount(end['left_out_bytes'])}, already in {', '.join(map(clean, before))}"
    console().print(words)


def copied(download: Download, file: BinaryIO, known: set[Digest]) -> Iterator[Line]:
    """Copies the tar but for what is known; says how far it is, and what it came to."""
    size = download.open()
    name = "archive"
    written = left_out = left_out_bytes = 0

    def copy(count: int) -> Iterator[Line]:
        nonlocal written
        while count:
            data = download.read(min(count, _PIECE))
            file.write(data)
            count -= len(data)
            written += len(data)
            yield progress(download.position, size, name, "B")

    if not known:
        yield from copy(size)
    while download.position < size:
        head = download.read(BLOCK)
        entry, more = entry_of(head, download.read)
        if entry is not None and entry.digest in known:
            left_out += 1
            left_out_bytes += entry.size
            download.skip(entry.padded)
            yield progress(download.position, size, name, "B")
            continue
        file.write(head + more)
        written += len(head + more)
        if entry is not None:
            yield from copy(entry.padded)
    yield {"done": {"bytes": written, "left_out": left_out, "left_out_bytes": left_out_bytes}}


@contextmanager
def _written(path: str) -> Iterator[BinaryIO]:
    """A file that takes its name when all is in it."""
    directory = os.path.dirname(os.path.abspath(path))
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}-", dir=directory)
    except OSError as error:
        raise Failure(f"cannot write in {directory}: {error.strerror}") from None
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            raise Failure(f"cannot write {path}: {error.strerror}") from None
        raise
