"""The image is built from `Dockerfile` and run.

Its base is not pulled from anywhere: debootstrap makes one from the packages that this
machine's apt and pip are configured for.  buildah builds it without a daemon.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.harness.checkout import copy_of_checkout, instructions, need, read
from tests.harness.docxy import spawn
from tests.harness.processes import fetch, free_port

PACKAGES = ("ca-certificates", "python3", "python3-venv")
"""Of the base; what the Dockerfile asks of one."""


class ImageTests(SynchronousTestCase):
    """The image of a fresh copy of the checkout."""

    def setUp(self) -> None:
        self.programs = {name: need(name) for name in ("buildah", "debootstrap")}
        if os.geteuid() != 0:
            if os.environ.get("CI"):
                raise AssertionError("debootstrap needs root")
            raise SkipTest("debootstrap needs root")
        self.where = Path(self.mktemp()).resolve()
        self.where.mkdir(mode=0o755)

    def run_command(self, args: Sequence[str], minutes: float) -> str:
        """Output; the test fails with it if the command does."""
        run = subprocess.run(
            args,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "STORAGE_DRIVER": "vfs", "DEBIAN_FRONTEND": "noninteractive"},
            timeout=minutes * 60,
        )
        self.assertEqual(run.returncode, 0, f"{shlex.join(args)}\n{run.stdout[-4000:]}")
        return run.stdout

    def buildah(self, *args: str, minutes: float = 3) -> str:
        return self.run_command([*self.buildah_command(), *args], minutes)

    def buildah_command(self) -> list[str]:
        """buildah with a storage of its own."""
        return [self.programs["buildah"], "--root", f"{self.where}/storage", "--runroot", f"{self.where}/run"]

    def base(self) -> str:
        """The name of an image with Python and nothing else, made here."""
        root = self.where / "base"
        codename, uri, components = self.archive()
        self.run_command(
            [
                self.programs["debootstrap"],
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                f"--components={','.join(components)}",
                codename,
                str(root),
                uri,
            ],
            minutes=10,
        )
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", container, str(root), "/")
        self.buildah("commit", "--rm", container, "base")
        self.run_command(["rm", "-rf", "--one-file-system", str(root)], 1)
        return "localhost/base"

    def archive(self) -> tuple[str, str, list[str]]:
        """Release, address and components of the archive that this machine's own release comes from."""
        form = "$(CODENAME) $(REPO_URI) $(COMPONENT)"
        lists = self.run_command(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], 1)
        # `-updates` and `-security` add to a release and cannot be installed alone.
        targets = [line.split() for line in lists.splitlines() if "-" not in line.split()[0]]
        codename, uri, _ = targets[0]
        return codename, uri, sorted({component for *release, component in targets if release == [codename, uri]})

    def pip_configuration(self) -> Path:
        """This machine's pip settings as a file: some may come from the environment."""
        lines = self.run_command([sys.executable, "-m", "pip", "config", "list"], 1).splitlines()
        settings = {}
        for line in lines:
            key, _, value = line.partition("=")
            settings[key.rpartition(".")[2]] = str(ast.literal_eval(value)).replace("\n", "\n  ")
        path = self.where / "pip.conf"
        path.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
        return path

    def test_build_and_run(self) -> None:
        """The image builds on a base of the operator's, serves without root on PORT, and knows that it is healthy."""
        tree = copy_of_checkout(self.where / "tree")
        mounts = [f"{self.pip_configuration()}:/etc/pip.conf:ro", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        build = ["build", "--isolation=chroot", "--network=host", "--format=docker", "--layers=false", "--pull-never"]
        self.buildah(
            *build,
            f"--build-arg=BASE={self.base()}",
            *(f"--volume={mount}" for mount in mounts),
            "--tag=docxy",
            str(tree),
            minutes=10,
        )
        config = self.configuration("localhost/docxy")
        self.assertEqual(config["User"], "10001:10001")
        self.assertEqual(config["Healthcheck"]["Test"][0], "CMD")
        written = dict(instructions(read("Dockerfile")))
        self.assertEqual(config["Entrypoint"], json.loads(written["ENTRYPOINT"]))

        container = self.buildah("from", "--pull-never", "localhost/docxy").strip()
        port = free_port()
        inside = [*self.buildah_command(), "run", "--isolation=chroot", "--network=host", f"--env=PORT={port}"]
        start = [*inside, container, "--", *config["Entrypoint"], "--interface", "127.0.0.1"]
        daemon = spawn(self, start, {**os.environ, "STORAGE_DRIVER": "vfs"})
        daemon.healthy(f"http://127.0.0.1:{port}/health")
        self.assertEqual(fetch(f"http://127.0.0.1:{port}/v2/")[0], 200)
        self.run_command([*inside, container, "--", *config["Healthcheck"]["Test"][1:]], 1)
        self.assertNotRegex(daemon.text(), re.compile("traceback|not permitted|denied|read-only", re.IGNORECASE))
        self.assertIn("cache /var/cache/docxy", daemon.text())
        daemon.stop()

    def configuration(self, image: str) -> dict[str, Any]:
        """What the image says of itself."""
        config: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", image))["Docker"]["config"]
        return config
