"""What the cache holds, by repository, and what goes first when room is needed.  Blocks: called in a thread.

The laws: *it only reads*, on connections of its own, so that nothing that serves waits for it; what cannot be read
tells nothing.  A blob that several repositories hold counts for each of them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any
from urllib.parse import quote

from docxy.storage.eviction import in_order
from docxy.storage.paths import Tree
from docxy.storage.remembered import Late
from docxy.storage.shares import Shares

LARGEST = 10
"""Repositories in the answer."""
NEXT = 5
"""Blobs in the answer."""
HOLDERS = 2
"""Repositories of each of these."""
_PATIENCE = 1.0
"""Seconds to wait for a transaction of somebody else's."""

_LARGEST = """
SELECT held.upstream, held.repository, sum(blobs.counted), count(*), max(blobs.last_used)
FROM (SELECT DISTINCT upstream, repository, digest FROM catalog.held) AS held JOIN blobs USING (digest)
GROUP BY held.upstream, held.repository ORDER BY 3 DESC, 1, 2 LIMIT ?
"""
_USED = "SELECT last_used FROM blobs WHERE digest = ?"
_HOLDERS = "SELECT DISTINCT digest, upstream, repository FROM catalog.held WHERE digest IN ({}) ORDER BY seen DESC"


def contents(directory: str, budget: int, shares: Shares, seconds: Callable[[], float]) -> Mapping[str, Any]:
    """`largest` and `next`, as `docxy.observe.model` has them; nothing where the databases cannot be read.

    `budget`: bytes that the cache may take; `seconds`: the time since the epoch.
    """
    tree = Tree(directory)
    catalog = os.path.join(directory, "catalog.sqlite")
    try:
        with closing(sqlite3.connect(_uri(tree.index), _PATIENCE, uri=True)) as database:
            database.execute("ATTACH ? AS catalog", (_uri(catalog),))
            largest = database.execute(_LARGEST, (LARGEST,)).fetchall()
            remembered = Late(int(budget * shares.history), seconds)
            order = in_order(database, budget, shares.large, remembered, lambda name: True)
            first = [
                (digest, size, float(used))
                for digest, size in islice(order, NEXT)
                for (used,) in database.execute(_USED, (digest,)).fetchall()
            ]
            holders: dict[str, list[tuple[str, str]]] = {}
            digests = [digest for digest, _, _ in first]
            for digest, *holder in database.execute(_HOLDERS.format(", ".join("?" * len(digests))), digests):
                holders.setdefault(digest, []).append((holder[0], holder[1]))
    except sqlite3.Error:
        return {}
    return {
        "largest": [
            {**_named(upstream, repository), "size": size, "blobs": blobs, "used": used}
            for upstream, repository, size, blobs, used in largest
        ],
        "next": [
            {**_named(*holder), "digest": digest, "size": size, "used": used}
            for digest, size, used in first
            for holder in _some(holders.get(digest, ()))
        ],
    }


def _some(holders: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """A few of them; nobody where nobody is known any more."""
    return holders[:HOLDERS] or [("", "")]


def _named(upstream: str, repository: str) -> dict[str, str]:
    return {"upstream": upstream, "repository": repository, "name": f"{upstream}/{repository}" if upstream else ""}


def _uri(path: str) -> str:
    return f"file:{quote(path)}?mode=ro"
