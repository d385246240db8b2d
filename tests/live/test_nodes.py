"""Several docxys behind a balancer that sends what is asked for by digest to one of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from ssl import create_default_context
from urllib.parse import urlsplit

import obstore
from attrs import define, field
from obstore.store import S3Store
from twisted.internet.defer import Deferred, DeferredList

from tests.harness.directories import WatchedDirectory
from tests.harness.docxy import environment
from tests.harness.processes import Daemon, free_port, until, which
from tests.live import s3, swift
from tests.live.balancers import envoy, haproxy, nginx_nodes, passing_on
from tests.live.bed import PASSWORD, USER
from tests.live.case import LiveTestCase
from tests.live.clients import Docker, Skopeo
from tests.live.daemon import Docxy
from tests.live.images import OCI, Builder, Image
from tests.live.machine import Target
from tests.live.test_gate import ACCOUNTS, write
from tests.live.watching import Request

NODES = 3
CLIENTS = 24
IMAGES = 3
NOISE = 2 * 1024 * 1024
"""Bytes of each cold image's larger layer."""
OPTIONS = ("--no-prefetch", "--workers=1", "--fetch-connections=1")
MANIFESTS = ", ".join((OCI["manifest"], OCI["index"]))


@define
class Puller:
    """A client that pulls as docker does: challenge, token, tag, manifest, layers; it checks each byte."""

    url: str
    root: Path | None = None
    """Of whom it takes a certificate; None: it does not speak TLS."""
    _connection: HTTPConnection = field(init=False)
    _token: str = field(init=False, default="")

    def __attrs_post_init__(self) -> None:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if self.root is None:
            self._connection = HTTPConnection(host, port, timeout=60)
        else:
            context = create_default_context(cafile=str(self.root))
            self._connection = HTTPSConnection(host, port, timeout=60, context=context)

    def pull(self, images: Iterable[Image]) -> int:
        """All blobs of these; their number.  Raises AssertionError for wrong or missing bytes."""
        count = 0
        for image in images:
            name = f"/v2/{image.repository}"
            manifest = json.loads(self._get(f"{name}/manifests/latest", image.digest))
            for each in [manifest["config"], *manifest["layers"]]:
                self._get(f"{name}/blobs/{each['digest']}", each["digest"])
                count += 1
        self._connection.close()
        return count

    def _get(self, path: str, digest: str) -> bytes:
        response, body = self._ask(path)
        if response.status == 401:
            challenge = dict(re.findall(r'(\w+)="([^"]*)"', response.getheader("WWW-Authenticate") or ""))
            realm = urlsplit(challenge["realm"])
            assert f"{realm.scheme}://{realm.netloc}" == self.url, challenge
            self._token = ""
            query = f"service={challenge['service']}&scope={challenge['scope']}"
            response, answer = self._ask(f"{realm.path}?{query}")
            assert response.status == 200, (response.status, answer)
            self._token = json.loads(answer)["token"]
            response, body = self._ask(path)
        assert response.status == 200, (path, response.status, body[:200])
        assert digest == f"sha256:{hashlib.sha256(body).hexdigest()}", path
        return body

    def _ask(self, path: str) -> tuple[HTTPResponse, bytes]:
        headers = {"Accept": MANIFESTS, **({"Authorization": f"Bearer {self._token}"} if self._token else {})}
        self._connection.request("GET", path, headers=headers)
        response = self._connection.getresponse()
        return response, response.read()


class NodesCase(LiveTestCase):
    """Nodes with a cache each, in front of the bed, whose token service everybody has to ask."""

    def setUp(self) -> None:
        """A port for the balancer."""
        super().setUp()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.root: Path | None = None

    def started(self, daemon: Daemon) -> None:
        self.addCleanup(daemon.stop)
        daemon.start()

    def nodes(
        self, auth: str = "transparent", tables: str = "", environ: Mapping[str, str] | None = None
    ) -> list[Docxy]:
        """Three, running; clients know them by the balancer's URL."""
        options = (*OPTIONS, f"--public-url={self.url}")
        nodes = [
            Docxy(
                self.shared.new_directory("docxy"),
                self.bed.url,
                auth,
                options=options,
                environ=environ or {},
                upstreams=tables,
            )
            for _ in range(NODES)
        ]
        for node in nodes:
            self.addCleanup(node.stop)
            node.start()
        return nodes

    def cold(self, name: str) -> list[Image]:
        """Images that nobody has pulled yet."""
        busybox = which("busybox")
        assert busybox is not None
        images = []
        for number in range(IMAGES):
            repository = f"library/cold-{name}-{number}"
            built = Builder(self.shared.new_directory("built"), Path(busybox)).single(repository, OCI, noise=NOISE)
            self.bed.push(built)
            images.append(built)
        return images

    def pulled(self, images: Sequence[Image]) -> Counter[str]:
        """How often each blob was fetched from the CDN while 24 clients pulled all of these at once."""
        with self.bed.watch_blobs() as blobs:
            with ThreadPoolExecutor(CLIENTS) as threads:
                each = [list(images[n % IMAGES :]) + list(images[: n % IMAGES]) for n in range(CLIENTS)]
                done = list(threads.map(lambda wanted: Puller(self.url, self.root).pull(wanted), each))
            self.assertEqual(set(done), {sum(1 + len(image.layers) for image in images)})
            fetched = self.fetched(blobs.requests("GET"))
        self.assertEqual(set(fetched), {blob for image in images for blob in image.blobs})
        return fetched

    def fetched(self, requests: Sequence[Request]) -> Counter[str]:
        """How often each digest was fetched, or begun to be, by these requests to the CDN.

        One byte is what a node asks for to learn whether a new token may read what it has.
        """
        fetches = (each for each in requests if each.range != "bytes=0-0")
        found = (re.search(r"/([0-9a-f]{64})/data", each.path) for each in fetches)
        return Counter(f"sha256:{each[1]}" for each in found if each is not None)


class OnceTests(NodesCase):
    """24 clients on cold images."""

    def test_haproxy(self) -> None:
        """Each blob is fetched from the registry once, by one of the nodes; each of them has some."""
        nodes = self.nodes()
        self.started(haproxy(self.shared.new_directory("haproxy"), self.port, [node.port for node in nodes]))
        fetched = self.pulled(self.cold("haproxy"))
        self.assertEqual(set(fetched.values()), {1}, fetched)
        for digest in fetched:
            self.assertEqual(sum(has(node, digest) for node in nodes), 1, digest)

    def test_nginx(self) -> None:
        """The same behind nginx."""
        nodes = self.nodes()
        self.started(nginx_nodes(self.shared.new_directory("nginx"), self.port, [node.port for node in nodes]))
        fetched = self.pulled(self.cold("nginx"))
        self.assertEqual(set(fetched.values()), {1}, fetched)

    def test_envoy(self) -> None:
        """The same behind Envoy, which ends TLS."""
        self.url, self.root = f"https://127.0.0.1:{self.port}", self.shared.certificate.root
        nodes = self.nodes()
        pair = self.shared.certificate.chain, self.shared.certificate.key
        ports = [node.port for node in nodes]
        self.started(envoy(self.shared.new_directory("envoy"), self.port, ports, pair))
        fetched = self.pulled(self.cold("envoy"))
        self.assertEqual(set(fetched.values()), {1}, fetched)

    def test_without_hashing(self) -> None:
        """Behind a balancer that knows nothing of digests all is right, and each node fetches each blob once."""
        nodes = self.nodes()
        ports = [node.port for node in nodes]
        self.started(haproxy(self.shared.new_directory("haproxy"), self.port, ports, hashing=False))
        fetched = self.pulled(self.cold("plain"))
        self.assertLessEqual(max(fetched.values()), NODES, fetched)


class BucketTests(NodesCase):
    """The same nodes with a bucket behind them."""

    def test_haproxy(self) -> None:
        """Each blob is fetched once, ever: not by a node that comes, nor for one that is killed."""
        store = swift.shared()
        nodes = self.nodes(tables=store.table("nodes"), environ=swift.ENVIRON)
        self.started(haproxy(self.shared.new_directory("haproxy"), self.port, [node.port for node in nodes]))
        images = self.cold("bucket")
        fetched = self.pulled(images)
        self.assertEqual(set(fetched.values()), {1}, fetched)
        bucket = store.bucket("nodes")
        for digest in fetched:
            until(lambda digest=digest: is_in(bucket, digest))
        nodes[0].stop()
        shutil.rmtree(nodes[0].cache_directory)
        nodes[0].start()
        os.killpg(nodes[1].daemon.pid, signal.SIGKILL)
        with self.bed.watch_blobs() as blobs:
            with ThreadPoolExecutor(CLIENTS) as threads:
                list(threads.map(lambda _: Puller(self.url).pull(images), range(CLIENTS)))
            self.assertEqual(self.fetched(blobs.requests("GET")), Counter())


def is_in(bucket: S3Store, digest: str) -> bool:
    """Whether the bucket has the blob."""
    try:
        obstore.head(bucket, s3.key(digest))
    except FileNotFoundError:
        return False
    return True


def has(node: Docxy, digest: str) -> bool:
    """Whether it has this blob in its cache."""
    assert node.cache_directory is not None
    return any(digest.partition(":")[2] in name for _, _, names in os.walk(node.cache_directory) for name in names)


class KilledTests(NodesCase):
    """A node dies while it sends a layer."""

    async def check(self) -> None:
        """Its pull succeeds all the same, and costs each blob two fetches at most."""
        nodes = self.nodes()
        self.started(haproxy(self.shared.new_directory("haproxy"), self.port, [node.port for node in nodes]))
        client = Docker(self.machine(Target(self.port)), self.reactor)
        self.addCleanup(client.stop)
        client.start()
        image = self.bed.images["library/large"]
        digest, size = image.layers[1]
        self.addCleanup(self.bed.slow_blobs, False)
        self.bed.slow_blobs(True)
        with self.bed.watch_blobs() as blobs:
            pull = Deferred.fromCoroutine(client.pull(image, "latest", Target(self.port).host))
            owner = await self.owner(nodes, digest, size // 20)
            os.killpg(owner.daemon.pid, signal.SIGKILL)
            self.bed.slow_blobs(False)
            self.assertEqual(await pull, set())
            # The second node begins where the client goes on, and fetches in parts: bytes are counted, not requests.
            # nginx tells of the transfer that the kill broke off once it has noticed.
            until(lambda: blobs.sent(digest.partition(":")[2]) > size)
            self.assertLessEqual(blobs.sent(digest.partition(":")[2]), 2 * size)
            requests = blobs.requests("GET")
        others = self.fetched(requests)
        del others[digest]
        self.assertLessEqual(max(others.values()), 2, others)

    async def owner(self, nodes: Sequence[Docxy], digest: str, least: int) -> Docxy:
        """The node that has got so many bytes of a blob that it fetches."""
        name = digest.replace(":", "-")

        async def grown(node: Docxy) -> Docxy:
            assert node.cache_directory is not None
            watched = WatchedDirectory(node.cache_directory / "incoming", self.reactor)
            self.addCleanup(watched.close)
            await watched.until(lambda: watched.size(name) >= least)
            return node

        waiting = [Deferred.fromCoroutine(grown(node)) for node in nodes]
        found, index = await DeferredList(waiting, fireOnOneCallback=True, consumeErrors=True)
        assert isinstance(found, Docxy), index
        return found

    def test_docker(self) -> Deferred[None]:
        """docker goes on where the layer broke off."""
        return Deferred.fromCoroutine(self.check())


class LoginTests(NodesCase):
    """Accounts of docxy's own on three nodes."""

    def test_any_node(self) -> Deferred[None]:
        """With one key file a login is good at every node; a token of one pulls from the others."""

        async def check() -> None:
            directory = self.shared.new_directory("accounts")
            write(directory / "htpasswd", ACCOUNTS)
            keys = directory / "keys"
            keys.write_text("one key for all three nodes, long enough\n")
            keys.chmod(0o600)
            tables = (
                f'username = "{USER}"\npassword_env = "HUB_PASSWORD"\n[access]\nhtpasswd = "{directory}/htpasswd"\n'
                f'token_key_file = "{keys}"\n'
            )
            nodes = self.nodes("none", tables, {"HUB_PASSWORD": PASSWORD})
            ports = [node.port for node in nodes]
            self.started(haproxy(self.shared.new_directory("haproxy"), self.port, ports, hashing=False))
            client = Skopeo(self.machine(Target(self.port)), self.reactor)
            host = Target(self.port).host
            await client.login(host, "anna", ACCOUNTS["anna"])
            self.assertEqual(await client.pull(self.bed.images["library/multi"], "latest", host), set())

        return Deferred.fromCoroutine(check())


class OrdersTests(NodesCase):
    """What the operator gives to every node as a file."""

    def test_files(self) -> None:
        """A line in the list of recalls, a freeze in the configuration, and a reload of each node: it holds on all."""
        recalls = self.shared.new_directory("recalls") / "recalls"
        recalls.write_text("# nothing yet\n")
        nodes = [self.shared.new_docxy("none", False, options=OPTIONS) for _ in range(NODES)]
        for node in nodes:
            config = node.directory / "docxy.toml"
            config.write_text(f'recall_file = "{recalls}"\n{config.read_text()}')
            self.addCleanup(node.stop)
            node.start()
        image, multi = self.bed.images["library/small"], self.bed.images["library/multi"]
        paths = [f"/v2/library/small/manifests/{image.digest}", f"/v2/library/small/blobs/{image.layers[0][0]}"]
        tag = "/v2/library/multi/manifests/latest"
        # This machine's manifest lists the layer that is recalled.
        (other,) = {each.digest for each in multi.children.values()} - {multi.local.digest}

        def seen() -> tuple[set[int], set[tuple[int, str | None]]]:
            statuses = {self.ask(node, path)[0] for node in nodes for path in paths}
            return statuses, {self.ask(node, tag) for node in nodes}

        self.assertEqual(seen(), ({200}, {(200, multi.digest)}))
        recalls.write_text(f"{image.layers[0][0]} CVE-2026-1\n")
        frozen = f'[[freeze]]\nimage = "docker.io/library/multi:latest"\ndigest = "{other}"\n'
        for node in nodes:
            config = node.directory / "docxy.toml"
            config.write_text(f"{config.read_text()}\n{frozen}")
            self.reload(node)
        self.assertEqual(seen(), ({403}, {(200, other)}))

    def reload(self, node: Docxy) -> None:
        assert node.cache_directory is not None
        socket = str(node.cache_directory / "admin.sock")
        argv = [sys.executable, "-c", "from docxy.cli.main import main; main()", "reload", "--socket", socket]
        subprocess.run(argv, env=environment(), capture_output=True, timeout=120, check=True)

    def ask(self, node: Docxy, path: str) -> tuple[int, str | None]:
        """Status, and the digest of a manifest."""
        connection = node.connect()
        try:
            connection.request("GET", path, headers={"Accept": f"{MANIFESTS}, */*"})
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("Docker-Content-Digest")
        finally:
            connection.close()


class AddressTests(LiveTestCase):
    """A balancer that passes TLS on and says in a PROXY header who its client is."""

    BALANCER, FRIEND, STRANGER = "127.0.0.9", "127.0.0.5", "127.0.0.6"

    def status(self, port: int, source: str) -> int:
        """Of `/v2/`, asked over TLS from an address."""
        context = create_default_context(cafile=str(self.shared.certificate.root))
        connection = HTTPSConnection("127.0.0.1", port, timeout=30, context=context, source_address=(source, 0))
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status
        finally:
            connection.close()

    def test_haproxy(self) -> None:
        """With either version docxy lets in whom it is told to, and nobody else; its health checks count as well."""
        tables = f"""
[access]
allow = ["{self.FRIEND}"]
proxy_protocol_from = ["{self.BALANCER}"]
"""
        docxy = self.shared.new_docxy("none", True, tables=tables)
        self.addCleanup(docxy.stop)
        docxy.start()
        for how in ("send-proxy", "send-proxy-v2"):
            port = free_port()
            balancer = passing_on(self.shared.new_directory("haproxy"), port, docxy.port, how, self.BALANCER)
            self.addCleanup(balancer.stop)
            balancer.start()
            self.assertEqual([self.status(port, each) for each in (self.FRIEND, self.STRANGER)], [200, 403], how)
        self.assertEqual([self.status(docxy.port, each) for each in (self.FRIEND, self.STRANGER)], [200, 403])
        self.assertRaises(OSError, self.status, docxy.port, self.BALANCER)
        self.assertNotIn("DOWN", balancer.log.read_text())
