"""The balancers' files in `deploy/`: all of them send the same requests to the same nodes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
HEX = "0123456789abcdef" * 4
BY_DIGEST = (f"/v2/library/alpine/blobs/sha256:{HEX}", f"/ghcr.io/v2/a/b/c/manifests/sha256:{HEX}")
ANY = (
    "/v2/",
    "/v2/library/alpine/manifests/latest",
    "/v2/library/alpine/tags/list",
    "/auth/token",
    f"/v2/a/blobs/sha256:{HEX}0",
    f"/v2/a/blobs/sha256:{HEX}/x",
    f"/v2/a/blobs/{HEX}",
)


class FilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.haproxy = (DEPLOY / "haproxy.cfg").read_text()
        self.nginx = (DEPLOY / "nginx-nodes.conf").read_text()
        self.envoy: Any = yaml.safe_load((DEPLOY / "envoy.yaml").read_text())

    def routes(self) -> list[dict[str, Any]]:
        """Envoy's."""
        (chain,) = self.envoy["static_resources"]["listeners"][0]["filter_chains"]
        (host,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
        routes: list[dict[str, Any]] = host["routes"]
        return routes

    def test_nodes(self) -> None:
        """Each names the same three."""
        (cluster,) = self.envoy["static_resources"]["clusters"]
        sockets = [each["endpoint"]["address"] for each in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]]
        envoys = [f"{each['socket_address']['address']}:{each['socket_address']['port_value']}" for each in sockets]
        nginxs = re.findall(r"^    server (\S+:\d+) ", self.nginx, re.M)
        haproxys = re.findall(r"^    server \w+ (\S+:\d+)", self.haproxy, re.M)
        self.assertEqual(len(set(envoys)), 3)
        self.assertEqual((nginxs, haproxys), (envoys, envoys * 2))

    def test_keys(self) -> None:
        """What is asked for by digest goes by the digest, whatever its name; nothing else does."""
        (inspected,) = re.findall(r"path_reg (\S+)", self.haproxy)
        (mapped,) = re.findall(r'"~(\S+)"', self.nginx)
        digest, rest = self.routes()
        self.assertEqual(rest["match"], {"prefix": "/"})
        self.assertNotIn("hash_policy", rest["route"])
        matched = digest["match"]["safe_regex"]["regex"]
        rewrite = digest["route"]["hash_policy"][0]["header"]["regex_rewrite"]
        for path in (*BY_DIGEST, *ANY):
            wanted = path in BY_DIGEST
            self.assertEqual(re.search(inspected, path) is not None, wanted, path)
            self.assertEqual(re.search(mapped.replace("?<", "?P<"), path) is not None, wanted, path)
            # Envoy's limit for an expression leaves no room for the digest's length.
            wanted = wanted or path.endswith(f"{HEX}0")
            self.assertEqual(re.fullmatch(matched, path) is not None, wanted, path)
        for path in BY_DIGEST:
            key = re.sub(rewrite["pattern"]["regex"], rewrite["substitution"], path + "?ns=docker.io")
            self.assertEqual(key, f"sha256:{HEX}")
