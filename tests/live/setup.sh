#!/bin/sh
# Installs what the live tests need, on Debian or Ubuntu, with or without systemd.
# Run it as root or as somebody who may use sudo.
set -eu

packages="buildah busybox-static chromium chromium-driver containerd curl debootstrap docker-registry docker.io fish fonts-noto-cjk gcc haproxy libc6-dev nginx podman prometheus skopeo python3 python3-venv systemd wrk zsh"

if ! command -v apt-get >/dev/null; then
    echo "tests/live/setup.sh: no apt-get here; install what Debian calls: $packages docker-cli golang-go" >&2
    exit 1
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root() { "$@"; }
else
    as_root() { sudo "$@"; }
fi

# The tests start their own: a service that a package would start now must not come up,
# and what runs already is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
as_root apt-get update -qq

# Where docker's command line is a package of its own (Debian 13).
if apt-cache show docker-cli >/dev/null 2>&1; then
    packages="$packages docker-cli"
fi
# Programs of today are built from Go modules (gobuild.py); any Go from 1.21 on does.
if ! PATH="$PATH:/usr/local/go/bin" command -v go >/dev/null; then
    packages="$packages golang-go"
fi
# shellcheck disable=SC2086  # a list
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages
