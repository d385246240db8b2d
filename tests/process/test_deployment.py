"""Every deployment file is read, and the commands and settings in it are held against docxy's own.

What can run here is run in `tests/process/test_running.py` and `tests/process/test_image.py`.  Not shown: that
Render, Fly.io and systemd do with their files what these say.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

from docxy.settings.model import AuthMode, Config
from docxy.tap import Options

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


from tests.harness.checkout import (
    TOP,
    VARIABLES,
    commands,
    configure,
    docxy_arguments,
    instructions,
    need,
    pairs,
    read,
    unit,
    without,
)


class SettingsTests(SynchronousTestCase):
    """What the files set is what docxy understands."""

    def accepted(self, environ: Mapping[str, str], args: Sequence[str] = ()) -> Config:
        """The Config that these settings make; an unknown variable or a bad value fails the test."""
        self.assertLessEqual(set(environ), VARIABLES)
        return configure(args, environ)

    def test_dockerfile(self) -> None:
        """The image sets variables that docxy has, and starts it as plain HTTP on the port it exposes."""
        found = instructions(read("Dockerfile"))
        environ = {k: v for word, rest in found if word == "ENV" for k, v in pairs(rest).items()}
        del environ["PYTHONUNBUFFERED"]
        entrypoint = json.loads(dict(found)["ENTRYPOINT"])
        args = docxy_arguments(entrypoint)
        assert args is not None
        config = self.accepted(environ, args)
        self.assertIsNone(config.cert)
        self.assertIn(f":{dict(found)['EXPOSE']}", config.http)
        self.assertEqual(config.cache, dict(found)["VOLUME"])

    def test_compose(self) -> None:
        """compose.yaml sets variables that docxy has, publishes the port and keeps the cache."""
        (service,) = yaml.safe_load(read("compose.yaml"))["services"].values()
        environ = service["environment"]
        config = self.accepted(environ)
        ((_, port),) = [published.rsplit(":", 1) for published in service["ports"]]
        self.assertIn(f":{port}", config.http)
        self.assertEqual([volume.split(":")[1] for volume in service["volumes"]], [config.cache])
        self.assertGreater(float(service["stop_grace_period"].rstrip("s")), config.timeouts.shutdown)

    def test_render(self) -> None:
        """render.yaml sets variables that docxy has, leaves PORT to the platform, and asks /health."""
        (service,) = yaml.safe_load(read("render.yaml"))["services"]
        environ = {entry["key"]: entry.get("value", "https://docxy.example") for entry in service["envVars"]}
        self.assertNotIn("PORT", environ)
        config = self.accepted({**environ, "PORT": "10000"})
        self.assertIn(":10000", config.http)
        self.assertIsNone(config.cert)
        self.assertEqual(config.auth, AuthMode.NONE)
        self.assertEqual(service["healthCheckPath"], "/health")
        self.assertTrue((TOP / service["dockerfilePath"]).is_file())

    def test_fly(self) -> None:
        """fly.toml sets variables that docxy has, and its own port and health check are docxy's."""
        fly = tomllib.loads(read("fly.toml"))
        config = self.accepted(fly["env"])
        self.assertIn(f":{fly['http_service']['internal_port']}", config.http)
        self.assertEqual([check["path"] for check in fly["http_service"]["checks"]], ["/health"])
        self.assertGreater(fly["kill_timeout"], config.timeouts.shutdown)
        self.assertEqual(config.public_url, f"https://{fly['app']}.fly.dev")
        self.assertTrue((TOP / fly["build"]["dockerfile"]).is_file())

    def test_unit(self) -> None:
        """The systemd unit starts docxy with variables it has, from credentials that it loads."""
        service = unit(read("deploy/docxy.service"))["Service"]
        environ = {k: v for key, value in service if key == "Environment" for k, v in pairs(value).items()}
        loaded = {value.split(":")[0] for key, value in service if key == "LoadCredential"}
        self.assertEqual({environ["CERT_PATH"], environ["KEY_PATH"]}, {f"%d/{name}" for name in loaded})
        self.assertLessEqual(set(environ), VARIABLES)
        args = docxy_arguments(shlex.split(dict(service)["ExecStart"]))
        self.assertEqual(args, [])
        self.assertGreater(float(dict(service)["TimeoutStopSec"]), configure([], {}).timeouts.shutdown)
        self.assertEqual(environ["CACHE_DIR"], f"%C/{dict(service)['CacheDirectory']}")

    def test_nginx_arguments(self) -> None:
        """The options that the nginx example asks for are docxy's, and name the address nginx goes to."""
        text = read("deploy/nginx.conf")
        (line,) = re.findall(r"^#\s+(--interface .*)$", text, re.MULTILINE)
        config = configure(shlex.split(line), {})
        self.assertIn("server 127.0.0.1:8080;", text)
        self.assertIn("8080", config.http)
        self.assertIn("127.0.0.1", config.http)

    def test_documents(self) -> None:
        """Every command in the documents that starts docxy has options and variables that docxy has."""
        started = 0
        variables = VARIABLES | {"PYTHON", "VENV", "PIP_INDEX_URL"}
        for name in ("README.md", "docs/quickstart.md", "docs/deployment.md", "CONTRIBUTING.md"):
            for shell in re.findall(r"^```sh\n(.*?)^```$", read(name), re.MULTILINE | re.DOTALL):
                for words in commands(shell):
                    assigned = [word.split("=")[0] for word in words if re.match(r"[A-Z_]+=", word)]
                    self.assertLessEqual(set(assigned), variables, (name, words))
                    args = docxy_arguments(words)
                    if args is not None:
                        started += 1
                        # Files that are named there are the operator's.
                        Options({}).parseOptions(["--cert", "off", *without(args, "--cert", "--key")])
        self.assertGreater(started, 5)


class ShapeTests(SynchronousTestCase):
    """The files are safe in the ways they claim."""

    def test_unit_documentation(self) -> None:
        """The page that the unit names is one that the recipe installs, in English and Chinese."""
        page = dict(unit(read("deploy/docxy.service"))["Unit"])["Documentation"]
        for recipe in ("docs/deployment.md", "docs/deployment.zh-CN.md"):
            self.assertIn(f"README.md {page.removeprefix('file:')}\n", read(recipe))

    def test_unit_plugins(self) -> None:
        """The recipe has root write twistd's list of plugins, which docxy's user may not write."""
        for recipe in ("docs/deployment.md", "docs/deployment.zh-CN.md"):
            self.assertRegex(read(recipe), r"/opt/docxy/bin/pip install \.\n/opt/docxy/bin/twistd --help")

    def test_grace(self) -> None:
        """What stops docxy waits longer than docxy gives its running transfers: 45 s, everywhere."""
        self.assertEqual(yaml.safe_load(read("render.yaml"))["services"][0]["maxShutdownDelaySeconds"], 45)
        self.assertIn("stop_grace_period: 45s", read("compose.yaml"))
        self.assertIn("TimeoutStopSec=45\n", read("deploy/docxy.service"))
        self.assertEqual(tomllib.loads(read("fly.toml"))["kill_timeout"], 45)

    def test_dockerfile_is_not_root(self) -> None:
        """The last stage runs as a numeric user who is not root, with a health check that needs no curl."""
        found = instructions(read("Dockerfile"))
        last = found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]
        user = dict(last)["USER"]
        self.assertNotEqual(int(user.split(":")[0]), 0)
        self.assertNotIn("curl", read("Dockerfile"))
        check = json.loads(dict(last)["HEALTHCHECK"].partition("CMD")[2])
        self.assertEqual(Path(check[-1]).name, "healthcheck.py")

    def test_dockerfile_takes_any_base(self) -> None:
        """Both stages come from BASE, which an operator can set."""
        found = instructions(read("Dockerfile"))
        self.assertEqual(found[0][0], "ARG")
        bases = [rest.split()[0] for word, rest in found if word == "FROM"]
        self.assertEqual(set(bases), {"${BASE}"})

    def test_dockerignore_lets_through_what_is_copied(self) -> None:
        """What the image is built from is in the checkout and not ignored."""
        kept = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
        for name in kept:
            self.assertTrue((TOP / name).exists(), name)
        for name in ("docxy", "twisted", "setup.cfg", "pyproject.toml", "deploy/healthcheck.py"):
            self.assertIn(name, kept)

    def test_unit_is_understood(self) -> None:
        """systemd knows every directive of the unit."""
        analyze = need("systemd-analyze")
        where = Path(self.mktemp())
        where.mkdir()
        # systemd-analyze wants the program of ExecStart to exist; ours is installed by the operator.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", read("deploy/docxy.service"), flags=re.MULTILINE)
        path = where / "docxy.service"
        path.write_text(text)
        run = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, timeout=60)
        self.assertEqual((run.returncode, run.stdout, run.stderr), (0, "", ""))

    def test_unit_is_confined(self) -> None:
        """The unit has a user of its own and one capability."""
        service = dict(unit(read("deploy/docxy.service"))["Service"])
        self.assertEqual(service["DynamicUser"], "yes")
        self.assertEqual(service["CapabilityBoundingSet"], "CAP_NET_BIND_SERVICE")
        self.assertEqual(service["AmbientCapabilities"], "CAP_NET_BIND_SERVICE")

    def test_scripts_parse(self) -> None:
        """The shells accept the scripts."""
        for shell, name in (("sh", "deploy-without-auth.sh"), ("bash", ".ci/run")):
            subprocess.run([shell, "-n", str(TOP / name)], check=True, timeout=10)
            self.assertTrue(os.access(TOP / name, os.X_OK), name)
