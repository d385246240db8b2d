"""The images that a file names."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docxy.cli.failure import Failure
from docxy.cli.image_lists import DEEPEST, LARGEST, MOST_PARTS, Listed, read

COMPOSE = """
x-common: &common
  image: "redis:${TAG:-7}"
services:
  web:
    image: nginx:1.29
    build: .
  cache: *common
  worker:
    build: ./worker
  db:
    image: postgres:$VERSION
  lost:
    image: ${REGISTRY}/o/i
"""
KUBERNETES = """
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      initContainers: [{name: init, image: busybox:1}]
      containers:
      - {name: app, image: "ghcr.io/o/app@sha256:%s"}
      - {name: side, image: busybox:1}
      volumes:
      - {name: model, image: {reference: "ghcr.io/o/model:v1", pullPolicy: Always}}
      - {name: none, emptyDir: {}}
---
# nothing here
---
apiVersion: v1
kind: List
items:
- kind: CronJob
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: alpine}]}}}}}
- kind: ConfigMap
  data: {image: "not an image"}
""" % ("0" * 64)


class Lists(SynchronousTestCase):
    def listed(self, text: str | bytes, **environ: str) -> Listed:
        path = self.mktemp()
        Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(path, environ)

    def images(self, text: str, **environ: str) -> list[str]:
        return list(self.listed(text, **environ).images)

    def test_list(self) -> None:
        """One a line; comments and empty lines count for nothing; YAML and JSON lists are lists."""
        text = "alpine:3.20\n\n# ours\nghcr.io/o/i@sha256:1  # pinned\nbusybox\nalpine:3.20\n"
        self.assertEqual(self.images(text), ["alpine:3.20", "ghcr.io/o/i@sha256:1", "busybox"])
        self.assertEqual(self.images('["alpine", "busybox:1"]'), ["alpine", "busybox:1"])
        self.assertEqual(self.images("- alpine\n- busybox:1\n"), ["alpine", "busybox:1"])
        self.assertEqual(self.images("alpine"), ["alpine"])

    def test_compose(self) -> None:
        """The image of each service, with its variables; what is built or cannot be told is a note."""
        listed = self.listed(COMPOSE, VERSION="17")
        self.assertEqual(list(listed.images), ["nginx:1.29", "redis:7", "postgres:17"])
        self.assertEqual(len(listed.notes), 2)
        self.assertIn("REGISTRY", listed.notes[1])
        self.assertIn("redis:8", self.images(COMPOSE, TAG="8"))

    def test_kubernetes(self) -> None:
        """Containers of every kind, in every pod spec, wherever it stands; volumes that are images."""
        app = f"ghcr.io/o/app@sha256:{'0' * 64}"
        self.assertEqual(self.images(KUBERNETES), [app, "busybox:1", "ghcr.io/o/model:v1", "alpine"])

    def test_wrong(self) -> None:
        """What is too large, no text, broken, or names nothing is one line."""
        for text in (
            b"x" * (LARGEST + 1),
            b"\xff\xfe\x00",
            "services: [",
            "kind: x\n a: b: c",
            "",
            "kind: ConfigMap\n",
        ):
            self.assertRaises(Failure, self.listed, text)
        self.assertRaises(Failure, read, "/nonexistent", {})

    def test_hostile(self) -> None:
        """Code in YAML is not run; a document whose parts refer to each other is walked once."""
        self.assertRaises(Failure, self.listed, "kind: !!python/object/apply:os.system ['true']\n")
        levels = "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(40))
        bomb = f"kind: List\na0: &a0 {{containers: [{{image: alpine}}]}}\n{levels}"
        self.assertEqual(self.images(bomb), ["alpine"])
        self.assertEqual(self.images("kind: List\na: &a {b: *a, containers: [{image: alpine}]}\n"), ["alpine"])
        self.assertRaises(Failure, self.listed, "kind: " + "[" * 100_000)
        self.assertRaises(Failure, self.listed, "\n".join(f"a:{n}" for n in range(2001)))

    def test_bounds(self) -> None:
        """Many parts, deep ones and many merges take long to read, and are refused in words that say why."""
        many = "kind: List\nx: [" + "a," * MOST_PARTS + "]\n"
        deep = "kind: List\n" + "".join(f"{' ' * n}a:\n" for n in range(DEEPEST + 1))
        merged = f"services:\n  a: &a {{{', '.join(f'k{n}: v' for n in range(1000))}}}\n" + "".join(
            f"  b{n}: {{<<: *a, c{n}: d}}\n" for n in range(MOST_PARTS // 1000 + 1)
        )
        for text, words in ((many, "parts"), (deep, "deep"), (merged, "merges")):
            error = self.assertRaises(Failure, self.listed, text)
            self.assertIn(words, error.message)
            self.assertIn("a list, one a line", error.message)

    def test_texts(self) -> None:
        """Numbers and dates are texts: to understand one of a million digits takes a minute."""
        for value in ("1:" * 200_000 + "1", "9" * 200_000, "!!int 1" + ":1" * 200_000, "2026-01-01", "!!binary AA"):
            self.assertEqual(self.images(f"kind: Pod\nx: {value}\ncontainers: [{{image: alpine}}]\n"), ["alpine"])
        self.assertEqual(self.listed("services: {a: {image: null}, b: {image: ~}}").images, {})
