#!/bin/sh
# Bring up docxy without TLS and without authentication, from this checkout.
set -eu

usage() {
    cat <<'TEXT'
Usage: deploy-without-auth.sh [--help] [docxy option ...]

Installs docxy into a virtual environment beside this script and serves a plain
HTTP mirror of Docker Hub that asks nobody for a login. It stays in the
foreground; stop it with Ctrl-C or SIGTERM.

Environment:
  PORT    port to listen on                      (8080)
  PYTHON  Python 3.10 or newer                   (python3)
  VENV    where the virtual environment goes     (.venv beside this script)

Every other docxy variable works too: CACHE_DIR, CACHE_SIZE, PUBLIC_URL ...
Options after the script's name go to docxy; see README.md.

Anyone who reaches the port can pull through it: keep it inside your network,
or put TLS in front of it (docs/deployment.md).
TEXT
}

case "${1-}" in
    -h | --help)
        usage
        exit 0
        ;;
esac

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}
venv=${VENV:-$here/.venv}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "deploy-without-auth.sh: $python is not Python 3.10 or newer; set PYTHON" >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "deploy-without-auth.sh: $python has no venv; on Debian and Ubuntu: apt install python3-venv" >&2
    exit 1
fi

# A half-made environment, of a run that was interrupted, is made anew.
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet "$here"

# A certificate that is named in the environment or found would make it HTTPS.
unset CERT_PATH KEY_PATH
echo "docxy: plain HTTP, no authentication, port ${PORT:-8080}"
exec "$venv/bin/twistd" --nodaemon --pidfile= docxy --cert off --no-auth --port "${PORT:-8080}" "$@"
