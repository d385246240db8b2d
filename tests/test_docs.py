"""The documents agree with the program and with each other.

Read here: the options in `docxy.options`, the Markdown at the top of the checkout, and
`docs/docxy.example.toml`.  Nothing is contacted; that the commands work is for
`tests/test_deployment.py` and `tests/live` to show.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import yaml
from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from docxy.config import DOCKER_HUB
from docxy.errors import RegistryError
from docxy.gate import table as access_table
from docxy.option_table import OPTIONS, Option
from docxy.options import load
from docxy.upstream_tables import KEYS
from tests.certificates import issue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh-CN.md")
DOCUMENTS = (*READMES, "DEPLOYMENT.md", "CONTRIBUTING.md", "CHANGELOG.md")


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
    fence = re.compile(r"(?:^<!-- ([\w-]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [Block(mark, language, text) for mark, language, text in fence.findall(markdown)]


def prose(markdown: str) -> str:
    """Everything but the code blocks."""
    return re.sub(r"^```\w*\n.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)


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


def written(option: Option) -> set[str]:
    """How an option is written on the command line."""
    return {f"--{flag}" for flag in option.flags} | ({f"--{option.name} {option.metavar}"} if option.metavar else set())


class OptionsTests(SynchronousTestCase):
    """README's table of options is the program's, in both languages."""

    def test_rows(self) -> None:
        """Every option has a row, and no row is without an option."""
        for name in READMES:
            rows = self.rows(name)
            self.assertEqual([spans(row[1]) for row in rows], [[option.env] for option in OPTIONS], name)
            self.assertEqual([set(spans(row[0])) for row in rows], [written(option) for option in OPTIONS], name)

    def test_defaults(self) -> None:
        """Every row has the option's default; one that is found out at start is in the words of `--help`."""
        for name in READMES:
            for row, option in zip(self.rows(name), OPTIONS, strict=True):
                if option.default is not None:
                    self.assertEqual(row[2].strip("`"), option.default, name)
                elif name == "README.md":
                    self.assertEqual(row[2], option.default_help)
                else:
                    self.assertTrue(row[2])

    def test_meanings(self) -> None:
        """No row is without a meaning."""
        for name in READMES:
            self.assertTrue(all(row[3] for row in self.rows(name)))

    def rows(self, name: str) -> list[list[str]]:
        """The rows of the one table whose second column holds environment variables."""
        (table,) = [table for table in tables(read(name)) if spans(table[1][1]) == [OPTIONS[0].env]]
        return table[1:]


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
        self.assertEqual(load(given, {}, root=True), load({}, {}, root=True))

    def test_every_key(self) -> None:
        """It shows every key there is, in the program's order, and none that is not."""
        document = tomllib.loads(self.uncommented())
        shown, access = document.pop("upstreams"), document.pop("access")
        self.assertEqual(list(document), [option.key for option in OPTIONS if option.types])
        self.assertEqual(access.keys(), access_table.KEYS)
        self.assertEqual({key for rule in access["rules"] for key in rule}, access_table.RULE_KEYS)
        accounts = [account for table in shown for account in table.get("credentials", ())]
        self.assertEqual({key for table in [*shown, *accounts] for key in table}, KEYS)

    def test_values_are_accepted(self) -> None:
        """Each example is a value that docxy takes; what is said to be the default is the default."""
        document = tomllib.loads(self.uncommented())
        shown, access = document.pop("upstreams"), document.pop("access")
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
        for name, content in (("ca.pem", issue("ca.example").pem), *((name, b"x\n") for name in ("ci-1", "ghcr"))):
            (directory / name).write_bytes(content)
        path = directory / "docxy.toml"
        text = "".join(f"[[upstreams]]\n{_toml(table)}" for table in shown)
        path.write_text(text.replace("/etc/docxy/", f"{directory}/"))
        config = load({"config": str(path)}, {"CI_2": "x"}, root=True)
        self.assertEqual([upstream.name for upstream in config.upstreams], ["docker.io", "ghcr.io"])
        self.assertEqual([len(upstream.credentials) for upstream in config.upstreams], [2, 1])


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


class UpstreamKeysTests(SynchronousTestCase):
    """README's tables of what may be said of an upstream are the program's."""

    def test_rows(self) -> None:
        """Every key has a row with a meaning, and no row is without a key."""
        for name in READMES:
            (table,) = [table for table in tables(read(name)) if spans(table[1][0]) == ["name"]]
            self.assertEqual(sorted(key for row in table[1:] for key in spans(row[0])), sorted(KEYS), name)
            self.assertTrue(all(row[1] for row in table[1:]), name)

    def test_examples(self) -> None:
        """What the section shows as a file is a file that docxy takes."""
        path = Path(self.mktemp())
        found = [block.text for block in blocks(read("README.md")) if "upstreams" in block.text]
        self.assertEqual(len(found), 2)
        for text in found:
            path.write_text(text)
            self.assertEqual(load({"config": str(path)}, {}, root=True).upstreams[0], DOCKER_HUB)


class AccessTests(SynchronousTestCase):
    """README's table of what `[access]` may hold is the program's, and so is its example."""

    def test_rows(self) -> None:
        """Every key, of the table and of a rule, has a row with a meaning, and no row is without a key."""
        for name in READMES:
            (table,) = [table for table in tables(read(name)) if spans(table[1][0]) == ["htpasswd"]]
            known = [*access_table.KEYS, *access_table.RULE_KEYS]
            self.assertEqual(sorted(key for row in table[1:] for key in spans(row[0])), sorted(known), name)
            self.assertTrue(all(row[1] for row in table[1:]), name)

    def test_example(self) -> None:
        """What the section shows is a file that docxy takes, with every key in it."""
        (text,) = [block.text for block in blocks(read("README.md")) if "[access]" in block.text]
        shown = tomllib.loads(text)["access"]
        self.assertEqual(shown.keys(), access_table.KEYS)
        self.assertEqual({key for rule in shown["rules"] for key in rule}, access_table.RULE_KEYS)
        path = Path(self.mktemp())
        path.write_text(text)
        config = load({"config": str(path)}, {}, root=True)
        self.assertEqual(config.access, access_table.parse(shown, str(path)))


class CacheStatusTests(SynchronousTestCase):
    """README's table of the details in `Cache-Status` is the program's."""

    def test_details(self) -> None:
        """Every reason that the code gives for an old answer has a row, and no row is without one."""
        code = "".join(path.read_text("utf-8") for path in (TOP / "docxy/pull").glob("*.py"))
        given = {f"stale-{why}" for why in re.findall(r'_stale\(\w+, \w+, "([\w-]+)"\)', code)}
        given |= set(re.findall(r'"(stale-[\w-]+)"', code))
        # None is made up in a way that this would not see.
        self.assertEqual(len(re.findall(r"self\._stale\(", code)), len(re.findall(r'self\._stale\(.*"[\w-]+"\)', code)))
        for name in READMES:
            (table,) = [table for table in tables(read(name)) if spans(table[0][0]) == ["detail"]]
            self.assertEqual(sorted(why for row in table[1:] for why in spans(row[0])), sorted(given), name)


class MarkdownTests(SynchronousTestCase):
    """The documents hold together."""

    def test_translation(self) -> None:
        """The translation has the same sections, commands, tables and code as README.md."""
        english, chinese = (read(name) for name in READMES)
        self.assertEqual(blocks(chinese), blocks(english))
        self.assertEqual([d for d, _ in headings(chinese)], [d for d, _ in headings(english)])
        items = [len(re.findall(r"^(?:-|\d\.) ", prose(text), re.MULTILINE)) for text in (english, chinese)]
        self.assertEqual(items[0], items[1])
        for ours, theirs in zip(tables(english), tables(chinese), strict=True):
            self.assertEqual([len(row) for row in ours], [len(row) for row in theirs])
            self.assertEqual([spans(row[0]) for row in ours[1:]], [spans(row[0]) for row in theirs[1:]])

    def test_links(self) -> None:
        """Every link within the checkout leads to a file, and to a heading if it names one."""
        for name in DOCUMENTS:
            for link in re.findall(r"\]\(([^)\s]+)\)", prose(read(name))):
                if re.match(r"[a-z]+:", link):
                    continue
                path, _, fragment = link.partition("#")
                self.assertTrue((TOP / (path or name)).exists(), (name, link))
                if fragment:
                    anchors = {anchor(text) for _, text in headings(read(path or name))}
                    self.assertIn(fragment, anchors, (name, link))

    def test_code(self) -> None:
        """Code blocks are what their language says."""
        parsers: dict[str, Callable[[str], object]] = {
            "json": json.loads,
            "toml": tomllib.loads,
            "yaml": yaml.safe_load,
            "sh": _sh,
            "ini": str,
        }
        for name in DOCUMENTS:
            for block in blocks(read(name)):
                parsers[block.language](block.text)

    def test_named_sections(self) -> None:
        """Sections that a file of the deployment or a table names in quotes exist."""
        for place, quoted, where in (
            ("deploy/docxy.service", "systemd", "DEPLOYMENT.md"),
            ("deploy/nginx.conf", "Behind nginx", "DEPLOYMENT.md"),
            ("README.md", "Authentication", "README.md"),
            ("README.md", "Several registries", "README.md"),
            ("README.md", "Who may come in", "README.md"),
            ("README.md", "Endpoints", "README.md"),
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
    """README's table of errors is the program's."""

    def test_codes(self) -> None:
        """Every status and code that docxy answers is explained, and no other."""
        import_module("docxy.daemon")  # and with it every module that may have an error of its own
        kinds: list[type[RegistryError]] = [RegistryError, *subclasses(RegistryError)]
        known = {(kind.status, kind.code) for kind in kinds if kind.__module__.startswith("docxy.")}
        for name in READMES:
            (table,) = [table for table in tables(read(name)) if table[1][0].startswith("400 ")]
            explained = [(int(row[0].split()[0]), code) for row in table[1:] for code in spans(row[0])]
            self.assertEqual(sorted(explained), sorted(known), name)


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
