"""pebble, Let's Encrypt's ACME server for tests, which validates as the real one does.

The law: it comes to docxy's redirect port by name, as from the internet, and believes nothing.
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path

from attrs import define, field

from tests.harness.certificates import Files
from tests.harness.processes import SYSTEM_PATH, Daemon, free_port
from tests.live.gobuild import built
from tests.live.machine import Machine, Target


@define
class Pebble:
    """One server; a context manager."""

    directory: Path
    """Its own, existing and empty."""
    certificate: Files
    """What it shows docxy."""
    http_port: int
    """Where it asks for challenges, in place of 80."""
    life: int = 90 * 24 * 3600
    """Seconds of its certificates."""
    port: int = field(factory=free_port)
    management_port: int = field(factory=free_port)
    daemon: Daemon = field(init=False)

    def __attrs_post_init__(self) -> None:
        config = self.directory / "pebble.json"
        config.write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": f"127.0.0.1:{self.port}",
                        "managementListenAddress": f"127.0.0.1:{self.management_port}",
                        "certificate": str(self.certificate.chain),
                        "privateKey": str(self.certificate.key),
                        "httpPort": self.http_port,
                        "tlsPort": free_port(),
                        "ocspResponderURL": "",
                        "externalAccountBindingRequired": False,
                        "keyAlgorithm": "ecdsa",
                        "retryAfter": {"authz": 1, "order": 1},
                        "profiles": {
                            "default": {"description": "usual", "validityPeriod": self.life},
                            "shortlived": {"description": "for addresses", "validityPeriod": 6 * 24 * 3600},
                        },
                    }
                }
            )
        )
        # A machine for its /etc/hosts alone, which knows docxy's name.
        machine = Machine(self.directory / "machine", Target(self.http_port))
        self.daemon = Daemon(
            "pebble",
            machine.command([built("pebble")["pebble"], "-config", str(config)]),
            self.directory / "pebble.log",
            self._answers,
            {
                "PATH": SYSTEM_PATH,
                "PEBBLE_VA_ALWAYS_VALID": "0",
                "PEBBLE_VA_NOSLEEP": "1",
                # The library tries once more after a refused nonce; two in a row would be a failure of chance.
                "PEBBLE_WFE_NONCEREJECT": "0",
            },
        )

    def __enter__(self) -> Pebble:
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()

    @property
    def directory_url(self) -> str:
        """For `--acme-directory`."""
        return f"https://127.0.0.1:{self.port}/dir"

    @property
    def options(self) -> tuple[str, ...]:
        """Of docxy."""
        return f"--acme-directory={self.directory_url}", f"--acme-ca-file={self.certificate.root}"

    def root(self) -> bytes:
        """What clients trust: it is another one each time that pebble starts."""
        return self._get(f"https://127.0.0.1:{self.management_port}/roots/0")

    def _get(self, url: str) -> bytes:
        context = ssl.create_default_context(cafile=str(self.certificate.root))
        with urllib.request.urlopen(url, timeout=10, context=context) as answer:
            content: bytes = answer.read()
        return content

    def _answers(self) -> bool:
        try:
            self._get(self.directory_url)
        except OSError:
            return False
        return True
