"""Stores with an S3 API behind docxy, each on loopback with an empty bucket.

| store | from | |
|---|---|---|
| OpenStack Swift | its wheels | `swift.py`; what all tests use |
| versitygw | its Go module | a directory behind it |
| SeaweedFS | its Go module | where somebody has built it: that takes ten minutes of CPU time |
"""

from __future__ import annotations

import atexit
import json
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import obstore
from attrs import define, field
from obstore.exceptions import GenericError
from obstore.store import S3Store

from docxy.settings.model import ArchiveSettings
from tests.harness.processes import Daemon, accepts, free_port, scratch_directory, until
from tests.live.gobuild import built

BUCKET = "docxy"
SECRET = "secretkey"
REGION = "us-east-1"
T = TypeVar("T", bound="S3Server")
_SHARED: dict[type[S3Server], S3Server] = {}


def key(digest: str) -> str:
    """Where docxy keeps a blob."""
    algorithm, _, name = digest.partition(":")
    return f"blobs/{algorithm}/{name[:2]}/{name}"


@define
class S3Server:
    """One store; to be started and stopped."""

    directory: Path
    """Its own, existing and empty."""
    port: int = field(factory=free_port, init=False)
    """Of its S3 API."""
    access_key: str = field(default="docxy", init=False)
    daemons: list[Daemon] = field(factory=list, init=False)

    @property
    def url(self) -> str:
        """Of its S3 API."""
        return f"http://127.0.0.1:{self.port}"

    def spawn(self) -> None:
        """Start its processes, which are then in `daemons`.  Raises SkipTest."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and make the bucket."""
        self.spawn()
        for daemon in self.daemons:
            daemon.until(daemon.ready)
        # A virtual-hosted bucket is no part of the path: its object of this name is the bucket.
        store = self._store(BUCKET, virtual_hosted_style_request=True)

        def made() -> bool:
            with suppress(GenericError):  # a bucket has no ETag
                obstore.put(store, BUCKET, b"", use_multipart=False)
            try:
                obstore.put(self.bucket("made"), "made", b"", use_multipart=False)
            except (GenericError, OSError):
                return False
            return True

        # Some take connections before their parts know of each other.
        until(made)

    def stop(self) -> None:
        """Stop it."""
        for daemon in self.daemons:
            daemon.stop()

    def bucket(self, prefix: str) -> S3Store:
        """The bucket, under a prefix."""
        return self._store(BUCKET, prefix=prefix)

    def _store(self, name: str, **more: object) -> S3Store:
        made: S3Store = S3Store(
            name,
            endpoint=self.url,
            access_key_id=self.access_key,
            secret_access_key=SECRET,
            region=REGION,
            client_options={"allow_http": True},
            **more,  # type: ignore[arg-type]  # which are of several types
        )
        return made

    def settings(self, url: str) -> ArchiveSettings:
        """`[archive]` for it; `url`: its own, or that of a relay before it."""
        return ArchiveSettings(
            f"s3://{BUCKET}/prefix", endpoint=url, region=REGION, access_key=self.access_key, secret=SECRET.encode()
        )


class Versity(S3Server):
    """versitygw in front of a directory."""

    def spawn(self) -> None:
        for name in ("data", "about"):
            (self.directory / name).mkdir()
        argv = [built("versitygw")["versitygw"], "--access", self.access_key, "--secret", SECRET, "--region", REGION]
        argv += ["--port", f"127.0.0.1:{self.port}", "posix", "--sidecar", str(self.directory / "about")]
        log = self.directory / "versitygw.log"
        daemon = Daemon("versitygw", [*argv, str(self.directory / "data")], log, accepts(self.port))
        self.daemons.append(daemon)
        daemon.spawn()


class Seaweed(S3Server):
    """SeaweedFS, all of it in one process."""

    def spawn(self) -> None:
        key = {"accessKey": self.access_key, "secretKey": SECRET}
        identity = {"name": "docxy", "credentials": [key], "actions": ["Admin", "Read", "Write", "List"]}
        config = self.directory / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        argv = [built("weed")["weed"], "server", f"-dir={self.directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        argv += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=20"]
        for part in ("master", "volume", "filer"):
            argv += [f"-{part}.port={free_port()}", f"-{part}.port.grpc={free_port()}"]
        argv += ["-s3", f"-s3.port={self.port}", f"-s3.port.grpc={free_port()}", f"-s3.config={config}"]
        argv += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.localSocket={self.directory}/s3.sock"]
        daemon = Daemon("seaweedfs", argv, self.directory / "weed.log", accepts(self.port))
        self.daemons.append(daemon)
        daemon.spawn()


def shared(kind: type[T]) -> T:
    """The one of this kind in this process, running; a test that cannot have it is skipped, or in CI failed."""
    server = _SHARED.get(kind)
    if server is None:
        server = kind(scratch_directory())
        atexit.register(server.stop)
        server.start()
        _SHARED[kind] = server
    assert isinstance(server, kind)
    return server
