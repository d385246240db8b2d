"""OCI's own conformance suite: through docxy no test ends otherwise than against the registry itself.

The suite pushes what it pulls.  An nginx sends what writes, and what asks after an upload, to
the registry, and everything else to docxy.  Nothing is deleted: that a digest stays known is
what a mirror is for.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from twisted.internet.defer import Deferred, gatherResults

from tests.harness.processes import SYSTEM_PATH, Daemon, accepts, free_port, run
from tests.live.bed import PASSWORD, USER
from tests.live.case import LiveTestCase
from tests.live.daemon import Docxy
from tests.live.fronts import nginx
from tests.live.gobuild import built
from tests.live.logins import ACCOUNT, account_table


class ConformanceTests(LiveTestCase):
    """Pull, content discovery, and all the data that the suite has, on olareg."""

    def setUp(self) -> None:
        """The suite and the registry."""
        super().setUp()
        self.programs = built("conformance", "olareg")

    def registry(self) -> int:
        """Port of an empty olareg."""
        directory, port = self.shared.new_directory("olareg"), free_port()
        argv = [self.programs["olareg"], "serve", "--addr=127.0.0.1", f"--port={port}", f"--dir={directory}"]
        daemon = Daemon("olareg", [*argv, "--gc-frequency=-1s"], directory / "log", accepts(port))
        self.addCleanup(daemon.stop)
        daemon.start()
        return port

    def mirrored(self, auth: str, tables: str = "") -> int:
        """Port of an nginx that writes to a registry and reads from a docxy in front of it."""
        registry = self.registry()
        upstream = self.challenging(registry) if auth == "transparent" else registry
        # Tags move as soon as they are pushed again, and what is not there may be a moment later.
        docxy = Docxy(
            self.shared.new_directory("docxy"),
            f"http://127.0.0.1:{upstream}",
            auth,
            options=("--tag-ttl=0",),
            upstreams=tables,
        )
        self.addCleanup(docxy.stop)
        docxy.start()
        port = free_port()
        front = nginx(
            self.shared.new_directory("front"),
            f"""
    map "$request_method $request_uri" $origin {{
        default 127.0.0.1:{registry};
        "~^(GET|HEAD) /v2/.*/blobs/uploads/" 127.0.0.1:{registry};
        "~^(GET|HEAD) " 127.0.0.1:{docxy.port};
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://$origin;
            proxy_set_header Host $http_host;
        }}
    }}
""",
            port,
        )
        self.addCleanup(front.stop)
        front.start()
        return port

    async def results(self, port: int, account: tuple[str, str] | None = None) -> dict[str, str]:
        """How each test ended, by its name; `account`: what the suite gets its tokens with."""
        directory = self.shared.new_directory("results")
        settings = directory / "settings.yaml"
        settings.touch()
        environ = {
            "PATH": SYSTEM_PATH,
            "OCI_RESULTS_DIR": str(directory),
            "OCI_CONFIGURATION": str(settings),
            "OCI_VERSION": "1.1",
            "OCI_REGISTRY": f"127.0.0.1:{port}",
            "OCI_TLS": "disabled",
            # Where the token service lets accounts read.
            "OCI_REPO1": "team/one",
            "OCI_REPO2": "team/two",
            "OCI_API_BLOBS_DELETE": "false",
            "OCI_API_MANIFESTS_DELETE": "false",
            "OCI_API_TAGS_DELETE": "false",
        }
        if account is not None:
            environ["OCI_USERNAME"], environ["OCI_PASSWORD"] = account
        # Its exit status says whether every test passed; that is for the comparison to judge.
        output = await run(self.reactor, [self.programs["conformance"]], environ, timeout=200, check=False)
        path = directory / "junit.xml"
        self.assertTrue(path.exists(), output.text)
        return outcomes(path)

    def test_no_test_differs(self) -> Deferred[None]:
        """Every test that passes against the registry passes through docxy in every mode, and none is left out."""
        return Deferred.fromCoroutine(self._compare())

    async def _compare(self) -> None:
        ways: dict[str, tuple[str, str, tuple[str, str] | None]] = {
            "none": ("none", "", None),
            "transparent": ("transparent", "", (USER, PASSWORD)),
            "[access]": ("none", account_table(self.shared.new_directory("accounts")), ACCOUNT),
        }
        ports = [self.mirrored(auth, tables) for auth, tables, _ in ways.values()]
        runs = [self.results(self.registry())]
        runs += [self.results(port, account) for port, (*_, account) in zip(ports, ways.values(), strict=True)]
        direct, *others = await gatherResults([Deferred.fromCoroutine(run) for run in runs])
        self.assertGreater(sum(outcome == "passed" for outcome in direct.values()), 300)
        for way, through in zip(ways, others, strict=True):
            other = {name: (was, through.get(name)) for name, was in direct.items() if through.get(name) != was}
            self.assertEqual(other, {}, way)
            self.assertEqual(through.keys(), direct.keys(), way)


def outcomes(junit: Path) -> dict[str, str]:
    """What the suite says of each test: `passed`, `skipped`, `disabled`, `failure` or `error`.

    A name that comes again gets a number.
    """
    found: dict[str, str] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        name = case.get("name", "")
        again = sum(known.partition(" #")[0] == name for known in found)
        found[f"{name} #{again}" if again else name] = case.get("status", "")
    return found
