"""How many bytes the cache may have, where the operator does not say."""

from __future__ import annotations

import shutil

from docxy.config import Config
from docxy.storage.index import Index
from docxy.storage.interfaces import StorageError
from docxy.storage.paths import Tree

SHARE = 0.8
"""Of what is free."""


def settled_size(config: Config) -> int | None:
    """The bytes that all processes of one docxy go by; None when there is no cache, or none that can be used."""
    if config.cache is None or config.cache_size is not None:
        return config.cache_size
    try:
        return default_budget(config.cache)
    except (StorageError, OSError):
        return None


def default_budget(directory: str) -> int:
    """Bytes: a share of what is free and of what the cache has already."""
    tree = Tree(directory)
    tree.create()
    index = Index(tree, 0)
    try:
        index.open()
        kept = index.used()
    except StorageError:
        kept = 0
    finally:
        index.close()
    return int(SHARE * (shutil.disk_usage(directory).free + kept))
