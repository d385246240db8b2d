"""The Helm chart: what helm makes of it is what the API's schemas allow, with every switch.

What the chart makes is checked strictly: a field that the schema does not name is a fault.  Kinds of Kubernetes' own
have the schemas of `kubernetes_validate`; those of others, the CustomResourceDefinitions of their projects.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import kubernetes_validate
import yaml
from twisted.trial.unittest import SynchronousTestCase

from docxy.settings.load import load
from tests.harness.processes import CHECKOUT, SYSTEM_PATH, kill_group
from tests.live.gobuild import built, files

CHART = CHECKOUT / "deploy" / "helm" / "docxy"
KUBERNETES = "1.37"

IMAGE = "image.repository=registry.example/docxy"
SWITCHES = {
    "as it is": [],
    "replicas": ["replicas=3", "cache.volume.storageClass=fast", "cache.whenDeleted=Delete"],
    "emptyDir": ["cache.volume.kind=emptyDir"],
    "pod": [
        "imagePullSecrets[0].name=pull",
        "secret=accounts",
        "env[0].name=A,env[0].value=b",
        "envFrom[0].secretRef.name=s3",
        "nodeSelector.disk=ssd",
        "tolerations[0].operator=Exists",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].key=a",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].operator=Exists",
        "spread=false",
        "podAnnotations.a=b",
        "podLabels.a=b",
        "serviceAccount.annotations.a=b",
        "metrics.enabled=false",
        "service.type=LoadBalancer",
        "service.annotations.a=b",
    ],
    "ingress-nginx": [
        "ingress.enabled=true",
        "ingress.host=mirror.example",
        "ingress.className=nginx",
        "ingress.tlsSecret=tls",
        "ingress.hash=nginx",
    ],
    "HAProxy": [
        "ingress.enabled=true",
        "ingress.host=mirror.example",
        "ingress.hash=haproxy",
        "ingress.annotations.a=b",
    ],
    "Gateway": [
        "httpRoute.enabled=true",
        "httpRoute.host=mirror.example",
        "httpRoute.parentRefs[0].name=public",
        "httpRoute.hash=envoy",
    ],
    "ACME": [
        "acme.names={mirror.example,hub.example}",
        "acme.email=you@mirror.example",
        "acme.directory=https://ca.example/dir",
        "acme.profile=shortlived",
        "service.type=LoadBalancer",
        "networkPolicy.enabled=true",
    ],
    "autoscaling": ["autoscaling.enabled=true"],
    "network policy": [
        "networkPolicy.enabled=true",
        "networkPolicy.from[0].ipBlock.cidr=10.0.0.0/8",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
    ],
    "network policy for all": ["networkPolicy.enabled=true"],
    "monitoring": [
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.release=prometheus",
        "metrics.prometheusRule.enabled=true",
        "metrics.prometheusRule.labels.release=prometheus",
        "metrics.dashboard.enabled=true",
    ],
    "nodes": [
        "nodeConfig.enabled=true",
        "nodeConfig.url=https://mirror.example",
        "nodeConfig.ca=-----BEGIN CERTIFICATE-----",
        "nodeConfig.nodeSelector.a=b",
    ],
}
"""Values, by what they show."""

REFUSED = {
    "image.repository is missing": [],
    "ingress.host is missing": [IMAGE, "ingress.enabled=true"],
    "httpRoute.parentRefs is missing": [IMAGE, "httpRoute.enabled=true"],
    "nodeConfig.url is missing": [IMAGE, "nodeConfig.enabled=true"],
    "replica": [IMAGE, "replica=3"],
    "/cache/volume/kind": [IMAGE, "cache.volume.kind=nfs"],
    "/publicUrl": [IMAGE, "publicUrl=mirror.example"],
    "/cache/size": [IMAGE, "cache.size=most"],
    "/acme/email": [IMAGE, "acme.names={mirror.example}", "acme.email=you"],
    "ingress and httpRoute have to be off": [IMAGE, "acme.names={a.example}", *SWITCHES["ingress-nginx"]],
    "only one replica": [IMAGE, "acme.names={a.example}", "replicas=2"],
    "cache.volume.kind has to be claim": [IMAGE, "acme.names={a.example}", "cache.volume.kind=emptyDir"],
}
"""Values that the chart does not take, by what helm says then."""

DEFINITIONS = {
    "HTTPRoute": ("sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    "ServiceMonitor": (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "PrometheusRule": (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "BackendTrafficPolicy": (
        "github.com/envoyproxy/gateway",
        "charts/gateway-crds-helm/templates/generated/gateway.envoyproxy.io_backendtrafficpolicies.yaml",
    ),
}
"""Where a kind that is not Kubernetes' own is defined: the module, the file."""


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What helm says; it reaches no cluster."""
    environ = {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "KUBECONFIG": os.devnull}
    command = [built("helm")["helm"], *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)


def template(values: list[str]) -> subprocess.CompletedProcess[str]:
    """The chart with these values."""
    flags = [flag for value in values for flag in ("--set", value)]
    return helm("template", "mirror", str(CHART), "--namespace=registry", f"--kube-version={KUBERNETES}", *flags)


def made(values: list[str]) -> Iterator[dict[str, Any]]:
    """The objects of the chart with these values."""
    done = template([IMAGE, *values])
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return (each for each in yaml.safe_load_all(done.stdout) if each is not None)


def environ_of_pods(values: list[str]) -> dict[str, str | None]:
    """What docxy's container has in its environment."""
    (pod,) = (each["spec"]["template"]["spec"] for each in made(values) if each["kind"] == "StatefulSet")
    return {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}


def strict(schema: Any) -> Any:
    """A schema in which an object has only the fields that it names."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if isinstance(result.get("pattern"), str):
        # Go takes a flag anywhere, Python at the beginning.
        result["pattern"] = result["pattern"].replace("^(?i)", "(?i)^")
    if isinstance(result.get("properties"), dict) and not result.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


class ChartTests(SynchronousTestCase):
    """What helm makes."""

    definitions: ClassVar[dict[str, Any]] = {}

    def definition(self, kind: str, version: str) -> Any:
        """The schema of a kind that is not Kubernetes' own."""
        key = f"{version} {kind}"
        if key not in self.definitions:
            module, path = DEFINITIONS[kind]
            text = "\n".join(
                line for line in (files(module) / path).read_text("utf-8").splitlines() if not line.startswith("{{")
            )
            spec = yaml.safe_load(text)["spec"]
            served = next(each for each in spec["versions"] if each["name"] == version.partition("/")[2])
            schema = served["schema"]["openAPIV3Schema"]
            schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            self.definitions[key] = strict(schema)
        return self.definitions[key]

    def check(self, thing: dict[str, Any]) -> None:
        """Fail unless the API would take it."""
        kind, version = thing["kind"], thing["apiVersion"]
        self.assertLessEqual(len(thing["metadata"]["name"]), 63)
        if kind in DEFINITIONS:
            jsonschema.validate(thing, self.definition(kind, version))
        else:
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)

    def test_lint(self) -> None:
        """Helm finds nothing wrong with it."""
        done = helm("lint", "--strict", str(CHART), "--set", IMAGE)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_unittest(self) -> None:
        """What helm-unittest finds of the chart's own suites, which also say what to expect of it."""
        command = [built("helm-unittest")["helm-unittest"], str(CHART)]
        environ = {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir()}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("3 passed, 3 total", done.stdout)

    def test_switches(self) -> None:
        """With each switch, the API would take all that the chart makes, and no name is there twice."""
        for name, values in SWITCHES.items():
            with self.subTest(name):
                names = set()
                for thing in made(values):
                    self.check(thing)
                    names.add((thing["kind"], thing["metadata"]["name"]))
                self.assertEqual(len(names), len(list(made(values))))

    def test_schemas_are_strict(self) -> None:
        """A misspelt field would be found, in a kind of Kubernetes' own and in another's."""
        pod = next(each for each in made([]) if each["kind"] == "StatefulSet")
        pod["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
        self.assertRaises(kubernetes_validate.ValidationError, self.check, pod)
        route = next(each for each in made(SWITCHES["Gateway"]) if each["kind"] == "HTTPRoute")
        route["spec"]["rules"][0]["timeout"] = {}
        self.assertRaises(jsonschema.ValidationError, self.check, route)

    def test_refused(self) -> None:
        """Values that cannot work are refused, and helm says which."""
        for said, values in REFUSED.items():
            with self.subTest(said):
                done = template(values)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(said.strip("/").replace("/", "."), done.stderr.replace("/", "."))

    def test_every_switch_makes_something(self) -> None:
        """Each optional object is made when it is asked for, and only then."""
        plain = {each["kind"] for each in made([])}
        self.assertEqual(plain, {"ConfigMap", "Service", "ServiceAccount", "StatefulSet"})
        self.assertIn("PodDisruptionBudget", {each["kind"] for each in made(SWITCHES["replicas"])})
        everything = {each["kind"] for values in SWITCHES.values() for each in made(values)}
        optional = {"PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "DaemonSet"}
        self.assertEqual(everything - plain, optional | set(DEFINITIONS))

    def test_pod(self) -> None:
        """The pod has all three probes, waits for its transfers, and may do nothing that it need not."""
        (pod,) = (each["spec"]["template"]["spec"] for each in made(["replicas=2"]) if each["kind"] == "StatefulSet")
        (container,) = pod["containers"]
        paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
        self.assertEqual(paths, {"startup": "/startup", "readiness": "/ready", "liveness": "/health"})
        self.assertTrue(pod["securityContext"]["runAsNonRoot"])
        self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
        self.assertFalse(container["securityContext"]["allowPrivilegeEscalation"])
        self.assertEqual(container["securityContext"]["capabilities"], {"drop": ["ALL"]})
        environ = {each["name"]: each.get("value") for each in container["env"]}
        before, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        self.assertEqual(before, "sleep")
        self.assertGreater(pod["terminationGracePeriodSeconds"], int(environ["SHUTDOWN_GRACE"]) + int(seconds) + 5)
        self.assertEqual(environ["PUBLIC_URL"], "http://mirror-docxy.registry.svc")

    def test_volume(self) -> None:
        """Each pod's cache is on a volume that it claims, or goes with the pod."""
        for switch, is_claimed in (("replicas", True), ("emptyDir", False)):
            (spec,) = (each["spec"] for each in made(SWITCHES[switch]) if each["kind"] == "StatefulSet")
            claims = [each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", ())]
            empty = [each["name"] for each in spec["template"]["spec"]["volumes"] if "emptyDir" in each]
            self.assertEqual(("cache" in claims, "cache" in empty), (is_claimed, not is_claimed))

    def test_public_url(self) -> None:
        """Clients are told the name that the way in has."""
        for values, url in (
            ([*SWITCHES["ingress-nginx"]], "https://mirror.example"),
            ([*SWITCHES["HAProxy"]], "http://mirror.example"),
            ([*SWITCHES["Gateway"]], "https://mirror.example"),
            (["service.port=8080"], "http://mirror-docxy.registry.svc:8080"),
            (["publicUrl=https://hub.example/"], "https://hub.example"),
            (SWITCHES["ACME"], "https://mirror.example"),
        ):
            self.assertEqual(environ_of_pods(values)["PUBLIC_URL"], url)

    def test_acme(self) -> None:
        """The settings are those that docxy starts with, and both ports lead to it, port 80 from anywhere."""
        environ = {name: value for name, value in environ_of_pods(SWITCHES["ACME"]).items() if value is not None}
        del environ["DOCXY_CONFIG"]
        config = load({}, environ, root=False, ipv6=False)
        assert config.issuing is not None and config.issuing.acme is not None
        self.assertEqual(config.issuing.names, ("mirror.example", "hub.example"))
        self.assertEqual(config.issuing.acme.directory, "https://ca.example/dir")
        self.assertTrue(config.issuing.state.startswith(environ["CACHE_DIR"]))
        things = list(made(SWITCHES["ACME"]))
        (pod,) = (each["spec"]["template"]["spec"] for each in things if each["kind"] == "StatefulSet")
        (container,) = pod["containers"]
        listening = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert config.redirect is not None
        for name, endpoint in (("http", config.redirect), ("https", config.https)):
            self.assertIn(f":{listening[name]}", endpoint)
        (service,) = (each for each in things if each["kind"] == "Service" and each["spec"].get("type"))
        self.assertEqual(
            {each["port"]: each["targetPort"] for each in service["spec"]["ports"]}, {80: "http", 443: "https"}
        )
        # Before the pod has started, the server cannot reach it to give it a certificate.
        self.assertEqual(container["startupProbe"]["httpGet"]["path"], "/health")
        (policy,) = (each for each in things if each["kind"] == "NetworkPolicy")
        self.assertIn({"ports": [{"port": "http"}]}, policy["spec"]["ingress"])

    def test_prefetch(self) -> None:
        """Where the way in hashes, no pod fetches layers that another one will be asked for."""
        for values, prefetch in ((SWITCHES["replicas"], None), (SWITCHES["ingress-nginx"], "off")):
            self.assertEqual(environ_of_pods(values).get("PREFETCH"), prefetch)

    def test_alerts_and_dashboard(self) -> None:
        """The alerts and the dashboard are the ones of deploy/."""
        things = {each["kind"]: each for each in made(SWITCHES["monitoring"]) if each["kind"] != "ConfigMap"}
        alerts = yaml.safe_load((CHECKOUT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8"))
        self.assertEqual(things["PrometheusRule"]["spec"], alerts)
        (dashboard,) = (
            each["data"]["docxy.json"]
            for each in made(SWITCHES["monitoring"])
            if each["metadata"]["name"].endswith("-dashboard")
        )
        there = json.loads((CHECKOUT / "deploy" / "grafana" / "docxy.json").read_text("utf-8"))
        self.assertEqual(json.loads(dashboard), there)


class NodeTests(SynchronousTestCase):
    """The script that a node's pod runs."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.ca = Path(self.mktemp()).absolute()
        self.ca.write_text("a CA")

    def running(self) -> subprocess.Popen[str]:
        """The script; it says a line when it has done its work, or why it cannot."""
        environ = {"DIRECTORY": str(self.directory), "MIRROR": "https://mirror.example", "CA": str(self.ca)}
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "sh", str(CHART / "files" / "node.sh")],
            env={"PATH": SYSTEM_PATH, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(kill_group, process.pid)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        """Its next line."""
        assert process.stdout is not None
        return process.stdout.readline()

    def test_comes_and_goes(self) -> None:
        """It writes the file of all registries, and takes it away when it ends."""
        process = self.running()
        self.assertEqual(self.said(process), "this node pulls through https://mirror.example\n")
        place = self.directory / "_default"
        text = (place / "hosts.toml").read_text()
        self.assertIn('[host."https://mirror.example"]\n  capabilities = ["pull", "resolve"]', text)
        self.assertIn(f'ca = "{place}/docxy-ca.pem"', text)
        self.assertNotIn("\nserver", text)
        self.assertEqual((place / "docxy-ca.pem").read_text(), "a CA")
        process.terminate()
        self.assertEqual(process.wait(30), 0)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_another_s_file(self) -> None:
        """A file of somebody else's stays as it is, and the script says so."""
        place = self.directory / "_default"
        place.mkdir(parents=True)
        (place / "hosts.toml").write_text("# mine\n")
        process = self.running()
        self.assertIn("is not docxy's", self.said(process))
        self.assertEqual(process.wait(30), 1)
        self.assertEqual((place / "hosts.toml").read_text(), "# mine\n")
