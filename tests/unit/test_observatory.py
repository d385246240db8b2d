"""The admin socket of a docxy that runs, on a real Unix socket: what it answers, and where there is none."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from docxy.observatory import Observatory
from docxy.observe.exchange import Exchange
from docxy.observe.recorder import Dropped
from docxy.questions import Nobody
from docxy.settings.load import load
from docxy.settings.policy import Policy
from tests.unit.web.schemas import check

reactor: Any = _reactor


@implementer(IAgentEndpointFactory)
class Sockets:
    """Every URL leads to one Unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def endpointForURI(self, uri: object) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(reactor, self._path)


class AdminSocketCase(TestCase):
    """A docxy that serves nothing, with an admin socket."""

    def setUp(self) -> None:
        # A Unix socket's path has a bound of about 100 bytes, which trial's directories can exceed.
        self.directory = Path(tempfile.mkdtemp(prefix="docxy-admin-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = str(self.directory / "admin.sock")
        self.running: list[Observatory] = []
        self.addCleanup(self.stop_all)
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def observatory(self, path: str, cache: str = "off") -> Observatory:
        """What a docxy that starts has."""
        config = load({}, {"CERT_PATH": "off", "CACHE_DIR": cache, "CACHE_SIZE": "1G", "PUBLIC_URL": "http://x.test"})
        made = Observatory(evolve(config, admin_socket=path, workers=1), lambda _: None, reactor, reactor)
        self.running.append(made)
        # No act is asked for.
        made.open(Nobody(), Policy, lambda images, gone: None, cast(Any, None), None)
        return made

    async def stop(self, observatory: Observatory) -> None:
        """Once: it is not made to be stopped twice."""
        self.running.remove(observatory)
        await observatory.stop()

    async def stop_all(self) -> None:
        for each in [*self.running]:
            await self.stop(each)

    async def ask(self, path: str) -> Any:
        """The JSON of an answer."""
        agent = Agent.usingEndpointFactory(reactor, Sockets(self.path))
        response = await agent.request(b"GET", f"http://docxy{path}".encode())
        body = await readBody(response)
        self.assertEqual(response.code, 200, body)
        return json.loads(body)

    def warnings(self) -> list[str]:
        return [formatEvent(event) for event in self.logged if event["log_level"] is LogLevel.warn]


class QuotaTests(AdminSocketCase):
    """`/quota.json`."""

    def exchange(self, account: str, count: int, **more: Any) -> Exchange:
        return Exchange(
            at=reactor.seconds() - 5,
            seconds=0.1,
            kind="manifests",
            upstream="docker.io",
            repository="library/alpine",
            reference="3.20",
            status=200,
            cache="miss",
            charged={account: count},
            **more,
        )

    async def test_quota(self) -> None:
        """Each registry, with its limit, who spent it and when it ends; as its schema says."""
        made = self.observatory(self.path)
        check("quota", await self.ask("/quota.json"))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        made.model.take([self.exchange("", 1), self.exchange("bot", 3, group="ci")], Dropped())
        hub = {
            "asked": reactor.seconds(),
            "answered": None,
            "latency": 0.1,
            "state": "ok",
            "error": None,
            "until": None,
        }
        made.model.sampled(0, {"upstreams": {"docker.io": {**hub, "limit": 100, "remaining": 40, "received": 0}}})
        told = await self.ask("/quota.json")
        check("quota", told)
        self.assertEqual(sorted(told), ["now", "upstreams", "version"])
        docker = next(each for each in told["upstreams"] if each["name"] == "docker.io")
        self.assertEqual((docker["limit"], docker["remaining"], docker["spent"]), (100, 40, 4))
        self.assertEqual(
            docker["spenders"],
            [
                {"account": "bot", "repository": "library/alpine", "group": "ci", "count": 3},
                {"account": "", "repository": "library/alpine", "group": "", "count": 1},
            ],
        )
        # Four charges within the least span of a minute: 40 more last for ten.
        self.assertTrue(600.0 <= docker["ends_at"] - told["now"] < 700.0, docker["ends_at"] - told["now"])

    async def test_same(self) -> None:
        """It tells of registries what `/status.json` tells there; the pulls of both are the same."""
        made = self.observatory(self.path)
        made.model.take([self.exchange("bot", 1, client="10.0.0.5")], Dropped())
        status = await self.ask("/status.json")
        check("status", status)
        self.assertEqual(json.dumps(status["upstreams"]).count('"account": "bot"'), 1)
        pulls = await self.ask("/pulls.json")
        check("pulls", pulls)
        self.assertEqual([pull["client"] for pull in pulls["pulls"]], ["10.0.0.5"])


class RestartTests(AdminSocketCase):
    """What is left of pulls after a restart."""

    async def test_pulls(self) -> None:
        """The newest pulls from before are there, as they were, as soon as the disk has told of them."""
        cache = self.directory / "cache"
        cache.mkdir()
        first = self.observatory(self.path, str(cache))
        at = reactor.seconds() - 90
        told = Exchange(at, 0.1, "manifests", "docker.io", "library/alpine", "3.20", 200, "miss", client="10.0.0.5")
        first.model.take([told], Dropped())
        (before,) = (await self.ask("/status.json"))["pulls"]
        await self.stop(first)
        second = self.observatory(self.path, str(cache))
        news: Deferred[None] = Deferred()
        second.view.subscribe(lambda: None if news.called else news.callback(None))
        await news
        whole = await self.ask("/status.json")
        self.assertEqual(whole["pulls"], [{**before, "running": False}])
        check("status", whole)

    async def test_sums(self) -> None:
        """Shares and charges go on where they were."""
        cache = self.directory / "cache"
        cache.mkdir()
        first = self.observatory(self.path, str(cache))
        charge = {"charged": {"bot": 2}, "sent": 70}
        told = Exchange(reactor.seconds(), 0.1, "manifests", "docker.io", "library/a", "1", 200, "miss", **charge)
        first.model.take([told], Dropped(9, 3, 30))
        await self.stop(first)
        second = self.observatory(self.path, str(cache))
        restored: Deferred[None] = Deferred()

        def look() -> None:
            if second.model.traffic.hour().answers and not restored.called:
                restored.callback(None)

        second.view.subscribe(look)
        await restored
        whole = await self.ask("/status.json")
        share = {"answers": 4, "hits": 3, "joined": 0, "sent": 100, "saved": 30, "received": 0}
        self.assertEqual(whole["traffic"], dict.fromkeys(("hour", "day", "week"), share))
        docker = next(each for each in whole["upstreams"] if each["name"] == "docker.io")
        spender = {"account": "bot", "repository": "library/a", "group": "", "count": 2}
        self.assertEqual((docker["spent"], docker["spenders"]), (2, [spender]))

    async def test_none(self) -> None:
        """A first start makes no file."""
        cache = self.directory / "cache"
        cache.mkdir()
        made = self.observatory(self.path, str(cache))
        await self.ask("/status.json")
        await self.stop(made)
        self.assertEqual([*cache.iterdir()], [])


class NoSocketTests(AdminSocketCase):
    """Where the socket cannot be had docxy says so, and goes on."""

    async def test_taken(self) -> None:
        """Another docxy has it, and keeps it."""
        first = self.observatory(self.path)
        self.assertEqual(self.warnings(), [])
        second = self.observatory(self.path)
        (said,) = self.warnings()
        self.assertRegex(said, f"^no admin socket at {self.path}: .+; another docxy may have it, --admin-socket names")
        self.assertEqual((first.admin() is None, second.admin()), (False, None))
        # The first one goes on answering, and the second knows what it knows.
        await self.ask("/status.json")
        self.assertEqual((await second.view.snapshot())["docxy"]["public_url"], "http://x.test")
        await self.stop(second)
        await self.ask("/status.json")

    async def test_no_directory(self) -> None:
        """It cannot be made where a file is in the place of its directory."""
        (self.directory / "file").write_text("")
        path = str(self.directory / "file" / "admin.sock")
        made = self.observatory(path)
        (said,) = self.warnings()
        self.assertIn(f"no admin socket at {path}: File exists", said)
        self.assertIsNone(made.admin())
        await made.view.snapshot()

    async def test_again(self) -> None:
        """A docxy that has stopped leaves no socket in the way of the next one."""
        await self.stop(self.observatory(self.path))
        self.observatory(self.path)
        self.assertEqual(self.warnings(), [])
        await self.ask("/status.json")
