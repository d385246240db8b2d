"""Programs that live tests build from Go modules, because no distribution has today's versions.

The law: each version is pinned here, once, with the checksum of its module.  A program is built at
most once for its version and kept in a cache directory between runs (`DOCXY_TEST_CACHE`, else
`$XDG_CACHE_HOME/docxy-tests`, else `~/.cache/docxy-tests`).  Its dependencies are the versions that
its own go.mod names; Go checks them against sum.golang.org.

`python -m tests.live.gobuild [--all] [NAME…]` builds what is missing, one program after another:
the SMALL ones, or all but the optional ones, or those named.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

OLDEST_GO = (1, 21)
"""The first Go that fetches the toolchain a module asks for."""
BUILD_SECONDS = 2400
"""For one program, its modules fetched and its dependencies compiled."""


class CannotBuild(Exception):
    """A program could not be built; the message has what Go said."""


@frozen
class Program:
    """One program of one module."""

    name: str
    module: str
    version: str
    package: str
    """Below the module; '' for the module itself."""
    checksum: str
    """Of the module, as go.sum has it."""
    mod_checksum: str
    """Of its go.mod."""
    tags: str = ""
    variables: tuple[str, ...] = ()
    """For the linker's -X: what a release's own makefile sets."""
    replaced: str = ""
    """What its own go.mod has another module in the place of; Go heeds that of the main module alone."""
    source: str = ""
    """The directory beside this file that has its `main.go`, where the module has packages alone."""
    large: bool = False
    """Whether building it takes minutes: only built when asked for, used when it is there."""
    optional: bool = False
    """Whether building it takes so long that it is only built when it is named; its tests are skipped without it."""

    @property
    def path(self) -> Path:
        """Where it is, once it is built."""
        return cache_directory() / f"{self.name}-{self.version}"


PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "crane",
            "github.com/google/go-containerregistry",
            "v0.22.0",
            "cmd/crane",
            "h1:eGbCiPeYxAH/7WLLq6zTBALP0tUIFsoyRauhxXDJ53I=",
            "h1:bJR35SK8XgisYmhg/FMQ/5RK0S/XrOAqLBV5/LR2XE0=",
        ),
        Program(
            "regctl",
            "github.com/regclient/regclient",
            "v0.11.0",
            "cmd/regctl",
            "h1:5HibEqBV9jwgmcbFGAXiTbfk85F7YEeNH52pUIVfRjc=",
            "h1:vgblZTw50tGVxIMgYr8uHCAmIZx2gBQS/dPaQNngSeg=",
        ),
        Program(
            "oras",
            "oras.land/oras",
            "v1.3.6",
            "cmd/oras",
            "h1:Lhsfr2tQLjsu/+CJZp6vYatwKT+62fbIUTlp4lUrfOA=",
            "h1:ZIq0Z4vyJS5nRTtgHjHS0W6L/TPL05wr00ZpJeeJFq0=",
        ),
        Program(
            "olareg",
            "github.com/olareg/olareg",
            "v0.2.2",
            "cmd/olareg",
            "h1:H29V0+V2bIW4nRF3B1QAvooXts5eYS9dmQsD/chrBf0=",
            "h1:NxhWTjHaFU51m1+kwi2MZnakJlITH0s1tzdzCT3dXRQ=",
        ),
        Program(
            "conformance",
            "github.com/opencontainers/distribution-spec/conformance",
            "v0.0.0-20260831232431-97274622c111",
            "",
            "h1:ppZPU0CrEPzyJhVggYwUIZrqh0w2lIT0esw+9ABNPA4=",
            "h1:3VJqdDrgz3dFdGbErNWoChcfbGpHDllEHdwJ4yi6rJk=",
        ),
        Program(
            "distribution",
            "github.com/distribution/distribution/v3",
            "v3.1.2",
            "cmd/registry",
            "h1:/Bv2YIqqSR00HiO49FT93hovy6r9IlrzwUDsJjCN5qg=",
            "h1:Oz0Drs2Tx3iTXzK3DhUD4otfTfqlCxlWVC7QJeXWBP0=",
        ),
        Program(
            "containerd2",
            "github.com/containerd/containerd/v2",
            "v2.4.2",
            "cmd/containerd",
            "h1:p6Qg+xbEz8lvwdhHDx0U469xENvp4LgGBx+E7djXkGw=",
            "h1:vgLdtvl3prFk1d3ZVqQcsDD5Q9IKM+vAIdU54U85w+I=",
        ),
        Program(
            "ctr2",
            "github.com/containerd/containerd/v2",
            "v2.4.2",
            "cmd/ctr",
            "h1:p6Qg+xbEz8lvwdhHDx0U469xENvp4LgGBx+E7djXkGw=",
            "h1:vgLdtvl3prFk1d3ZVqQcsDD5Q9IKM+vAIdU54U85w+I=",
        ),
        Program(
            "pebble",
            "github.com/letsencrypt/pebble/v2",
            "v2.10.1",
            "cmd/pebble",
            "h1:oKHx3lgN4e5Nno2LKTMrVx+b+NkDptkO9aDireiBDGE=",
            "h1:KtYhQ4YTjT5MtoCZ6RTCXlbrrz6cKyXROCuTpIUDJFY=",
        ),
        Program(
            "helm",
            "helm.sh/helm/v3",
            "v3.22.0",
            "cmd/helm",
            "h1:n1if5iQgHYsujPAcO5oonH/KiSNUmqmUF0iGVjSF3AU=",
            "h1:EVl/147Ai2z13JOykbO1Jn9HRaXyU7uHlbAJmODq/Fg=",
        ),
        Program(
            "helm-unittest",
            "github.com/helm-unittest/helm-unittest",
            "v1.1.2",
            "cmd/helm-unittest",
            "h1:r1Ah6Pr3h4kqvd65RN+r0FNTIGrJa+P9rcMyzwHEXXQ=",
            "h1:GlI9By53JLlpSpjUkVNzD0KZrT4uDPEKGNX6APw2jZ4=",
            replaced="github.com/vmware-labs/yaml-jsonpath v0.3.2 => github.com/helm-unittest/yaml-jsonpath v0.4.0",
        ),
        Program(
            "cosign",
            "github.com/sigstore/cosign/v3",
            "v3.1.3",
            "cmd/cosign",
            "h1:001JQRI/PJ/5T+g/kJ1KTvKFbb322+fomc+pHDZ/6sg=",
            "h1:DmjtYkWDMdbG26X+QSOPB6QQGkLjRjQCIxxNs6wV6bA=",
        ),
        Program(
            "notation",
            "github.com/notaryproject/notation",
            "v1.3.2",
            "cmd/notation",
            "h1:roSxDRZ+w8kIgxoxruhHpSVtVFwpfq2piuaMvOrPaco=",
            "h1:JkZ/ncVkEcryqvr4G0imJq5ph7M436zYMxZ1RHdKw+I=",
        ),
        Program(
            "stargz",
            "github.com/containerd/stargz-snapshotter",
            "v0.19.1",
            "",
            "h1:g6peP3Xabv6MCmbVxP7vYDWvXjfwbBe+fhiZGTA6mvo=",
            "h1:BckND+0wYCQrUuTetyGDTKH6CmB9RWOArXXZsSgHtIk=",
            source="stargz",
        ),
        Program(
            "buildkitd",
            "github.com/moby/buildkit",
            "v0.34.2",
            "cmd/buildkitd",
            "h1:fXgOe79JW5zJNDumRtwTemOklLX66otQokObUXuiGJo=",
            "h1:HyFnF6kIPzHvqopF1+BKeGY8Ee9MXmfR2n+0Gd4Y69s=",
            large=True,
        ),
        Program(
            "buildctl",
            "github.com/moby/buildkit",
            "v0.34.2",
            "cmd/buildctl",
            "h1:fXgOe79JW5zJNDumRtwTemOklLX66otQokObUXuiGJo=",
            "h1:HyFnF6kIPzHvqopF1+BKeGY8Ee9MXmfR2n+0Gd4Y69s=",
            large=True,
        ),
        Program(
            "dockerd2",
            "github.com/moby/moby/v2",
            "v2.0.0-beta.24",
            "cmd/dockerd",
            "h1:sWv7EckkDJhpraR9yUjkw1XeVf39+MWd58E22PYloNA=",
            "h1:3zRfNirit+BkquckweT36STGqB+A3iUXp1zARg13JHM=",
            large=True,
        ),
        Program(
            "versitygw",
            "github.com/versity/versitygw",
            "v1.8.0",
            "cmd/versitygw",
            "h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=",
            "h1:OxcWzwHy0xd9yUjfBneYnqmOwOgyq4QpzpobLsXMQRU=",
            large=True,
        ),
        Program(
            "weed",
            "github.com/seaweedfs/seaweedfs",
            "v0.0.0-20261109003541-7506e5f91cd6",
            "weed",
            "h1:LOYZFToHq9F7pSR6lkPGfkM8RmHlVFrzndKdhmNZjrU=",
            "h1:FrYUO4mTse+5nRSAWyyd1rDZdMi2N/oEXPhWmvnoWwM=",
            optional=True,
        ),
    )
}


MODULES = {
    "sigs.k8s.io/gateway-api": ("v1.4.1", "h1:NPxFutNkKNa8UfLd2CMlEuhIPMQgDQ6DXNKG9sHbJU8="),
    "github.com/prometheus-operator/prometheus-operator": (
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
    ),
    "github.com/envoyproxy/gateway": ("v1.9.1", "h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY="),
}
"""Modules of which only files are read: their versions and checksums."""


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where programs are kept."""
    named = environ.get("DOCXY_TEST_CACHE")
    if named:
        return Path(named)
    base = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "docxy-tests"


def go() -> str | None:
    """Path of a Go that can build them, or None."""
    # The first in PATH, not Debian's own, which is older.
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin:/usr/lib/go/bin")
    if found is None:
        return None
    told = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"go(\d+)\.(\d+)", told)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_GO:
        return None
    return found


def built(*names: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Paths of these programs by name, built if need be.

    Raises SkipTest for an optional one that is not built, and, where `CI` is not set, if there is no Go, or for a
    large one that is neither built nor asked for with `DOCXY_TEST_LARGE`; AssertionError where `CI` is set and there is
    no Go; CannotBuild when Go fails.
    """
    for name in names:
        program = PROGRAMS[name]
        if program.path.exists():
            continue
        if program.optional:
            raise unittest.SkipTest(f"{name} takes long to build: python -m tests.live.gobuild {name}")
        if program.large and not (environ.get("DOCXY_TEST_LARGE") or environ.get("CI")):
            raise unittest.SkipTest(f"{name} takes minutes to build: python -m tests.live.gobuild {name}")
        if go() is None:
            message = (
                f"{name} is built from Go modules; that needs Go {'.'.join(map(str, OLDEST_GO))} or newer (go.dev/dl)"
            )
            if environ.get("CI"):
                raise AssertionError(message)
            raise unittest.SkipTest(message)
        build(program)
    return {name: str(PROGRAMS[name].path) for name in names}


def build(program: Program) -> None:
    """Build it if it is not there; one at a time on a machine.  Raises CannotBuild."""
    with _alone():
        if program.path.exists():
            return
        compiler = go()
        if compiler is None:
            raise CannotBuild("there is no Go")
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            replace = f"replace {program.replaced}\n" if program.replaced else ""
            (directory / "go.mod").write_text(
                f"module docxy.test/build\n\ngo 1.21\n\nrequire {program.module} {program.version}\n{replace}"
            )
            (directory / "go.sum").write_text(
                f"{program.module} {program.version} {program.checksum}\n"
                f"{program.module} {program.version}/go.mod {program.mod_checksum}\n"
            )
            package = f"{program.module}/{program.package}".rstrip("/")
            if program.source:
                shutil.copy(Path(__file__).with_name(program.source) / "main.go", directory)
                package = "."
            linked = " ".join(["-s", "-w", *(f"-X {variable}" for variable in program.variables)])
            output = directory / "built"
            argv = [compiler, "build", "-mod=mod", "-buildvcs=false", f"-tags={program.tags}"]
            argv += [f"-ldflags={linked}", "-o", str(output), package]
            ended = subprocess.run(
                ["nice", *argv],
                cwd=directory,
                env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOFLAGS": ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=BUILD_SECONDS,
            )
            if ended.returncode != 0:
                said = [line for line in ended.stdout.splitlines() if "downloading" not in line]
                raise CannotBuild("\n".join([f"{program.name} {program.version}:", *said[-20:]]))
            # On the same file system first, so that nobody ever sees half a program.
            kept = program.path.with_name(f"{program.path.name}.new")
            shutil.move(output, kept)
            kept.rename(program.path)


def files(module: str) -> Path:
    """The directory of one of MODULES, fetched if need be.  Raises CannotBuild."""
    version, checksum = MODULES[module]
    compiler = go()
    if compiler is None:
        raise CannotBuild("there is no Go")
    ended = subprocess.run(
        [compiler, "mod", "download", "-json", f"{module}@{version}"],
        cwd=tempfile.gettempdir(),
        env={**os.environ, "GOFLAGS": "", "GO111MODULE": "on"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    told = json.loads(ended.stdout or "{}")
    if told.get("Sum") != checksum:
        raise CannotBuild(f"{module} {version}: {told.get('Error') or ended.stderr or told.get('Sum')}")
    return Path(told["Dir"])


@contextmanager
def _alone() -> Iterator[None]:
    """Nobody else builds meanwhile: two compilers would only slow each other down."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str]) -> int:
    """Build; 1 when something could not be built."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    chosen = [PROGRAMS[name] for name in names] or [
        program for program in PROGRAMS.values() if not program.optional and (not program.large or "--all" in arguments)
    ]
    failed = 0
    for program in chosen:
        begun = time.monotonic()
        try:
            build(program)
        except CannotBuild as error:
            failed = 1
            print(error, flush=True)  # noqa: T201  # a command
        else:
            print(f"{program.name} {program.version}: {time.monotonic() - begun:.0f} s", flush=True)  # noqa: T201  # a command
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
