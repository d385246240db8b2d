"""The wheel and the sdist: what is in them, and that an installation of them is one that twistd sees.

Built without the network from a copy of the checkout.  The environment they are installed in
has what this one has, but for docxy, and a copy of Twisted of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted
from docxy import __version__
from tests.harness.checkout import bare_environment, copy_of_checkout

PLUGIN = "twisted/plugins/docxy_plugin.py"
TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")


def run(*command: str | Path, cwd: Path | None = None, **environ: str) -> str:
    """The output of a command that must succeed."""
    ended = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=bare_environment(PIP_DISABLE_PIP_VERSION_CHECK="1", **environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, f"{command} ended with {ended.returncode}:\n{ended.stdout}"
    return ended.stdout


class Environment:
    """A virtual environment without docxy."""

    def __init__(self, directory: Path) -> None:
        venv.create(directory, symlinks=True)
        self.python = directory / "bin/python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.packages = directory / "lib" / version / "site-packages"
        self.twisted = self.packages / "twisted"
        shutil.copytree(
            Path(twisted.__file__).parent,
            self.twisted,
            ignore=shutil.ignore_patterns("test", "__pycache__", "docxy_plugin.py", "dropin.cache"),
        )
        for place in map(Path, sys.path):
            if place.name not in ("site-packages", "dist-packages") or not place.is_dir():
                continue
            for entry in place.iterdir():
                link = self.packages / entry.name
                if not (entry.name.startswith(("docxy", "__editable__")) or entry.suffix == ".pth" or link.exists()):
                    link.symlink_to(entry)

    def pip(self, *args: str | Path) -> str:
        return run(sys.executable, "-m", "pip", "--python", self.python, *args)

    def twistd(self, *args: str) -> str:
        return run(self.python, *TWISTD, *args, cwd=self.packages.parent, PYTHONPATH="")


class PackagingTests(SynchronousTestCase):
    built: Path | None = None
    """Where the wheel and the sdist are; built once for all tests."""

    def setUp(self) -> None:
        if PackagingTests.built is None:
            built = Path(self.mktemp()).resolve()
            built.mkdir()
            source = copy_of_checkout(built / "source")
            build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
            run(sys.executable, "-c", build, built, cwd=source)
            run(
                *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
                *("--wheel-dir", built, source),
            )
            PackagingTests.built = built

    def file(self, pattern: str) -> Path:
        assert self.built is not None
        (found,) = self.built.glob(pattern)
        return found

    def has_all(self, names: Sequence[str]) -> None:
        """The package as in the checkout, the plugin, and nothing that would take Twisted's place."""
        top = Path(__file__).resolve().parents[2]
        modules = {str(path.relative_to(top)) for path in (top / "docxy").rglob("*.py")}
        self.assertEqual(modules - set(names), set())
        self.assertIn("docxy/py.typed", names)
        self.assertEqual([name for name in names if name.startswith("twisted/") and not name.endswith("/")], [PLUGIN])
        self.assertEqual([name for name in names if name.endswith((".pyc", "dropin.cache"))], [])

    def test_wheel(self) -> None:
        """The wheel holds docxy and the plugin, is for every platform, and says what it needs."""
        with zipfile.ZipFile(self.file("*.whl")) as wheel:
            names = wheel.namelist()
            self.has_all(names)
            (metadata,) = (wheel.read(name) for name in names if name.endswith(".dist-info/METADATA"))
        self.assertEqual([name for name in names if name.startswith("tests")], [])
        self.assertEqual(self.file("*.whl").name, f"docxy-{__version__}-py3-none-any.whl")
        message = message_from_bytes(metadata)
        self.assertEqual((message["Name"], message["Version"]), ("docxy", __version__))
        self.assertEqual(message["Requires-Python"], ">=3.10")
        needed = "\n".join(message.get_all("Requires-Dist", []))
        for name in ("twisted", "treq", "attrs", "pyOpenSSL", "service-identity"):
            self.assertIn(name, needed)
        self.assertEqual(set(message.get_all("Provides-Extra", [])), {"acme", "s3", "test", "dev", "docs", "otel"})

    def test_sdist(self) -> None:
        """The sdist holds all of the checkout that a packager needs, tests too."""
        with tarfile.open(self.file("*.tar.gz")) as sdist:
            names = [name.partition("/")[2] for name in sdist.getnames()]
        files = [name for name in names if not name.startswith(("docxy.egg-info", "tests/"))]
        self.has_all([name for name in files if name not in ("twisted", "twisted/plugins")])
        for name in (
            "README.md",
            "LICENSE",
            "CHANGELOG.md",
            "setup.cfg",
            "pyproject.toml",
            "tests/process/test_packaging.py",
        ):
            self.assertIn(name, names)

    def test_installed(self) -> None:
        """After an installation twistd lists docxy and runs it; Twisted's own files stay what they were."""
        environment = Environment(Path(self.mktemp()).resolve())
        own = environment.twisted / "plugins/__init__.py"
        before = own.read_bytes()
        self.assertNotIn("docxy", environment.twistd("--help"))
        environment.pip("install", "--quiet", "--no-deps", "--no-index", self.file("*.whl"))
        self.assertRegex(environment.twistd("--help"), r"\n +docxy +A mirror of container registries\.\n")
        self.assertEqual(environment.twistd("docxy", "--version"), f"docxy {__version__}\n")
        self.assertEqual(own.read_bytes(), before)
        environment.pip("uninstall", "--quiet", "--yes", "docxy")
        self.assertFalse((environment.packages / PLUGIN).exists())
        self.assertEqual(own.read_bytes(), before)
        self.assertNotIn("docxy", environment.twistd("--help"))

    def test_plugin_cache_that_cannot_be_written(self) -> None:
        """Where twistd cannot write its cache of plugins, as in a read-only image, docxy starts without alarm."""
        environment = Environment(Path(self.mktemp()).resolve())
        environment.pip("install", "--quiet", "--no-deps", "--no-index", self.file("*.whl"))
        # Also root, who may write everywhere, cannot replace a directory with a file.
        os.mkdir(environment.twisted / "plugins/dropin.cache")
        said = environment.twistd("docxy", "--version")
        self.assertEqual(said, f"docxy {__version__}\n")
