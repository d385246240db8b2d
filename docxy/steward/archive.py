"""Archives of images on this machine, as `docxy import` and `docxy export --since` read them.

The laws: nothing is unpacked: what is in an archive is found by name and read where it is; no link leads out of it;
what is read whole has a bound.  Everything here blocks.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Protocol

from docxy.errors import RegistryError
from docxy.names import Digest

MOST_FILES = 200_000
"""Of one archive."""
LARGEST_DOCUMENT = 8 * 1024 * 1024
"""Bytes of a manifest, an index or docker's own file."""


_COMPRESSED: tuple[tuple[bytes, Callable[[str], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"\x5d\x00\x00\x80", lzma.open),
)
_WRONG_HEADS = (ValueError, OverflowError, RecursionError)
"""What tarfile raises for numbers that are none, and for heads that follow each other without an end."""


class ArchiveFileError(Exception):
    """The archive cannot be used; the message names it and says why."""


class Archive(Protocol):
    """Files by name."""

    path: str

    def sizes(self) -> Mapping[str, int]:
        """Every file with its bytes."""

    def open(self, name: str) -> IO[bytes]:
        """A file of it.  Raises ArchiveError."""


class OpenedArchive:
    """An archive, and what is in it."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.path = archive.path
        self.sizes = archive.sizes()

    def document(self, name: str) -> bytes:
        """A small file, whole; empty where there is none.  Raises ArchiveError."""
        if name not in self.sizes:
            return b""
        if self.sizes[name] > LARGEST_DOCUMENT:
            raise ArchiveFileError(
                f"{self.path}: {name} has {self.sizes[name]} bytes, which no document of an image has"
            )
        with self.open(name) as file:
            return file.read(LARGEST_DOCUMENT)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file of it; reading it raises ArchiveError where the archive is cut or damaged."""
        with _explained(self.path), self._archive.open(name) as file:
            yield file

    def blob(self, digest: Digest) -> str | None:
        """The name of a blob's file."""
        name = f"blobs/{digest.algorithm}/{digest.hex}"
        return name if name in self.sizes else None

    def digests(self) -> Iterator[Digest]:
        """Of all blobs that are named by their digest."""
        for name in self.sizes:
            head, _, encoded = name.rpartition("/")
            if head.startswith("blobs/"):
                try:
                    yield Digest.parse(f"{head[6:]}:{encoded}")
                except RegistryError:
                    continue


class _Tar:
    def __init__(self, path: str) -> None:
        self.path = path
        with _explained(path, *_WRONG_HEADS):
            file: Any = _BoundedBytes(_unpacked(path))  # enough of a file for tarfile
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (it stays open as long as the command runs)

    def sizes(self) -> Mapping[str, int]:
        members: list[tarfile.TarInfo] = []
        with _explained(self.path, *_WRONG_HEADS):
            for member in self._tar:
                members.append(member)
                if len(members) > MOST_FILES:
                    raise ArchiveFileError(f"{self.path} has more than {MOST_FILES} files")
        found = {os.path.normpath(member.name): member.size for member in members if _is_plain(member)}
        # docker save once wrote a layer that came twice as a link.
        for member in members:
            size = _linked(member, found) if member.issym() or member.islnk() else -1
            if size >= 0:
                found[os.path.normpath(member.name)] = size
        return found

    def open(self, name: str) -> IO[bytes]:
        for candidate in (name, f"./{name}"):
            try:
                file = self._tar.extractfile(candidate)
            except KeyError:
                continue
            if file is not None:
                return file
        raise ArchiveFileError(f"{self.path}: {name} cannot be read")


class _BoundedBytes:
    """Bytes of a tar; tarfile reads a head in one go, and its length is whatever the archive says."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell
        self.seek = file.seek
        self.close = file.close

    def read(self, size: int) -> bytes:
        """Raises tarfile.ReadError for more than any head has."""
        if not 0 <= size <= LARGEST_DOCUMENT:
            raise tarfile.ReadError("a head is too large")
        return self._file.read(size)


def _unpacked(path: str) -> IO[bytes]:
    """A file, read through what it is compressed with."""
    with open(path, "rb") as file:
        head = file.read(6)
    for magic, opened in _COMPRESSED:
        if head.startswith(magic):
            unpacked: IO[bytes] = opened(path)
            return unpacked
    return open(path, "rb")


def _is_plain(member: tarfile.TarInfo) -> bool:
    """Whether it is a file with all of its bytes: one with holes may say that it is larger than any disk."""
    return member.isfile() and not member.issparse()


class _Directory:
    """An OCI layout that is unpacked."""

    def __init__(self, path: str) -> None:
        self.path = path

    def sizes(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for place in ("", *(f"blobs/{name}" for name in ("sha256", "sha512"))):
            directory = os.path.join(self.path, place)
            if not os.path.isdir(directory):
                continue
            for entry in os.scandir(directory):
                if entry.is_file(follow_symlinks=False):
                    found[f"{place}/{entry.name}".lstrip("/")] = entry.stat().st_size
        return found

    def open(self, name: str) -> IO[bytes]:
        return open(os.path.join(self.path, name), "rb")


def open_archive(path: str) -> OpenedArchive:
    """A tar, perhaps compressed, or the directory of an OCI layout.  Raises ArchiveError."""
    with _explained(path):
        return OpenedArchive(_Directory(path) if os.path.isdir(path) else _Tar(path))


@contextmanager
def _explained(path: str, *wrong: type[Exception]) -> Iterator[None]:
    """`wrong`: what else wrong bytes raise."""
    damaged: tuple[type[Exception], ...] = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, *wrong)
    try:
        yield
    except ArchiveFileError:
        raise
    except OSError as error:
        raise ArchiveFileError(f"{path}: {error.strerror or error}") from None
    except damaged as error:
        why = str(error).partition(":")[0]
        raise ArchiveFileError(f"{path} is no tar of images, or is cut off or damaged: {why}") from None


def _linked(member: tarfile.TarInfo, sizes: Mapping[str, int]) -> int:
    """Bytes of the file that a link leads to; -1 where it leads to none in the archive."""
    name = member.linkname if member.islnk() else os.path.join(os.path.dirname(member.name), member.linkname)
    return sizes.get(os.path.normpath(name), -1)
