"""How many bytes the cache may have, and whether there is a place for them.

The law: what the cache holds already counts as room that it may have.
"""

from __future__ import annotations

import shutil
import tempfile

from docxy.storage.index import Index
from docxy.storage.interfaces import StorageError
from docxy.storage.paths import Tree

SHARE = 0.8
"""Of the room there is, where the operator does not say how much."""


def prepare(directory: str) -> int:
    """Make the cache's directories and see that they can be written to; the bytes there is room for.

    That is what is free, and what the cache has already.  Raises OSError.
    """
    tree = Tree(directory)
    tree.create()
    for place in (directory, tree.incoming_directory):
        with tempfile.TemporaryFile(dir=place):
            pass
    index = Index(tree)
    try:
        index.open()
        kept = index.used()
    except StorageError:
        kept = 0
    finally:
        index.close()
    return shutil.disk_usage(directory).free + kept
