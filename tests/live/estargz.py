"""eStargz layers: gzipped tars of which a client reads single files by ranges, before it has the layer.

As stargz-snapshotter's docs/estargz.md has it: a gzip member for the content of each file, one for the table of
contents (`stargz.index.json`), and a footer of 51 bytes that says where that begins.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Mapping

FOOTER = 51
"""Bytes at a layer's end."""
TOC = "stargz.index.json"
ANNOTATION = "containerd.io/snapshot/stargz/toc.digest"
"""Of the layer's descriptor: the digest of the table of contents."""
Fetch = Callable[[int, int], bytes]
"""Bytes of a layer, from the first to the last one."""


def build(files: Mapping[str, tuple[bytes, int]]) -> tuple[bytes, bytes, str]:
    """The layer of some files (content and mode by name), its tar, and the digest of its table of contents."""
    packed, plain, entries = bytearray(), bytearray(), []
    # The landmark says that nothing is to be fetched ahead.
    for name, (content, mode) in {**files, ".no.prefetch.landmark": (b"\x0f", 0o644)}.items():
        head, content_padded = _tarred(name, content, mode)
        packed += gzip.compress(head, mtime=0)
        entries.append(
            {
                "name": name,
                "type": "reg",
                "size": len(content),
                "mode": mode,
                "offset": len(packed),
                "digest": _digest(content),
                "chunkDigest": _digest(content),
            }
        )
        packed += gzip.compress(content_padded, mtime=0)
        plain += head + content_padded
    toc = json.dumps({"version": 1, "entries": entries}).encode()
    at, last = len(packed), b"".join(_tarred(TOC, toc, 0o444)) + bytes(1024)
    packed += gzip.compress(last, mtime=0) + _footer(at)
    plain += last
    return bytes(packed), bytes(plain), _digest(toc)


def read_file(fetch: Fetch, size: int, toc_digest: str, name: str) -> bytes:
    """One file of a layer of `size` bytes, by ranges alone.  Raises ValueError when anything is not as it must be."""
    at = _toc_offset(fetch(size - FOOTER, size - 1))
    with tarfile.open(fileobj=io.BytesIO(_unpacked(fetch(at, size - FOOTER - 1)))) as tar:
        listed = tar.extractfile(TOC)
        assert listed is not None
        toc = listed.read()
    if _digest(toc) != toc_digest:
        raise ValueError("another table of contents")
    entries = json.loads(toc)["entries"]
    entry = next(each for each in entries if each["name"] == name)
    stop = min(offset for offset in (*(each["offset"] for each in entries), at) if offset > entry["offset"])
    content = _unpacked(fetch(entry["offset"], stop - 1))[: entry["size"]]
    if _digest(content) != entry["chunkDigest"]:
        raise ValueError(f"other bytes in {name}")
    return content


def _tarred(name: str, content: bytes, mode: int) -> tuple[bytes, bytes]:
    """A tar's entry, without the tar's end: its head, and its content with padding."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    return entry.tobuf(tarfile.GNU_FORMAT), content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _footer(at: int) -> bytes:
    """An empty gzip member whose extra field says where the table of contents begins."""
    field = b"%016xSTARGZ" % at
    extra = b"SG" + len(field).to_bytes(2, "little") + field
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + len(extra).to_bytes(2, "little") + extra
    return head + b"\x01\x00\x00\xff\xff" + bytes(8)


def _toc_offset(footer: bytes) -> int:
    if len(footer) != FOOTER or footer[:4] != b"\x1f\x8b\x08\x04" or footer[32:38] != b"STARGZ":
        raise ValueError(f"no footer: {footer!r}")
    return int(footer[16:32], 16)


def _unpacked(data: bytes) -> bytes:
    """The first gzip member; what begins behind it is the next file's."""
    return zlib.decompressobj(wbits=31).decompress(data)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
