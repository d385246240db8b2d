"""The documents agree with the program and with each other.

Read here: the Markdown at the top of the checkout and in `docs/`, and `docs/docxy.example.toml`.
Nothing is contacted; that the commands work is for `tests/process/test_deployment.py` and
`tests/live` to show.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import yaml
from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import RegistryError
from docxy.settings import access as access_table
from docxy.settings import archive, policy_tables, webhooks
from docxy.settings.load import load
from docxy.settings.model import ANY, DOCKER_HUB
from docxy.settings.options import OPTIONS
from docxy.settings.upstreams import ANY_KEYS, KEYS
from tests.harness.certificates import issue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).resolve().parents[2]
TRANSLATED = (("README.md", "README.zh-CN.md"), ("docs/deployment.md", "docs/deployment.zh-CN.md"))
DOCUMENTS = sorted(str(path.relative_to(TOP)) for where in ("*.md", "docs/**/*.md") for path in TOP.glob(where))


@frozen
class Block:
    """A fenced code block."""

    mark: str
    """The name in the `<!-- name -->` line before it, or ''."""
    language: str
    text: str


def read(name: str) -> str:
    return (TOP / name).read_text("utf-8")


def blocks(markdown: str) -> list[Block]:
    """The fenced code blocks, in order."""
    fence = re.compile(r"(?:^<!-- ([\w-]+) -->\n)?^ *```([\w{}]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    return [Block(mark, language, text) for mark, language, text in fence.findall(markdown)]


def prose(markdown: str) -> str:
    """Everything but the code blocks."""
    return re.sub(r"^ *```[\w{}]*\n.*?^ *```$", "", markdown, flags=re.MULTILINE | re.DOTALL)


def tables(markdown: str) -> list[list[list[str]]]:
    """The tables, as rows of cells, the heading first and the ruler left out."""
    found: list[list[list[str]]] = []
    inside = False
    for line in prose(markdown).splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            found.append([])
            inside = True
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not all(re.fullmatch(r"-+", cell) for cell in cells):
            found[-1].append(cells)
    return found


def headings(markdown: str) -> list[tuple[int, str]]:
    """Depth and text of every heading."""
    return [(len(marks), text) for marks, text in re.findall(r"^(#+) (.+)$", prose(markdown), re.MULTILINE)]


def anchor(heading: str) -> str:
    """What a link to this heading is called where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def spans(text: str) -> list[str]:
    """The code spans of a line."""
    return re.findall(r"`([^`]+)`", text)


_PROGRAMS = ["123456789012.dkr.ecr.eu-west-1.amazonaws.com", "europe-docker.pkg.dev"]
"""The registries whose accounts a program prints in the example."""


class ExampleFileTests(SynchronousTestCase):
    """`docs/docxy.example.toml` can be used as it is, and line by line."""

    EXAMPLE = "docs/docxy.example.toml"

    def uncommented(self) -> str:
        """The file with every example in it switched on."""
        example = re.compile(r"^# (# .*|\w+ = .*|\[.*\]|)$", re.MULTILINE)
        return example.sub(r"\1", read(self.EXAMPLE))

    def test_as_it_is(self) -> None:
        """Unchanged, the file changes nothing."""
        given = {"config": str(TOP / self.EXAMPLE)}
        self.assertEqual(evolve(load(given, {}, root=True), file=None), load({}, {}, root=True))

    def test_every_key(self) -> None:
        """It shows every key there is, in the program's order, and none that is not."""
        document = tomllib.loads(self.uncommented())
        shown, access = document.pop("upstreams"), document.pop("access")
        policy = {key: document.pop(key) for key in [*document] if key in policy_tables.KEYS}
        self.assertEqual(policy.keys(), policy_tables.KEYS)
        for key, known in (
            ("freeze", policy_tables.FREEZE_KEYS),
            ("recall", policy_tables.RECALL_KEYS),
            ("cooldown", policy_tables.COOLDOWN_KEYS),
        ):
            self.assertEqual({name for table in policy[key] for name in table}, known)
        self.assertEqual({key for table in document.pop("webhook") for key in table}, webhooks.KEYS)
        self.assertEqual(document.pop("archive").keys(), archive.KEYS)
        self.assertEqual(list(document), [option.key for option in OPTIONS if option.types])
        self.assertEqual(access.keys(), access_table.KEYS)
        self.assertEqual({key for rule in access["rules"] for key in rule}, access_table.RULE_KEYS)
        accounts = [account for table in shown for account in table.get("credentials", ())]
        self.assertEqual({key for table in [*shown, *accounts] for key in table}, KEYS)
        self.assertEqual(
            [table["name"] for table in shown], ["docker.io", "ghcr.io", *_PROGRAMS, "images.example", ANY]
        )
        self.assertLess(shown[-1].keys(), ANY_KEYS)

    def test_values_are_accepted(self) -> None:
        """Each example is a value that docxy takes; what is said to be the default is the default."""
        document = tomllib.loads(self.uncommented())
        shown, access = document.pop("upstreams"), document.pop("access")
        policy = {key: document.pop(key) for key in ("freeze", "recall")}
        self.assertEqual(len(policy_tables.parse(policy, self.EXAMPLE, [DOCKER_HUB]).recalls), 2)
        self.assertEqual(access_table.parse(access, self.EXAMPLE).htpasswd, access["htpasswd"])
        for option in OPTIONS:
            if option.types:
                value = document[option.key]
                self.assertIn(type(value), option.types, option.key)
                if isinstance(value, (int, float)) and option.default is not None:
                    # Numbers and switches are shown with their defaults, if they have one; the rest with examples.
                    self.assertEqual(option.parse(str(value)), option.parse(str(option.default)), option.key)
                else:
                    option.parse(str(value))
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        own = issue("docxy")
        files = {"ca.pem": issue("ca.example").pem, "client.pem": own.pem, "client.key": own.key_pem()}
        programs = {"docker-credential-ecr-login": b"", "registry-token": b""}
        for name, content in {**files, **programs, "ci-1": b"x\n", "ghcr": b"x\n"}.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o700)
        path = directory / "docxy.toml"
        text = "".join(f"[[upstreams]]\n{_toml(table)}" for table in shown)
        path.write_text(text.replace("/etc/docxy/", f"{directory}/"))
        config = load({"config": str(path)}, {"CI_2": "x", "PATH": str(directory)}, root=True)
        self.assertEqual(
            [upstream.name for upstream in config.upstreams], ["docker.io", "ghcr.io", *_PROGRAMS, "images.example"]
        )
        self.assertEqual([len(upstream.credentials) for upstream in config.upstreams], [2, 1, 1, 1, 0])


def _toml(table: dict[str, object]) -> str:
    """The lines of a table."""
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: object) -> str:
    """JSON has the same notation for all but tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


class ExamplesTests(SynchronousTestCase):
    """What a page shows as a file is a file that docxy takes."""

    def test_registries(self) -> None:
        """The files of `docs/registries.md`: the first registry stays the default where it is Docker Hub."""
        path = Path(self.mktemp())
        found = [block.text for block in blocks(read("docs/registries.md")) if "upstreams" in block.text]
        self.assertEqual(len(found), 10)
        helper = Path(self.mktemp()).resolve() / "docker-credential-ecr-login"
        helper.parent.mkdir()
        helper.touch(0o700)
        secret = Path(self.mktemp()).resolve()
        secret.write_text("x\n")
        names = []
        for text in found:
            path.write_text(text.replace("/etc/docxy/ghcr", str(secret)))
            names.append(load({"config": str(path)}, {"PATH": str(helper.parent)}, root=True).upstreams[0].name)
        self.assertEqual(names, [*["docker.io"] * 5, "ghcr.io", _PROGRAMS[0], "images.example", *["docker.io"] * 2])

    def test_blocked_link(self) -> None:
        """The file of `docs/deployment.md` for machines that cannot reach the registry."""
        path = Path(self.mktemp())
        (text,) = [block.text for block in blocks(read("docs/deployment.md")) if "upstreams" in block.text]
        path.write_text("\n".join(line.strip() for line in text.splitlines()))
        (upstream,) = load({"config": str(path)}, {}, root=True).upstreams
        self.assertEqual(upstream.endpoints, ("https://registry-1.docker.io",))

    def test_access(self) -> None:
        """The file of `docs/access.md`, which has every key in it."""
        (text,) = [block.text for block in blocks(read("docs/access.md")) if "[access]" in block.text]
        shown = tomllib.loads(text)["access"]
        self.assertEqual(shown.keys(), access_table.KEYS)
        self.assertEqual({key for rule in shown["rules"] for key in rule}, access_table.RULE_KEYS)
        path = Path(self.mktemp())
        path.write_text(text)
        config = load({"config": str(path)}, {}, root=True)
        self.assertEqual(config.access, access_table.parse(shown, str(path)))


class CacheStatusTests(SynchronousTestCase):
    """The table of details in `docs/cache.md` is the program's."""

    def test_details(self) -> None:
        """Every reason that the code gives for an old answer has a row, and no row is without one."""
        code = "".join(path.read_text("utf-8") for path in (TOP / "docxy/pull").rglob("*.py"))
        given = {f"stale-{why}" for why in re.findall(r'_stale\(\w+, \w+, "([\w-]+)"\)', code)}
        given |= set(re.findall(r'"(stale-[\w-]+)"', code))
        # None is made up in a way that this would not see.
        self.assertEqual(len(re.findall(r"self\._stale\(", code)), len(re.findall(r'self\._stale\(.*"[\w-]+"\)', code)))
        (table,) = [table for table in tables(read("docs/cache.md")) if spans(table[0][0]) == ["detail"]]
        self.assertEqual(sorted(why for row in table[1:] for why in spans(row[0])), sorted(given))


class MarkdownTests(SynchronousTestCase):
    """The documents hold together."""

    def test_translation(self) -> None:
        """Each translation has the same sections, commands, tables and code as the page it translates."""
        for page, translation in TRANSLATED:
            english, chinese = read(page), read(translation)
            self.assertEqual(blocks(chinese), blocks(english), page)
            self.assertEqual([d for d, _ in headings(chinese)], [d for d, _ in headings(english)], page)
            items = [len(re.findall(r"^(?:-|\d\.) ", prose(text), re.MULTILINE)) for text in (english, chinese)]
            self.assertEqual(items[0], items[1], page)
            for ours, theirs in zip(tables(english), tables(chinese), strict=True):
                self.assertEqual([len(row) for row in ours], [len(row) for row in theirs], page)

    def test_links(self) -> None:
        """Every link within the checkout leads to a file, and to a heading if it names one."""
        for name in DOCUMENTS:
            for link in re.findall(r"\]\(([^)\s]+)\)", prose(read(name))):
                if re.match(r"[a-z]+:", link):
                    continue
                path, _, fragment = link.partition("#")
                target = (TOP / name).parent / path if path else TOP / name
                self.assertTrue(target.exists(), (name, link))
                if fragment:
                    anchors = {anchor(text) for _, text in headings(target.read_text("utf-8"))}
                    self.assertIn(fragment, anchors, (name, link))

    def test_code(self) -> None:
        """Code blocks are what their language says."""
        parsers: dict[str, Callable[[str], object]] = {
            "json": json.loads,
            "toml": tomllib.loads,
            "yaml": yaml.safe_load,
            "sh": _sh,
            "ini": str,
            "text": str,
            "{toctree}": str,
        }
        for name in DOCUMENTS:
            for block in blocks(read(name)):
                parsers[block.language](textwrap.dedent(block.text))

    def test_named_sections(self) -> None:
        """Sections that a file of the deployment or a table names in quotes exist."""
        for place, quoted, where in (
            ("deploy/docxy.service", "systemd", "docs/deployment.md"),
            ("deploy/nginx.conf", "Behind nginx", "docs/deployment.md"),
        ):
            self.assertIn(f'"{quoted}"', read(place))
            self.assertIn(quoted, [text for _, text in headings(read(where))])

    def test_changelog(self) -> None:
        """The changelog begins with what is not released, and its groups are those of Keep a Changelog."""
        found = headings(read("CHANGELOG.md"))
        self.assertEqual(found[:2], [(1, "Changelog"), (2, "[Unreleased]")])
        groups = {text for depth, text in found if depth == 3}
        self.assertLessEqual(groups, {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"})


class ErrorsTests(SynchronousTestCase):
    """The table of errors in `docs/troubleshooting.md` is the program's."""

    def test_codes(self) -> None:
        """Every status and code that docxy answers is explained, and no other."""
        import_module("docxy.launch")  # and with it every module that may have an error of its own
        kinds: list[type[RegistryError]] = [RegistryError, *subclasses(RegistryError)]
        known = {(kind.status, kind.code) for kind in kinds if kind.__module__.startswith("docxy.")}
        (table,) = [table for table in tables(read("docs/troubleshooting.md")) if table[1][0].startswith("400 ")]
        explained = [(int(row[0].split()[0]), code) for row in table[1:] for code in spans(row[0])]
        self.assertEqual(sorted(explained), sorted(known))


def subclasses(kind: type[RegistryError]) -> list[type[RegistryError]]:
    """All of them, however far down."""
    return [below for child in kind.__subclasses__() for below in (child, *subclasses(child))]


def _sh(text: str) -> None:
    subprocess.run(["sh", "-n"], input=text, text=True, check=True, timeout=10)


class CommandTests(SynchronousTestCase):
    """What is run in CI is what README.md tells a newcomer to run."""

    def test_ci_runs_the_test_command(self) -> None:
        """`.ci/run` takes the test command from README.md."""
        (command,) = [block.text for block in blocks(read("README.md")) if block.mark == "test-command"]
        run = subprocess.run(
            [str(TOP / ".ci/run"), "--print-test-command"], capture_output=True, text=True, check=True, timeout=10
        )
        self.assertEqual(run.stdout, command)
        self.assertRegex(command, r"-m twisted\.trial tests$")

    def test_one_line_each(self) -> None:
        """The two commands for a fresh machine are one line each."""
        marked = {block.mark: block.text for block in blocks(read("README.md")) if block.mark}
        self.assertEqual(set(marked), {"run-command", "test-command"})
        self.assertEqual([text.count("\n") for text in marked.values()], [1, 1])

    def test_contributing_has_five(self) -> None:
        """CONTRIBUTING.md has the five commands, numbered as their explanations are."""
        text = read("CONTRIBUTING.md")
        first = blocks(text)[0].text
        self.assertEqual(len(first.splitlines()), 5)
        self.assertEqual(re.findall(r"^(\d)\. ", prose(text), re.MULTILINE), list("12345"))
