"""`credential_helper` and `credential_command` in the file."""

from __future__ import annotations

from pathlib import Path

from docxy.settings.model import ConfigError, CredentialProgram
from tests.unit.settings.test_load import Case


class ProgramTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp()).resolve()
        self.path.mkdir()
        self.helper = self.path / "docker-credential-ecr-login"
        self.helper.write_text("")
        self.helper.chmod(0o700)

    def program(self, toml: str, name: str = "r.example:5000") -> CredentialProgram:
        table = f'[[upstreams]]\nname = "{name}"\nauth = "none"\n{toml}'
        (found,) = self.load(table, {"PATH": str(self.path)}).upstreams[0].credentials
        assert isinstance(found, CredentialProgram)
        return found

    def test_helper(self) -> None:
        """A helper is looked for in PATH, and told the registry as Docker calls it."""
        found = self.program('credential_helper = "ecr-login"')
        self.assertEqual(found.command, (str(self.helper), "get"))
        self.assertEqual((found.name, found.server, found.or_anonymous), (self.helper.name, "r.example:5000", False))
        hub = self.program('credential_helper = "ecr-login"\ncredential_or_anonymous = true', "docker.io")
        self.assertEqual((hub.server, hub.or_anonymous), ("https://index.docker.io/v1/", True))

    def test_command(self) -> None:
        """A command is run as it stands."""
        found = self.program(f'credential_command = ["{self.helper}", "--a b", "$HOME"]')
        self.assertEqual(found.command, (str(self.helper), "--a b", "$HOME"))

    def test_refused(self) -> None:
        """One line says what is wrong."""
        for toml, words in (
            ('credential_helper = "gcr"', "there is no docker-credential-gcr in PATH"),
            ('credential_helper = "../x"', "is not the name of a helper such as ecr-login"),
            ("credential_helper = 7", "is not a string"),
            ("credential_command = []", "credential_command is empty"),
            ('credential_command = ["token"]', "does not begin with the full path of a program"),
            ('credential_command = ["/nonexistent"]', "does not begin with the full path of a program"),
            (f'credential_command = ["{self.path}"]', "does not begin with the full path of a program"),
            ('credential_command = "/bin/true"', "is not an array of strings"),
            ("credential_or_anonymous = true", "needs credential_helper or credential_command"),
            ('credential_helper = "ecr-login"\nusername = "x"', "credential_helper and username cannot be combined"),
        ):
            with self.assertRaisesRegex(ConfigError, words):
                self.program(toml)
        toml = '[[upstreams]]\nname = "x.example"\nauth = "transparent"\ncredential_helper = "ecr-login"'
        with self.assertRaisesRegex(ConfigError, "credentials are not used with transparent auth"):
            self.load(toml, {"PATH": str(self.path)})
