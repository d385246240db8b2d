"""How each client is configured for a mirror: the files, for the page and for the command line.

Pure.  The law: each registry of the mirror is in each file once, by the way that this client can take.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import frozen


@frozen
class ClientFile:
    """How one client is configured."""

    kind: str
    """`docker`, `podman`, `buildkit` or `k3s`."""
    name: str
    where: str
    text: str


def clients(url: str, upstreams: list[str]) -> list[ClientFile]:
    """The files of each client for a mirror at `url`."""
    parts = urlsplit(url)
    host, plain = parts.netloc, parts.scheme == "http"
    first, others = upstreams[0], upstreams[1:]
    registries = "\n\n".join(
        f'[[registry]]\nlocation = "{name}"\n[[registry.mirror]]\n'
        f'location = "{host if name == first else f"{host}/{name}"}"' + ("\ninsecure = true" if plain else "")
        for name in upstreams
    )
    buildkit = "\n\n".join(
        f'[registry."{name}"]\nmirrors = ["{host if name == first else f"{host}/{name}"}"]' for name in upstreams
    )
    if plain:
        buildkit += f'\n\n[registry."{host}"]\nhttp = true'
    found = []
    if first == "docker.io":
        docker = f'{{ "registry-mirrors": ["{url}"] }}'
        found.append(
            ClientFile("docker", "Docker (docker.io)", "/etc/docker/daemon.json · systemctl restart docker", docker)
        )
    for name in others or ([] if first == "docker.io" else [first]):
        path = host if name == first else f"{host}/{name}"
        found.append(ClientFile("docker", f"Docker ({name})", "docker pull", f"docker pull {path}/OWNER/IMAGE"))
    return [
        *found,
        ClientFile("podman", "Podman, CRI-O, Skopeo", "/etc/containers/registries.conf.d/docxy.conf", registries),
        ClientFile("buildkit", "BuildKit", "/etc/buildkit/buildkitd.toml", buildkit),
        k3s(url),
    ]


_KUBERNETES = """\
# Writes {path} on every node, which containerd reads for every registry.
# containerd's CRI plugin has to have config_path = "/etc/containerd/certs.d".
# When you delete this, delete the file on the nodes too.
apiVersion: v1
kind: ConfigMap
metadata:
  name: docxy-mirror
  namespace: kube-system
data:
  hosts.toml: |
{hosts}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: docxy-mirror
  namespace: kube-system
  labels: {{app.kubernetes.io/name: docxy-mirror}}
spec:
  selector:
    matchLabels: {{app.kubernetes.io/name: docxy-mirror}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: docxy-mirror}}
    spec:
      automountServiceAccountToken: false
      priorityClassName: system-node-critical
      tolerations: [{{operator: Exists}}]
      nodeSelector: {{kubernetes.io/os: linux}}
      containers:
      - name: write
        image: docker.io/library/busybox:stable
        # A changed ConfigMap is on the nodes within a minute or two.
        command:
        - sh
        - -c
        - |
          trap exit TERM
          while true; do
            if ! cmp -s /config/hosts.toml /node/_default/hosts.toml; then
              mkdir -p /node/_default && cp /config/hosts.toml /node/_default/.hosts.toml &&
                mv /node/_default/.hosts.toml /node/_default/hosts.toml && echo written
            fi
            sleep 30 & wait
          done
        resources:
          requests: {{cpu: 1m, memory: 8Mi}}
          limits: {{memory: 32Mi}}
        securityContext:
          runAsUser: 0
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {{drop: [ALL]}}
          seccompProfile: {{type: RuntimeDefault}}
        volumeMounts:
        - {{name: config, mountPath: /config}}
        - {{name: node, mountPath: /node}}
      volumes:
      - name: config
        configMap: {{name: docxy-mirror}}
      - name: node
        hostPath: {{path: /etc/containerd/certs.d, type: DirectoryOrCreate}}"""


def kubernetes(url: str) -> ClientFile:
    """The file for containerd on every node of a cluster, written by the cluster itself."""
    lines = "\n".join(f"    {line}" for line in containerd(url).text.splitlines())
    text = _KUBERNETES.format(path="/etc/containerd/certs.d/_default/hosts.toml", hosts=lines)
    return ClientFile("kubernetes", "Kubernetes with containerd", "kubectl apply -f docxy-mirror.yaml", text)


def k3s(url: str) -> ClientFile:
    """The one file that covers every registry, of which k3s and RKE2 make containerd's `_default/hosts.toml`."""
    text = f'mirrors:\n  "*":\n    endpoint: ["{url}"]'
    where = "/etc/rancher/k3s/registries.yaml · /etc/rancher/rke2/registries.yaml"
    return ClientFile("k3s", "k3s, RKE2", where, text)


def docker(url: str) -> ClientFile:
    """The one file that covers every registry, for Docker with the containerd image store."""
    where = "/etc/docker/certs.d/_default/hosts.toml"
    return ClientFile("docker", "Docker 29 and later, every registry", where, containerd(url).text)


def containerd(url: str) -> ClientFile:
    """The one file that covers every registry, for containerd and for Docker with the containerd image store."""
    return ClientFile(
        "containerd",
        "containerd",
        "/etc/containerd/certs.d/_default/hosts.toml · /etc/docker/certs.d/_default/hosts.toml",
        f'[host."{url}"]\ncapabilities = ["pull", "resolve"]',
    )
