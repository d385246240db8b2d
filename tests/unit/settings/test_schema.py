"""The JSON Schema of the configuration file: what editors mark as wrong, and what not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
from click.testing import CliRunner

from docxy.cli.config import config
from docxy.settings import schema as module
from docxy.settings.model import ConfigError
from docxy.settings.options import OPTIONS
from docxy.settings.schema import schema, text
from tests.unit import test_docs
from tests.unit.settings.test_load import Case, tomllib

DOCS = Path(__file__).resolve().parents[3] / "docs"

WRONG = """
tag_tll = 5
tag_ttl = "5"
tag_ttl = -1
prefetch = "yes"
fetch_connections = 0
auth = "basic"
status = "all"
journal = "some"
log_format = "xml"
workers = 1.5
port = 70000
keep_gone = 1
upstreams = "docker.io"
upstreams = []
upstreams = [5]
upstreams = ["*"]
upstreams = [{name = "*"}, "docker.io"]
upstreams = [{url = "https://x.example"}]
upstreams = [{name = "x.example", url = "x.example"}]
upstreams = [{name = "x.example", url = "ftp://x.example"}]
upstreams = [{name = "x.example", urls = []}]
upstreams = [{name = "x.example", private = "no"}]
upstreams = [{name = "x.example", aliases = "y.example"}]
upstreams = [{name = "x.example", max_connections = -1}]
upstreams = [{name = "x.example", allow = ["Team/*"]}]
upstreams = [{name = "x.example", auth = "none", password = "hunter2"}]
upstreams = [{name = "x.example", auth = "none", username = "u"}]
upstreams = [{name = "x.example", auth = "none", password_env = "P"}]
upstreams = [{name = "x.example", auth = "none", username = "u", password_env = "P", password_file = "/p"}]
upstreams = [{name = "x.example", auth = "none", username = "u", password_env = "P", credentials = []}]
upstreams = [{name = "x.example", auth = "none", credentials = [{username = "u"}]}]
upstreams = [{name = "x.example", auth = "none", credentials = [{username = "u", password = "x"}]}]
upstreams = [{name = "x.example", auth = "none", credential_helper = "a/b"}]
upstreams = [{name = "x.example", auth = "none", credential_command = []}]
upstreams = [{name = "x.example", auth = "none", credential_helper = "x", credential_command = ["/bin/true"]}]
upstreams = [{name = "x.example", auth = "none", credential_or_anonymous = true}]
upstreams = [{name = "x.example", client_cert = "/c"}]
upstreams = [{name = "x.example", client_key = "/c"}]
upstreams = [{name = "x.example", ca_only = true}]
upstreams = [{name = "x.example", on_new = "deny"}]
upstreams = [{name = "x.example", min_age = "3d", on_new = "maybe"}]
upstreams = ["docker.io", {name = "x.example", search = ["docker.io"], url = "https://x.example"}]
upstreams = ["docker.io", {name = "*", private = true}]
upstreams = ["docker.io", {name = "*", auth = "none"}]
upstreams = ["docker.io", {name = "*", allow = ["quay.io"]}]
upstreams = ["docker.io", {name = "*", ca_only = true}]
access = {deny = "10.0.0.0/8"}
access = {rules = []}
access = {htpasswd = "/h", reserve = {devs = 2}}
access = {htpasswd = "/h", rules = [{user = ["a"]}]}
access = {address_header = "Via"}
freeze = [{image = "alpine"}]
freeze = [{image = "alpine", digest = "sha256:1"}]
recall = [{reason = "x"}]
recall = [{image = "alpine", digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"}]
keep = [{}]
keep = [{hot = 0}]
keep = [{hot = 5, quiet = "1-5"}]
cooldown = [{images = ["alpine"]}]
cooldown = [{images = [], min_age = "3d"}]
webhook = [{url = "https://x.example"}]
webhook = [{url = "https://x.example", secret_file = "/s", events = ["tag-lost"]}]
"""
"""A file a line: docxy does not start with it, whatever else there is."""


class SchemaTests(Case):
    def test_wrong(self) -> None:
        """What can be seen to be wrong in the file alone is marked; docxy does not start with it either."""
        for line in WRONG.strip().splitlines():
            with self.assertRaises(jsonschema.ValidationError, msg=line):
                jsonschema.validate(tomllib.loads(line), schema())
            self.assertRaises(ConfigError, self.load, line, {"P": "x"})

    def test_both(self) -> None:
        """Two ways to say which registries there are contradict each other."""
        both = tomllib.loads('upstream = "https://x.example"\nupstreams = ["docker.io"]')
        self.assertRaises(jsonschema.ValidationError, jsonschema.validate, both, schema())

    def test_choices(self) -> None:
        """The choices of an option are those that docxy takes."""
        parsers = {option.key: option.parse for option in OPTIONS}
        for key, choice in module._CHOICES.items():
            for value in choice["enum"]:
                parsers[key](value)
            self.assertRaises(ValueError, parsers[key], "x")

    def test_example(self) -> None:
        """The example file is right, as it is and with each of its examples switched on, and names the schema."""
        jsonschema.validate(tomllib.loads((DOCS / "docxy.example.toml").read_text()), schema())
        document: dict[str, Any] = tomllib.loads(test_docs.ExampleFileTests("test_every_key").uncommented())
        del document["upstream"]  # either this, or tables
        jsonschema.validate(document, schema())
        first = (DOCS / "docxy.example.toml").read_text().partition("\n")[0]
        self.assertEqual(first, "#:schema ./docxy.schema.json")

    def test_current(self) -> None:
        """`docs/docxy.schema.json` is what `docxy config schema` prints, and a schema."""
        printed = CliRunner().invoke(config, ["schema"])
        self.assertEqual((printed.exit_code, printed.output), (0, text()))
        self.assertEqual(
            (DOCS / "docxy.schema.json").read_text(), text(), "docxy config schema > docs/docxy.schema.json"
        )
        jsonschema.Draft7Validator.check_schema(json.loads(text()))

    def test_complete(self) -> None:
        """A key that the file takes and the schema lacks is an error, not a wrong mark in an editor."""
        self.patch(module, "_FREEZE", {"image": {}})
        self.assertRaises(LookupError, schema)
