"""OpenStack Swift with its S3 API, as a store behind docxy: four processes on loopback, without memcached.

It is installed once from its wheels, into an environment of its own in the tests' cache directory.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from attrs import define, field

from tests.harness.processes import Daemon, accepts, free_port
from tests.live import s3
from tests.live.s3 import BUCKET, REGION, SECRET, S3Server
from tests.live.wheels import programs

VERSION = "2.38.3"
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
    return programs("swift", VERSION)


ENVIRON = {"SWIFT": SECRET}


@define
class Swift(S3Server):
    """See `S3Server`."""

    access_key: str = field(default="docxy:docxy", init=False)

    def table(self, prefix: str, more: str = "") -> str:
        """`[archive]` for a prefix, as the file has it, and more lines of it; the secret is in `SWIFT` of `ENVIRON`."""
        return (
            f'[archive]\nurl = "s3://{BUCKET}/{prefix}"\nendpoint = "{self.url}"\n'
            f'region = "{REGION}"\naccess_key = "{self.access_key}"\nsecret_env = "SWIFT"\n{more}'
        )

    def spawn(self) -> None:
        where = installed()
        (self.directory / "devices" / "d1").mkdir(parents=True)
        (self.directory / "swift.conf").write_text(_POLICY)
        ports = {**{kind: free_port() for kind in ("account", "container", "object")}, "proxy": self.port}
        for kind, port in ports.items():
            conf = _COMMON.format(port=port, directory=self.directory)
            if kind != "proxy":
                self._ring(where, kind, port)
            (self.directory / f"{kind}.conf").write_text(
                conf + (_PROXY if kind == "proxy" else _SERVER.format(kind=kind))
            )
            argv = [str(where / f"swift-{kind}-server"), str(self.directory / f"{kind}.conf"), "-v"]
            daemon = Daemon(f"swift-{kind}", argv, self.directory / f"{kind}.log", accepts(port))
            self.daemons.append(daemon)
            daemon.spawn()

    def _ring(self, where: Path, kind: str, port: int) -> None:
        """One device, one copy."""
        builder = [str(where / "swift-ring-builder"), str(self.directory / f"{kind}.builder")]
        for step in (["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]):
            subprocess.run([*builder, *step], check=True, capture_output=True)


def shared() -> Swift:
    """The one of this process, running; a test that cannot have it is skipped, or in CI failed."""
    return s3.shared(Swift)
