#!/bin/sh
# Makes this node's containerd pull through docxy while this script runs.  containerd reads the file at
# each pull: nothing is restarted.
# MIRROR: docxy's URL; DIRECTORY: containerd's config_path; CA: a PEM file, or nothing.
set -eu
place="$DIRECTORY/_default"
file="$place/hosts.toml"
mark="# docxy writes this file and takes it away again."

if [ -e "$file" ] && [ "$(head -n 1 "$file")" != "$mark" ]; then
    echo "$file is not docxy's: move it away, or switch nodeConfig off for this node" >&2
    exit 1
fi

undo() {
    rm -f "$file" "$place/docxy-ca.pem"
    rmdir "$place" 2>/dev/null || true
}
trap 'undo; exit 0' TERM INT

mkdir -p "$place"
ca=""
if [ -n "${CA:-}" ]; then
    cp "$CA" "$place/docxy-ca.pem.new"
    mv "$place/docxy-ca.pem.new" "$place/docxy-ca.pem"
    ca="  ca = \"$place/docxy-ca.pem\""
fi
# No server line: if docxy is away, containerd asks the registry that the image names.
cat >"$file.new" <<TOML
$mark
[host."$MIRROR"]
  capabilities = ["pull", "resolve"]
$ca
TOML
mv "$file.new" "$file"
echo "this node pulls through $MIRROR"
while :; do
    sleep 3600 &
    wait $! || true
done
