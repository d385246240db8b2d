"""docxy itself, started the way an operator starts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from ssl import create_default_context

from attrs import define, field

from tests.harness.certificates import Files
from tests.harness.docxy import FOREGROUND, environment
from tests.harness.processes import Daemon, fetch, free_port
from tests.live.machine import HOSTNAME, Target


@define
class Docxy:
    """One docxy; `start` and `stop` it, or use it as a context manager."""

    directory: Path
    """Its own; made when it is not there."""
    upstream: str
    """URL of what takes Docker Hub's place."""
    auth: str
    """`transparent` or `none`."""
    certificate: Files | None = None
    """None: plain HTTP."""
    cache: bool | Path = True
    """Whether it keeps what it fetched (in its directory), or where else."""
    options: Sequence[str] = ()
    """More of the command line."""
    environ: Mapping[str, str] = field(factory=dict)
    """More of the environment."""
    upstreams: str = ""
    """More `[[upstreams]]` tables."""
    tmpfs: int = 0
    """Bytes of a file system of its own that holds only its cache; 0: none."""
    port: int = field(factory=free_port)
    redirect_port: int = field(factory=free_port)
    """Of the HTTP port beside HTTPS."""
    own_root: Path | None = None
    """Where it gets its certificate itself, as its options say: what clients are to trust.

    A file that is not there yet becomes the CA that docxy shows on its redirect port.
    """
    daemon: Daemon = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.set_up()

    def set_up(self) -> None:
        """What is started, by the ports as they are now."""
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "docxy.toml"
        # The name makes it Docker Hub: `library/`, aliases, `ns`.
        config.write_text(
            f'[[upstreams]]\nname = "docker.io"\nurl = "{self.upstream}"\nlibrary = true\n{self.upstreams}\n'
        )
        serving = ["--cert=off", f"--port={self.port}"]
        if self.certificate is not None:
            serving = [
                f"--cert={self.certificate.chain}",
                f"--key={self.certificate.key}",
                f"--https-port={self.port}",
                f"--http-port={self.redirect_port}",
            ]
        elif self.own_root is not None:
            serving = [f"--https-port={self.port}", f"--http-port={self.redirect_port}"]
        self.daemon = Daemon(
            "docxy",
            [
                *self._mounting(),
                *FOREGROUND,
                *(f"--config={config}", f"--auth={self.auth}", "--interface=127.0.0.1"),
                *(f"--public-url={self.url}", f"--cache={self.cache_directory or 'off'}"),
                *serving,
                *self.options,
            ],
            self.directory / "docxy.log",
            self._healthy,
            environment(HOME=str(self.directory), **self.environ),
        )

    def __enter__(self) -> Docxy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def cache_directory(self) -> Path | None:
        """Where it keeps what it fetched; None: nowhere."""
        if isinstance(self.cache, Path):
            return self.cache
        return self.directory / "cache" if self.cache else None

    @property
    def target(self) -> Target:
        """For a Machine."""
        return Target(self.port, self.root)

    @property
    def root(self) -> Path | None:
        """What clients are to trust; None: plain HTTP."""
        return self.own_root if self.certificate is None else self.certificate.root

    @property
    def url(self) -> str:
        """What clients call it."""
        return self.target.url

    def start(self) -> None:
        """Start it and return when `/health` is 200; raises DidNotStart."""
        self.daemon.start()

    def stop(self) -> int | None:
        """SIGTERM; its exit status."""
        return self.daemon.stop()

    def connect(self, timeout: float = 30.0) -> HTTPConnection:
        """A connection to it, its certificate checked, for use where blocking does no harm."""
        if self.root is None:
            return HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        context = create_default_context(cafile=str(self.root))
        # What docxy gets itself covers its name alone.
        context.check_hostname = self.certificate is not None
        return HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)

    def _mounting(self) -> list[str]:
        """What makes the tmpfs before it runs the rest; it vanishes with the process."""
        if not self.tmpfs or self.cache_directory is None:
            return []
        self.cache_directory.mkdir(exist_ok=True)
        mount = f'mount -t tmpfs -o size={self.tmpfs} docxy "$1" && shift && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh", str(self.cache_directory)]

    def _healthy(self) -> bool:
        if self.own_root is not None and not self.own_root.exists():
            try:
                self.own_root.write_bytes(fetch(f"http://127.0.0.1:{self.redirect_port}/ca.pem")[2])
            except OSError:
                return False
        connection = self.connect(timeout=2)
        try:
            connection.request("GET", "/health", headers={"Host": f"{HOSTNAME}:{self.port}"})
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
