"""The checkout as data: its files, its options, and the commands that its documents show."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from docxy.settings.model import Config
from docxy.settings.options import OPTIONS
from docxy.tap import Options
from tests.harness.processes import CHECKOUT as TOP

VARIABLES = {option.env for option in OPTIONS}


def configure(args: Sequence[str], environ: Mapping[str, str]) -> Config:
    """What these settings come to; raises usage.UsageError for what docxy does not take."""
    options = Options(environ)
    options.parseOptions(list(args))
    return options.config


def read(name: str) -> str:
    return (TOP / name).read_text("utf-8")


def need(program: str) -> str:
    """Its path.  Where it is missing the test is skipped, but not in CI, which installs it."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI"):
            raise AssertionError(f"{program} is not installed; tests/live/setup.sh does that")
        raise SkipTest(f"{program} is not installed; tests/live/setup.sh does that")
    return found


def bare_environment(**more: str) -> dict[str, str]:
    """This process's environment without docxy's settings, and more."""
    return {**{k: v for k, v in os.environ.items() if k not in VARIABLES}, **more}


def copy_of_checkout(directory: Path) -> Path:
    """What an operator gets: the files of the project, nothing that was built from them."""
    built = shutil.ignore_patterns(
        ".git",
        ".venv*",
        ".tox",
        ".*_cache",
        "build",
        "dist",
        "*.egg-info",
        "_trial_temp*",
        "__pycache__",
        "dropin.cache",
    )
    shutil.copytree(TOP, directory, ignore=built)
    return directory.resolve()


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Instruction and argument, with comments dropped and continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word
    ]


def unit(text: str) -> dict[str, list[tuple[str, str]]]:
    """Sections of a systemd unit; keys repeat."""
    sections: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
            continue
        key, equals, value = line.partition("=")
        assert equals, line
        current.append((key, value))
    return sections


def pairs(words: str) -> dict[str, str]:
    """`A=1 B=2` as Dockerfile's ENV and systemd's Environment have it."""
    return dict(word.split("=", 1) for word in shlex.split(words))


def commands(shell: str) -> list[list[str]]:
    """The words of every simple command in a shell text that holds no more than `&&`, `;` and `|`."""
    joined = re.sub(r"\\\n", " ", shell)
    found = []
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word and set(word) <= set("&;|"):
                if words:
                    found.append(words)
                words = []
            else:
                words.append(word)
    return found


def without(args: Sequence[str], *options: str) -> list[str]:
    """The arguments without these options and their values."""
    dropped = {i + offset for i, arg in enumerate(args) if arg in options for offset in (0, 1)}
    return [arg for i, arg in enumerate(args) if i not in dropped]


def docxy_arguments(words: Sequence[str]) -> list[str] | None:
    """What stands after `docxy` in a command that starts the daemon, or None."""
    names = [Path(word).name for word in words]
    if "twistd" in names and "docxy" in words:
        return list(words[words.index("docxy") + 1 :])
    if "docker" in names and "run" in words and "docxy" in words:
        # The image's name is `docxy` too, and is the last word that is no option of docxy.
        return list(words[len(words) - words[::-1].index("docxy") :])
    return None
