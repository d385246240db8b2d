"""What a docxy in full swing tells on its admin socket: valid against docs/status.schema.json."""

from __future__ import annotations

from typing import Any

NOW = 1_700_000_000.0
LAYER = "sha256:" + "ab" * 32
INDEX = "sha256:" + "cd" * 32


def part(**more: Any) -> dict[str, Any]:
    """One answer of a pull."""
    return {
        "at": NOW - 178.0,
        "seconds": 2.0,
        "kind": "manifests",
        "upstream": "docker.io",
        "repository": "library/alpine",
        "reference": "3.20",
        "status": 200,
        "cache": "miss",
        "digest": INDEX,
        "sent": 1200,
        "waits": {"headers": 1.9},
        **more,
    }


def pull(**more: Any) -> dict[str, Any]:
    """A pull whose layer came slowly from the upstream."""
    layer = part(
        at=NOW - 168.0,
        seconds=10.0,
        kind="blobs",
        reference=LAYER,
        digest=LAYER,
        sent=30_000_000,
        received=30_000_000,
        connections=2,
        waits={"upstream": 9.0},
    )
    return {
        "id": "1f",
        "image": "docker.io/library/alpine:3.20",
        "upstream": "docker.io",
        "repository": "library/alpine",
        "reference": "3.20",
        "digest": INDEX,
        "platform": "linux/amd64",
        "client": "10.0.0.5",
        "account": "alice",
        "agent": "docker/29.0.1 go/go1.25",
        "started": NOW - 180.0,
        "seconds": 12.0,
        "sent": 30_001_200,
        "received": 30_001_200,
        "answers": 2,
        "running": False,
        "parts": [part(), layer],
        "verdict": {
            "cause": "upstream",
            "words": "docker.io sent 3.0 MB/s over 2 connections",
            "waits": {"headers": 1.9, "upstream": 9.0},
        },
        **more,
    }


def upstream(**more: Any) -> dict[str, Any]:
    """A registry that is well."""
    return {
        "name": "docker.io",
        "library": True,
        "aliases": ["index.docker.io", "registry-1.docker.io"],
        "named": True,
        "state": "ok",
        "asked": NOW - 3.0,
        "latency": 0.12,
        "error": None,
        "until": None,
        "limit": 100,
        "remaining": 20,
        "spent": 80,
        "spenders": [{"account": "", "repository": "library/alpine", "group": "ci", "count": 60}],
        "ends_at": NOW + 1800.0,
        **more,
    }


def share(hits: int) -> dict[str, Any]:
    """What one period came to."""
    sent, saved, received = 9_000_000_000, 8_300_000_000, 700_000_000
    return {"answers": 100, "hits": hits, "joined": 5, "sent": sent, "saved": saved, "received": received}


def snapshot(**more: Any) -> dict[str, Any]:
    """Everything; nothing is wrong."""
    return {
        "version": 1,
        "docxy": {
            "version": "1.2.3",
            "public_url": "https://mirror.example",
            "started": NOW - 300_000.0,
            "now": NOW,
            "auth": "none",
            "workers": 2,
            "serving": 2,
            "any_registry": False,
            "cache": "/var/cache/docxy",
            "upgrade_failure": None,
            "cache_failure": None,
            "certificate_expires": NOW + 80 * 86400.0,
            "certificate": None,
            "dropped": 0,
        },
        "cache": {"used": 12_000_000_000, "budget": 48_000_000_000, "largest": [], "next": []},
        "archive": {
            "name": "s3://docxy-archive/prod",
            "failure": None,
            "failed": 0,
            "put": 30_000_000_000,
            "read": 9_000_000_000,
            "waiting": 0,
        },
        "traffic": {"hour": share(92), "day": share(88), "week": share(71)},
        "upstreams": [
            upstream(),
            upstream(name="ghcr.io", library=False, aliases=[], limit=None, remaining=None, spenders=[], ends_at=None),
        ],
        "fills": [
            {
                "digest": LAYER,
                "upstream": "ghcr.io",
                "repository": "o/i",
                "size": 80_000_000,
                "offset": 20_000_000,
                "rate": 2e6,
                "readers": 2,
                "connections": 1,
                "started": NOW - 10.0,
            }
        ],
        "pulls": [pull()],
        "repositories": [],
        "errors": [
            {
                "at": NOW - 60.0,
                "upstream": "ghcr.io",
                "repository": "o/i",
                "name": "ghcr.io/o/i",
                "status": 502,
                "words": "ghcr.io does not answer",
            }
        ],
        **more,
    }


def troubled() -> dict[str, Any]:
    """Everything is wrong that can be."""
    whole = snapshot()
    return {
        **whole,
        "docxy": {
            **whole["docxy"],
            "cache_failure": "/var/cache/docxy: No space left",
            "certificate_expires": NOW + 3600,
        },
        "upstreams": [
            upstream(state="limited", error="docker.io answered 429", until=NOW + 600.0, remaining=0, ends_at=NOW),
            upstream(
                name="ghcr.io",
                library=False,
                aliases=[],
                state="backing-off",
                error="connection refused",
                until=NOW + 30.0,
            ),
        ],
    }
