"""`docxy config`, `password`, `run` and `completion`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import bcrypt
import yaml

from docxy.cli.run import arguments
from docxy.settings.options import OPTIONS
from tests.harness.certificates import issue
from tests.unit.cli.case import AdminCase

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


DIGEST = "sha256:" + "1" * 64
TABLES = f"""\
cert = "off"
recall_file = "DIR/recalls"
[[upstreams]]
name = "docker.io"
min_age = "3d"
on_new = "deny"
immutable = ["*:v*", "team/app:r-*"]
[[upstreams]]
name = "*"
proxy = "off"
deny = ["a.test/**"]
[[upstreams]]
name = "quay.io"
username = "ci"
password_env = "KEY"
tag_ttl = 5
max_rate = "50MB"
[access]
htpasswd = "DIR/users"
deny = ["192.0.2.0/24"]
[[freeze]]
image = "python:3"
digest = "{DIGEST}"
[[recall]]
image = "docker.io/team/app:1"
[[keep]]
hot = 5
quiet = "01:00-05:00"
[[cooldown]]
images = ["quay.io/**"]
min_age = "0s"
[[webhook]]
url = "https://hooks.example/t0ken"
secret_file = "DIR/hook"
events = ["tag-moved"]
[archive]
url = "s3://bucket/x"
access_key = "AKIA"
secret_env = "KEY"
"""


class FileCase(AdminCase):
    def write(self, text: str) -> str:
        """A configuration file."""
        path = self.directory / "docxy.toml"
        path.write_text(text)
        return str(path)


class CheckTests(FileCase):
    """`docxy config check`."""

    def test_good(self) -> None:
        """A file that docxy starts with."""
        path = self.write('cert = "off"\n[[upstreams]]\nname = "ghcr.io"\n')
        self.assertIn("is good: ghcr.io; plain HTTP", self.said(0, "config", "check", path).replace("\n", ""))
        told = json.loads(self.said(0, "config", "check", path, "--json"))
        self.assertEqual(told, {"ok": True, "upstreams": ["ghcr.io"]})

    def test_wrong(self) -> None:
        """What docxy would not start with is one line and exit status 1: settings, key pair, accounts, no file."""
        names = ("one.example", "two.example")
        for name in names:
            issued = issue(name)
            (self.directory / f"{name}.pem").write_bytes(issued.pem)
            (self.directory / f"{name}.key").write_bytes(issued.key_pem())
        (self.directory / "htpasswd").write_text("alice:secret\n")
        (self.directory / "keys").write_text("short\n")
        (self.directory / "keys").chmod(0o600)
        at = self.directory
        for text, why in (
            ("prot = 80\n", "port"),
            (f'cert = "{at}/one.example.pem"\nkey = "{at}/two.example.key"\n', "does not match"),
            (f'cert = "off"\n[access]\nhtpasswd = "{at}/htpasswd"\n', "not a bcrypt hash"),
            (f'cert = "off"\n[access]\ntoken_key_file = "{at}/keys"\n', "holds a key of less than 32 bytes"),
        ):
            path = self.write(text)
            result = self.run_docxy("config", "check", path)
            self.assertEqual((result.exit_code, result.stdout), (1, ""))
            self.assertIn(why, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1)
            self.assertNotIn("secret", result.stderr)
            self.assertIn(why, json.loads(self.said(1, "config", "check", path, "--json"))["error"])
        self.assertIn("No such file", self.run_docxy("config", "check", "/nowhere.toml").stderr)


class ShowTests(FileCase):
    """`docxy config show`."""

    def test_sources(self) -> None:
        """Each value comes with its place: the file, the environment, the default."""
        path = self.write('cert = "off"\ntag_ttl = 5\nprefetch = false\n')
        self.said(0, "config", "show", "--config", path, WORKERS="3")
        told = json.loads(self.said(0, "config", "show", "--config", path, "--json", WORKERS="3"))["options"]
        self.assertEqual(list(told), [option.key for option in OPTIONS])
        self.assertEqual(told["tag_ttl"], {"value": 5.0, "from": f"tag_ttl in {path}"})
        self.assertEqual(told["prefetch"]["value"], False)
        self.assertEqual(told["workers"], {"value": 3, "from": "WORKERS in the environment"})
        self.assertEqual(told["auth"], {"value": "none", "from": "default"})

    def test_tables(self) -> None:
        """So do the keys of registries, of access and of policy, of receivers and the archive: the table, or not."""
        for name, text in (("recalls", f"{DIGEST} old\n"), ("users", ""), ("hook", "0123456789abcdef01234567")):
            (self.directory / name).write_text(text)
        path = self.write(TABLES.replace("DIR", str(self.directory)))
        environ = {"KEY": "hunter2", "TAG_TTL": "7", "HTTPS_PROXY": "http://u:hunter2@proxy.example:1"}
        told = json.loads(self.said(0, "config", "show", "--config", path, "--json", **environ))

        def pairs(table: dict[str, dict[str, Any]], *keys: str) -> list[tuple[Any, str]]:
            return [(table[key]["value"], table[key]["from"]) for key in keys]

        hub, star, quay = (each["settings"] for each in told["upstreams"])
        first, second, third = (f"[[upstreams]] {n} in {path}" for n in (1, 2, 3))
        ttl = "TAG_TTL in the environment"
        self.assertEqual(
            pairs(hub, "name", "url", "min_age", "on_new", "immutable", "tag_ttl", "proxy", "library"),
            [
                ("docker.io", first),
                ("https://registry-1.docker.io", "default"),
                (259200.0, first),
                ("deny", first),
                (["*:v*", "team/app:r-*"], first),
                (7.0, ttl),
                ("http://proxy.example:1", "the environment"),
                (True, "default"),
            ],
        )
        self.assertEqual(pairs(star, "name", "proxy", "deny"), [("*", second), (None, second), (["a.test/**"], second)])
        self.assertEqual(
            pairs(quay, "accounts", "tag_ttl", "auth", "max_rate"),
            [(["ci"], third), (5.0, third), ("none", "default"), (50_000_000, third)],
        )
        self.assertEqual(set(hub), set(quay))
        access = f"[access] in {path}"
        self.assertEqual(
            pairs(told["access"], "htpasswd", "deny", "reserve"),
            [(f"{self.directory}/users", access), (["192.0.2.0/24"], access), ({}, "default")],
        )
        policy = told["policy"]
        self.assertEqual(
            pairs(policy["freeze"][0], "image"), [("docker.io/library/python:3", f"[[freeze]] 1 in {path}")]
        )
        by_table, by_file = policy["recall"]
        self.assertEqual(pairs(by_table, "reason"), [("the operator gave no reason", "default")])
        self.assertEqual(pairs(by_file, "digest"), [(DIGEST, f"recall_file {self.directory}/recalls")])
        keep = f"[[keep]] 1 in {path}"
        self.assertEqual(
            pairs(policy["keep"][0], "hot", "every", "quiet"), [(5, keep), (21600.0, "default"), ("01:00-05:00", keep)]
        )
        self.assertEqual(pairs(policy["cooldown"][0], "min_age"), [(0.0, f"[[cooldown]] 1 in {path}")])
        hook = f"[[webhook]] 1 in {path}"
        self.assertEqual(
            pairs(told["webhooks"][0], "url", "events"), [("https://hooks.example/…", hook), (["tag-moved"], hook)]
        )
        archive = f"[archive] in {path}"
        self.assertEqual(
            pairs(told["archive"], "url", "access_key", "puts"),
            [("s3://bucket/x", archive), ("(given)", archive), (2, "default")],
        )
        text = self.said(0, "config", "show", "--config", path, **environ)
        for words in ("min_age", "3 days", "[[upstreams]] 1", "[[webhook]] 1", "recall_file", "50.0 MB/s"):
            self.assertIn(words, text)
        for whole in (text, json.dumps(told)):
            for secret in ("hunter2", "t0ken", "AKIA", "0123456789abcdef"):
                self.assertNotIn(secret, whole)

    def test_secrets(self) -> None:
        """Passwords are not shown."""
        path = self.write(
            'cert = "off"\n[[upstreams]]\nname = "ghcr.io"\nusername = "u"\npassword_env = "GHCR"\n'
            'proxy = "http://u:hunter2@proxy.example:3128"\n'
        )
        for more in ([], ["--json"]):
            text = self.said(0, "config", "show", "--config", path, *more, GHCR="hunter2")
            self.assertIn("ghcr.io", text)
            self.assertNotIn("hunter2", text)


class ClientFilesTests(AdminCase):
    """`docxy config docker` and the other clients."""

    def test_running(self) -> None:
        """The address and the registries are the running docxy's; standard output is the file alone."""
        docker = self.run_docxy("config", "docker")
        hosts = {"host": {"https://mirror.example": {"capabilities": ["pull", "resolve"]}}}
        self.assertEqual(tomllib.loads(docker.stdout), hosts)
        first, second, _ = docker.stderr.splitlines()
        self.assertTrue(first.endswith("/etc/docker/certs.d/_default/hosts.toml"), first)
        self.assertIn('{ "registry-mirrors": ["https://mirror.example"] }', second)
        self.assertIn("docker pull mirror.example/ghcr.io/OWNER/IMAGE", docker.stderr)
        podman = tomllib.loads(self.run_docxy("config", "podman").stdout)
        self.assertEqual(
            [each["mirror"][0]["location"] for each in podman["registry"]], ["mirror.example", "mirror.example/ghcr.io"]
        )
        buildkit = tomllib.loads(self.run_docxy("config", "buildkit").stdout)
        self.assertEqual(buildkit["registry"]["ghcr.io"]["mirrors"], ["mirror.example/ghcr.io"])
        k3s = self.run_docxy("config", "k3s")
        self.assertEqual(yaml.safe_load(k3s.stdout), {"mirrors": {"*": {"endpoint": ["https://mirror.example"]}}})
        self.assertIn("/etc/rancher/rke2/registries.yaml", k3s.stderr)
        containerd = self.run_docxy("config", "containerd")
        self.assertEqual(tomllib.loads(containerd.stdout), hosts)
        self.assertIn("/etc/containerd/certs.d/_default/hosts.toml", containerd.stderr.splitlines()[0])

    def test_ca(self) -> None:
        """A line for each client, which trusts the CA for this mirror where the client can tell; only of HTTPS."""
        said = self.run_docxy("config", "ca", "--url", "https://mirror.lan:8443/").stdout
        lines = [line for line in said.splitlines() if not line.startswith("#")]
        self.assertEqual(len(lines), 5)
        self.assertTrue(all("curl -fsSk https://mirror.lan:8443/ca.pem -o " in line for line in lines), said)
        self.assertIn("/etc/docker/certs.d/mirror.lan:8443/ca.crt", lines[0])
        self.assertIn("https://mirror.example/ca.pem", self.run_docxy("config", "ca").stdout)
        told = json.loads(self.said(0, "config", "ca", "--url", "https://mirror.lan", "--json"))
        self.assertEqual(len(told), 5)
        self.assertEqual(self.run_docxy("config", "ca", "--url", "http://mirror.lan").exit_code, 2)

    def test_kubernetes(self) -> None:
        """A ConfigMap and a DaemonSet whose script writes the file for every registry, and again when it changed."""
        settings, daemon = yaml.safe_load_all(self.run_docxy("config", "kubernetes").stdout)
        hosts = tomllib.loads(settings["data"]["hosts.toml"])
        self.assertEqual(hosts["host"]["https://mirror.example"], {"capabilities": ["pull", "resolve"]})
        pod = daemon["spec"]["template"]
        self.assertEqual(daemon["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"])
        (container,) = pod["spec"]["containers"]
        volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
        self.assertEqual(volumes["node"]["hostPath"]["path"], "/etc/containerd/certs.d")
        self.assertEqual(volumes["config"]["configMap"]["name"], settings["metadata"]["name"])
        self.assertEqual({each["name"] for each in container["volumeMounts"]}, set(volumes))
        config, node = self.directory / "config", self.directory / "node"
        config.mkdir()
        script = container["command"][2].replace("/config/", f"{config}/").replace("/node/", f"{node}/")
        script = script.replace("sleep 30", "cat >/dev/null <&3")
        for text in ("one", "two"):
            (config / "hosts.toml").write_text(text)
            with subprocess.Popen(
                ["sh", "-c", f"exec 3<&0\n{script}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as running:
                assert running.stdout is not None
                self.assertEqual(running.stdout.readline(), "written\n")
                running.terminate()
            self.assertEqual((node / "_default" / "hosts.toml").read_text(), text)

    def test_given(self) -> None:
        """With --url no docxy has to run."""
        given = ["--socket", "/nowhere", "--url", "http://10.0.0.1:8080/", "--upstream", "quay.io"]
        podman = tomllib.loads(self.run_docxy("config", "podman", *given).stdout)
        self.assertEqual(podman["registry"][0]["mirror"][0], {"location": "10.0.0.1:8080", "insecure": True})
        self.assertEqual(self.run_docxy("config", "k3s", "--socket", "/nowhere").exit_code, 3)
        self.assertEqual(self.run_docxy("config", "k3s", "--url", "mirror.example").exit_code, 2)


class PasswordTests(AdminCase):
    """`docxy password`."""

    def lines(self, path: Path) -> dict[str, bytes]:
        return {user: hashed.encode() for user, _, hashed in (each.partition(":") for each in path.read_text().split())}

    def test_printed(self) -> None:
        """Without a file the line is printed, and the password asked for twice on standard error."""
        result = self.run_docxy("password", "alice", "--cost", "4", input="secret\nsecret\n")
        user, _, hashed = result.stdout.strip().partition(":")
        self.assertEqual(user, "alice")
        self.assertTrue(bcrypt.checkpw(b"secret", hashed.encode()))
        self.assertIn("Password for alice", result.stderr)

    def test_file(self) -> None:
        """A new user is added, a known one changed in place; comments stay; nobody else may read it."""
        path = self.directory / "htpasswd"
        for user, secret in (("alice", "one"), ("bob", "two"), ("alice", "three")):
            self.said(
                0, "password", user, "--file", str(path), "--cost", "4", "--stdin", input=f"{secret}\n", COLUMNS=""
            )
            if user == "bob":
                path.write_text(f"# ours\n{path.read_text()}")
                path.chmod(0o644)
        text = path.read_text()
        self.assertTrue(text.startswith("# ours\nalice:"))
        path.write_text(text.removeprefix("# ours\n"))
        found = self.lines(path)
        self.assertEqual(list(found), ["alice", "bob"])
        self.assertTrue(bcrypt.checkpw(b"three", found["alice"]))
        self.assertTrue(bcrypt.checkpw(b"two", found["bob"]))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual([each.name for each in self.directory.iterdir() if "htpasswd" in each.name], ["htpasswd"])

    def test_refused(self) -> None:
        """What would not work stays out, and a file that docxy could not use stays as it was."""
        path = self.directory / "htpasswd"
        path.write_text("bob:plain\n")
        for user, secret, status in (("a:b", "x", 2), ("#a", "x", 2), ("", "x", 2), ("a", "", 1), ("a", "é" * 40, 1)):
            self.said(status, "password", user, "--stdin", input=f"{secret}\n")
        self.said(1, "password", "alice", "--file", str(path), "--cost", "4", "--stdin", input="x\n")
        self.assertEqual(path.read_text(), "bob:plain\n")
        self.said(1, "password", "alice", "--file", "/nowhere/x", "--cost", "4", "--stdin", input="x\n")


class RunTests(AdminCase):
    """`docxy run` and `completion`."""

    def test_arguments(self) -> None:
        """Every option of the daemon is passed on as it was given, and nothing else."""
        with mock.patch.object(os, "execv") as started:
            self.said(0, "run", "--port", "8080", "--no-auth", "--prefetch", "--cache", "-x")
        (program, argv), _ = started.call_args
        self.assertEqual(program, sys.executable)
        at = argv.index("docxy")
        self.assertEqual(argv[at - 2 : at], ["--nodaemon", "--pidfile="])
        self.assertEqual(sorted(argv[at + 1 :]), ["--cache=-x", "--no-auth", "--port=8080", "--prefetch"])
        whole = arguments({option.key: "x" for option in OPTIONS})
        self.assertEqual(len(whole[argv.index("docxy") + 1 :]), sum(bool(option.metavar) for option in OPTIONS))

    def test_help(self) -> None:
        """Every command has help with an example, or commands of its own."""
        for command in (
            ["status"],
            ["top"],
            ["why"],
            ["pulls"],
            ["quota"],
            ["errors"],
            ["run"],
            ["password"],
            ["completion"],
            ["doctor"],
            ["config", "check"],
            ["config", "show"],
            ["config", "k3s"],
        ):
            text = self.said(0, *command, "--help")
            self.assertIn("Example: docxy " if command != ["completion"] else "Example: echo", text, command)

    def test_completion(self) -> None:
        """Each shell gets a script; what the script asks for is answered with commands."""
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("_DOCXY_COMPLETE", self.run_docxy("completion", shell).stdout)
        self.assertEqual(self.run_docxy("completion", "csh").exit_code, 2)
        asked = {"_DOCXY_COMPLETE": "bash_complete", "COMP_WORDS": "docxy sta", "COMP_CWORD": "1"}
        self.assertEqual(self.run_docxy(**asked).stdout.split(), ["plain,status"])
