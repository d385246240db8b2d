"""OpenStack Swift with its S3 API, as a store behind docxy: four processes on loopback, without memcached.

It is installed once from its wheels, into an environment of its own in the tests' cache directory.
"""

from __future__ import annotations

import atexit
import functools
import subprocess
from contextlib import suppress
from pathlib import Path

import obstore
from attrs import define, field
from obstore.exceptions import GenericError
from obstore.store import S3Store

from docxy.settings.model import ArchiveSettings
from tests.harness.processes import Daemon, accepts, free_port, scratch_directory
from tests.live.wheels import programs

VERSION = "2.38.3"
ACCESS_KEY, SECRET = "docxy:docxy", "secretkey"
BUCKET = "docxy"
_COMMON = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {directory}
devices = {directory}/devices
mount_check = false
user = root
log_address = {directory}/no-log
"""
_SERVER = """[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
fallocate_reserve = 0
"""
_PROXY = """[pipeline:main]
pipeline = catch_errors cache s3api tempauth bulk slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_docxy_docxy = secretkey .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""
_POLICY = """[swift-hash]
swift_hash_path_suffix = docxy
[storage-policy:0]
name = one
default = yes
"""


def installed() -> Path:
    """Where its programs are; raises SkipTest."""
    return programs("swift", VERSION, "swift-proxy-server")


ENVIRON = {"SWIFT": SECRET}


@functools.cache
def shared() -> Swift:
    """The one of this process, running; a test that cannot have it is skipped, or in CI failed."""
    installed()
    swift = Swift(scratch_directory())
    atexit.register(swift.stop)
    swift.start()
    return swift


def key(digest: str) -> str:
    """Where docxy keeps a blob."""
    algorithm, _, name = digest.partition(":")
    return f"blobs/{algorithm}/{name[:2]}/{name}"


@define
class Swift:
    """One store with an empty bucket; to be started and stopped."""

    directory: Path
    """Its own, existing and empty."""
    ports: dict[str, int] = field(factory=dict, init=False)
    _daemons: list[Daemon] = field(factory=list, init=False)

    @property
    def port(self) -> int:
        """Of its S3 API."""
        return self.ports["proxy"]

    def table(self, prefix: str, more: str = "") -> str:
        """`[archive]` for a prefix, as the file has it, and more lines of it; the secret is in `SWIFT` of `ENVIRON`."""
        return (
            f'[archive]\nurl = "s3://{BUCKET}/{prefix}"\nendpoint = "http://127.0.0.1:{self.port}"\n'
            f'region = "us-east-1"\naccess_key = "{ACCESS_KEY}"\nsecret_env = "SWIFT"\n{more}'
        )

    def bucket(self, prefix: str) -> S3Store:
        """The bucket, under a prefix."""
        return S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def settings(self, url: str) -> ArchiveSettings:
        """`[archive]` for it; `url`: its own, or that of a relay before it."""
        secret = SECRET.encode()
        return ArchiveSettings(
            f"s3://{BUCKET}/prefix", endpoint=url, region="us-east-1", access_key=ACCESS_KEY, secret=secret
        )

    def start(self) -> None:
        where = installed()
        (self.directory / "devices" / "d1").mkdir(parents=True)
        (self.directory / "swift.conf").write_text(_POLICY)
        self.ports = {kind: free_port() for kind in ("account", "container", "object", "proxy")}
        for kind, port in self.ports.items():
            conf = _COMMON.format(port=port, directory=self.directory)
            if kind != "proxy":
                self._ring(where, kind, port)
            (self.directory / f"{kind}.conf").write_text(
                conf + (_PROXY if kind == "proxy" else _SERVER.format(kind=kind))
            )
            argv = [str(where / f"swift-{kind}-server"), str(self.directory / f"{kind}.conf"), "-v"]
            daemon = Daemon(f"swift-{kind}", argv, self.directory / f"{kind}.log", accepts(port))
            self._daemons.append(daemon)
            daemon.spawn()
        for daemon in self._daemons:
            daemon.until(daemon.ready)
        self._make_bucket()

    def _ring(self, where: Path, kind: str, port: int) -> None:
        """One device, one copy."""
        builder = [str(where / "swift-ring-builder"), str(self.directory / f"{kind}.builder")]
        for step in (["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]):
            subprocess.run([*builder, *step], check=True, capture_output=True)

    def _make_bucket(self) -> None:
        # A virtual-hosted bucket is no part of the path: its object of this name is the bucket.
        store = S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            virtual_hosted_style_request=True,
            client_options={"allow_http": True},
        )
        with suppress(GenericError):  # a bucket has no ETag
            obstore.put(store, BUCKET, b"", use_multipart=False)

    def stop(self) -> None:
        for daemon in self._daemons:
            daemon.stop()
