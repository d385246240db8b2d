"""The policy of the configuration file: what it says, and what is wrong with it."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import pickle
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docxy.content import children, named
from docxy.names import Digest
from docxy.settings import policy_tables
from docxy.settings.cooldown import Cooldown, OnNew
from docxy.settings.load import load, load_policy
from docxy.settings.model import DOCKER_HUB, ConfigError
from docxy.settings.policy import Policy

ONE, TWO = Digest.of(b"one"), Digest.of(b"two", "sha512")


class PolicyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.file = self.directory / "docxy.toml"

    def read(self, text: str) -> Policy:
        self.file.write_text(text)
        policy = load({"config": str(self.file)}, {"CERT_PATH": "off", "CACHE_DIR": "off"}).policy
        self.assertEqual(load_policy(str(self.file), [DOCKER_HUB]), policy)
        return policy

    def test_all(self) -> None:
        """Freezes, recalls and a file of recalls, with their images under the names that docxy keeps them by."""
        recalls = self.directory / "recalls"
        recalls.write_text(f"# a list\n\n{ONE}\n  {TWO}  bad: really  \n")
        policy = self.read(
            f'recall_file = "{recalls}"\n'
            f'[[freeze]]\nimage = "python:3.12"\ndigest = "{ONE}"\n'
            f'[[recall]]\ndigest = "{TWO}"\nreason = "CVE"\n'
            f'[[recall]]\nimage = "index.docker.io/team/**:1.*"\n'
            f'[[recall]]\nimage = "python@{ONE}"\n'
        )
        self.assertEqual(
            [(str(each.image), each.digest) for each in policy.freezes], [("docker.io/library/python:3.12", ONE)]
        )
        self.assertEqual(
            [(each.digest, str(each.image or ""), each.reason) for each in policy.recalls],
            [
                (TWO, "", "CVE"),
                (None, "docker.io/team/**:1.*", policy_tables.NO_REASON),
                (ONE, "", policy_tables.NO_REASON),
                (ONE, "", policy_tables.NO_REASON),
                (TWO, "", "bad: really"),
            ],
        )
        self.assertEqual(str(policy), "1 freeze, 5 recalls")
        self.assertEqual(pickle.loads(pickle.dumps(policy)), policy)

    def test_cooldowns(self) -> None:
        """How old images must be: the first rule decides, for a digest those of some tags too, exceptions not."""
        self.file.write_text(
            '[[cooldown]]\nimages = ["python:nightly*", "team/open/**"]\nmin_age = "0s"\n'
            '[[cooldown]]\nimages = ["python:3.*"]\nmin_age = "7d"\non_new = "deny"\n'
        )
        policy = load({"config": str(self.file)}, {"CERT_PATH": "off", "CACHE_DIR": str(self.directory)}).policy
        usual, week = Cooldown(86400.0), Cooldown(7 * 86400.0, OnNew.DENY)
        for repository, tag, expected in (
            ("library/python", "nightly-1", None),
            ("library/python", "3.12", week),
            ("library/python", "latest", usual),
            ("library/python", None, week),
            ("team/open/a", "x", None),
            ("team/open/a", None, None),
            ("team/other", None, usual),
        ):
            self.assertEqual(policy.cooldown("docker.io", usual, repository, tag), expected, (repository, tag))
        self.assertIsNone(policy.cooldown("ghcr.io", None, "library/python", "3.12"))
        self.assertEqual(pickle.loads(pickle.dumps(policy)), policy)
        error = self.assertRaises(ConfigError, self.read, self.file.read_text())
        self.assertIn("min_age needs a cache", str(error))

    def test_none(self) -> None:
        """A file without policy has none."""
        self.assertEqual(self.read("tag_ttl = 5\n"), Policy())

    def test_wrong(self) -> None:
        """What is wrong is one line that names the file, the table, the key and the value."""
        (self.directory / "long").write_text("#" * (policy_tables.LARGEST_FILE + 1))
        (self.directory / "odd").write_text(f"{ONE} fine\nsha256:12 short\n")
        (self.directory / "bytes").write_bytes(b"\xff\xfe")
        for text, why in (
            ("freeze = 5", "freeze must be [[freeze]] tables"),
            ('[[freeze]]\nimage = "a:b"', "[[freeze]] 1 in {file}: digest is missing"),
            (f'[[freeze]]\ndigest = "{ONE}"', "[[freeze]] 1 in {file}: image is missing"),
            (f'[[freeze]]\nimage = "a:*"\ndigest = "{ONE}"', "image: 'a:*' is not one tag"),
            (f'[[freeze]]\nimage = "a@{ONE}"\ndigest = "{ONE}"', "the digest has a key of its own"),
            ('[[freeze]]\nimage = "a"\ndigest = "sha256:12"', "digest: 'sha256:12' is not a digest"),
            (
                f'[[freeze]]\nimage = "a"\ndigest = "{ONE}"\n[[freeze]]\nimage = "library/a:latest"\ndigest = "{TWO}"',
                "want other digests of docker.io/library/a:latest",
            ),
            ('[[recall]]\nreason = "x"', "[[recall]] 1 in {file}: give either digest or image"),
            (f'[[recall]]\nimage = "a"\ndigest = "{ONE}"', "give either digest or image"),
            ('[[recall]]\nimage = "quay.io/a/b"', "docxy does not mirror; it mirrors docker.io"),
            ('[[recall]]\nimage = "A b"', "is not an image"),
            (f'[[recall]]\ndigest = "{ONE}"\nreason = "{"x" * 301}"', "is not a reason"),
            (f'[[recall]]\ndigest = "{ONE}"\nreason = "a\\nb"', "is not a reason"),
            (f'[[recall]]\ndigest = "{ONE}"\nreson = "x"', "unknown key 'reson'; did you mean reason?"),
            ('[[cooldown]]\nmin_age = "1d"', "[[cooldown]] 1 in {file}: images is missing"),
            ('[[cooldown]]\nimages = ["a"]', "[[cooldown]] 1 in {file}: min_age is missing"),
            ('[[cooldown]]\nimages = []\nmin_age = "1d"', "images: it names none"),
            ('[[cooldown]]\nimages = ["quay.io/a"]\nmin_age = "1d"', "docxy does not mirror"),
            (f'[[cooldown]]\nimages = ["a@{ONE}"]\nmin_age = "1d"', "has a digest: a cooldown is of names"),
            ('[[cooldown]]\nimages = ["a"]\nmin_age = "x"', "min_age: 'x' is not a time"),
            ("[[recal]]", "unknown key 'recal'; did you mean recall?"),
            (f'recall_file = "{self.directory}/none"', "recall_file in {file}: {directory}/none: No such file"),
            (f'recall_file = "{self.directory}/long"', "is larger than"),
            (f'recall_file = "{self.directory}/odd"', "odd, line 2: 'sha256:12 short' is not a digest"),
            (f'recall_file = "{self.directory}/bytes"', "not UTF-8"),
            ("recall_file = 5", "5 is not a string"),
        ):
            error = str(self.assertRaises(ConfigError, self.read, text))
            self.assertIn(why.format(file=self.file, directory=self.directory), error)
            self.assertNotIn("\n", error)

    def test_most(self) -> None:
        """There is a bound, which a file of recalls reaches as well as tables do."""
        self.patch(policy_tables, "MOST", 2)
        recalls = self.directory / "recalls"
        recalls.write_text(f"{ONE}\n" * 2)
        self.assertEqual(len(self.read(f'recall_file = "{recalls}"').recalls), 2)
        recalls.write_text(f"{ONE}\n" * 3)
        self.assertIn("docxy keeps 2", str(self.assertRaises(ConfigError, self.read, f'recall_file = "{recalls}"')))
        tables = f'[[freeze]]\nimage = "a"\ndigest = "{ONE}"\n' * 3
        self.assertIn("docxy keeps 2", str(self.assertRaises(ConfigError, self.read, tables)))


class NamedTests(SynchronousTestCase):
    """What a manifest names, as far as any client could read it."""

    def test_named(self) -> None:
        """In every list, however the keys are written (Go folds these, too); not below a subject."""
        body = (
            b'{"config":{"digest":"a"},"LAYERS":[{"Digest":"b"},{"digest":"c","digest":"d"}],"x":[[{"blobsum":"e"}]],'
            b'"fs\xc5\xbf":[{"dige\xc5\xbft":"f"}],"subject":{"digest":"no"},"Subject":[{"digest":"no"}],"digest":5}'
        )
        self.assertEqual(named(body), frozenset("abcdef"))
        self.assertEqual(named(b'"digest"'), frozenset())

    def test_not_json(self) -> None:
        """What cannot be looked through is an error: it must not pass for something that names nothing."""
        for body in (b"{", b"\xff", b"[" * 100_000):
            self.assertRaises(ValueError, named, body)

    def test_children(self) -> None:
        """The manifests of an index, whatever else is in the list; of anything else none."""
        self.assertEqual(children(b'{"manifests": [{"digest": "a"}, 5, {"digest": 6}, {}]}'), {"a"})
        for body in (b'{"layers": [{"digest": "a"}]}', b'{"manifests": {}}', b"[]", b"{"):
            self.assertEqual(children(body), frozenset())
