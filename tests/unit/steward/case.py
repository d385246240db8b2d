"""A cache in a directory of the test's, with images in it, and its steward, whose every step is done at once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from attrs import define, field
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.names import OCI_INDEX, OCI_MANIFEST, Digest
from docxy.questions import IWorkers
from docxy.settings.policy import Policy
from docxy.steward.acts import ACTS
from docxy.steward.inline import at_once, finish
from docxy.steward.lines import Arguments, Line
from docxy.steward.steward import Steward, open_cache
from docxy.storage.shares import USUAL
from tests.unit.storage.fixtures import claim

HUB = "docker.io"
NOW = 1_790_000_000.0
"""Seconds since the epoch at which each test begins."""
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@implementer(IWorkers)
@define
class Workers:
    """Two processes that serve, and do whatever they are asked to."""

    asked: list[tuple[str, Any]] = field(factory=list)
    answers: dict[int, Any] = field(factory=lambda: {1: None, 2: None})

    async def ask_all(self, name: str, *facts: Any) -> dict[int, Any]:
        self.asked.append((name, *facts))
        return self.answers

    async def ask_one(self, name: str, *facts: Any) -> Any:
        self.asked.append((name, *facts))
        return self.answers[1]


class StewardCase(SynchronousTestCase):
    """`self.steward`, its `self.store` and `self.catalog`; time is `self.clock`."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        self.clock = Clock()
        self.clock.advance(NOW)
        self.workers = Workers()
        self.store, self.catalog = open_cache(self.directory, 1 << 40, USUAL, self.clock, at_once, at_once)
        self.addCleanup(self.close)
        self.policy = Policy()
        self.steward = Steward(
            self.store,
            self.catalog,
            self.workers,
            None,
            None,
            lambda: self.policy,
            at_once,
            self.clock,
            self.directory,
        )

    def close(self) -> None:
        finish(self.store.stop())
        finish(self.catalog.close())

    def act(self, name: str, **given: Any) -> list[Line]:
        """All that an act says.  Raises RegistryError."""

        async def all_lines() -> list[Line]:
            return [line async for line in ACTS[name].run(self.steward, Arguments(given))]

        return finish(all_lines())

    def items(self, name: str, **given: Any) -> list[dict[str, Any]]:
        """Its items."""
        return [line["item"] for line in self.act(name, **given) if "item" in line]

    def end(self, name: str, **given: Any) -> dict[str, Any]:
        """Its `done`."""
        *_, last = self.act(name, **given)
        found: dict[str, Any] = last["done"]
        return found

    def keep(self, data: bytes) -> Digest:
        """These bytes as a blob of the store."""
        digest = Digest.of(data)

        async def fill() -> None:
            writer = await claim(self.store, digest)
            await writer.announce(len(data))
            await writer.write(data)
            await writer.commit()

        if finish(self.store.stat(digest)) is None:
            finish(fill())
        return digest

    def body(self, digest: Digest) -> bytes:
        """The bytes of what is kept."""
        found: bytes = finish(self.store.survey.read([digest]))[digest]
        return found

    def is_kept(self, digest: Digest) -> bool:
        """Whether the store has it."""
        return finish(self.store.stat(digest)) is not None

    def image(
        self,
        repository: str,
        tags: Sequence[str] = (),
        layers: Sequence[bytes] = (b"layer",),
        config: bytes = b"{}",
        upstream: str = HUB,
    ) -> Digest:
        """A manifest with its config and layers, cached as a pull leaves it; its digest."""
        entries = [{"mediaType": LAYER, "digest": str(self.keep(each)), "size": len(each)} for each in layers]
        described = {"mediaType": CONFIG, "digest": str(self.keep(config)), "size": len(config)}
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": entries}
        held = self.catalog.upstream(upstream).held
        for data in (config, *layers):
            held.hold_blob(repository, Digest.of(data))
        return self.manifest(repository, manifest, tags, upstream)

    def index(
        self, repository: str, children: Sequence[tuple[Digest, str]], tags: Sequence[str] = (), upstream: str = HUB
    ) -> Digest:
        """An index over manifests with their platforms, as `linux/arm64`."""
        entries = []
        for digest, platform in children:
            system, _, machine = platform.partition("/")
            entries.append(
                {
                    "mediaType": OCI_MANIFEST,
                    "digest": str(digest),
                    "size": 1,
                    "platform": {"os": system, "architecture": machine},
                }
            )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        return self.manifest(repository, index, tags, upstream)

    def manifest(self, repository: str, content: dict[str, Any], tags: Sequence[str], upstream: str = HUB) -> Digest:
        """A manifest as it is given."""
        body = json.dumps(content).encode()
        digest = self.keep(body)
        known = self.catalog.upstream(upstream)
        known.held.hold_manifest(repository, digest, content["mediaType"], len(body))
        for tag in tags:
            known.tags.keep(repository, tag, digest, content["mediaType"], len(body))
        return digest
