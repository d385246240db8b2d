"""The configuration reference: `python -m docxy.settings.reference > docs/configuration.md`.

Pure.  The law: the page is made from the tables that parse the settings; what a table takes
and the page does not explain is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping

from docxy.settings import access, archive, keep, policy_tables, upstreams, webhooks
from docxy.settings.model import ARCHIVE_PUTS
from docxy.settings.option import Option
from docxy.settings.options import OPTIONS

_CA_FILE = "PEM file with CAs to trust besides the system's"
_CA_ONLY = "`true`: trust only the CAs of `ca_file`"
_TAG_TTL = "seconds; left out: as `--tag-ttl`"

ANY_KEYS: Mapping[str, str] = {
    "name": "`*`",
    "allow": "globs of what clients may pull, each with its registry: `quay.io/**`; left out: all",
    "deny": "globs of what clients may not pull, even if `allow` has it",
    "hosts": "globs of hosts; a request with such a Host, as `quay.io`, is for the registry of that name; left out: "
    "none, and the path or `ns` names the registry",
    "tag_ttl": _TAG_TTL,
    "max_connections": "connections to each of their hosts at once; 0: no limit",
    "fill": "as for other registries",
    "proxy": "`http://[user:password@]host:port`, or `off`; must be there if the environment has a proxy, which "
    "then has to keep clients out of your network: docxy cannot see where it connects to",
    "ca_file": _CA_FILE,
    "ca_only": _CA_ONLY,
    "min_age": "as for other registries",
    "on_new": "as for other registries",
}
UPSTREAM_KEYS: Mapping[str, str] = {
    "name": "the name in paths and in `ns`; if the registry is not at `https://<name>`, give `url` too",
    "url": "scheme, host and port; a path goes in front of each repository (`https://harbor.example/hub`), or "
    "says where `/v2` is (`https://artifactory.example/artifactory/api/docker/hub/v2`)",
    "endpoints": "other URLs that serve the same content; docxy asks them in this order when `url` fails",
    "library": "whether `alpine` means `library/alpine` there, as on Docker Hub",
    "aliases": "other names for it in paths and in `ns`",
    "hosts": "host names of docxy that mean this registry",
    "realm_hosts": "hosts of its token service besides its own; docxy sends credentials to no other",
    "private": "whether it may lead to addresses off the public internet; left out: docxy judges by its URLs",
    "ca_file": _CA_FILE,
    "ca_only": _CA_ONLY,
    "client_cert": "PEM file with docxy's own certificate, for a registry that asks for one (mTLS); docxy shows it "
    "to this registry, its endpoints and `realm_hosts`",
    "client_key": "PEM file with the key of `client_cert`",
    "proxy": "`http://[user:password@]host:port`, or `off`; left out: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and "
    "`NO_PROXY` of the environment",
    "max_connections": "connections to each of its hosts at once; 0: no limit",
    "auth": "`transparent` or `none`; left out: as `--auth`",
    "username": "an account of docxy's own, only with `none`",
    "password_file": "the file that holds its password; docxy reads it again when it has changed, and at a SIGHUP",
    "password_env": "or the environment variable that holds it",
    "credentials": "several accounts, used in turn: `[{ username = …, password_file = … }, …]`",
    "credential_helper": "or the name of a Docker credential helper, which prints an account: `ecr-login` runs "
    "`docker-credential-ecr-login`",
    "credential_command": 'or any command that prints one, as JSON: `["/usr/local/bin/registry-token"]`',
    "credential_or_anonymous": "`true`: while either fails, docxy asks without an account; left out: it does not ask",
    "max_rate": "most bytes a second that docxy fetches from it, as `50MB/s`; `off`: no limit",
    "fill": "what docxy fetches when a client reads a layer by ranges: `whole` (the default), all of the layer; "
    "`touched`, only what clients read; see [Lazy pulls](registries.md#lazy-pulls)",
    "search": "the names of other upstreams, which this name searches in this order; the table then has no other keys "
    "but `name`, `aliases`, `hosts`, `allow` and `deny`",
    "tag_ttl": _TAG_TTL,
    "allow": "globs of the repositories that clients may pull; left out: all",
    "deny": "globs of the repositories that clients may not pull, even if `allow` has them",
    "immutable": "patterns of tags that never move, as `*:v*.*.*`: docxy asks for such a tag once",
    "min_age": "how long docxy must have known a digest before clients get it, as `3d`; see [Policy over "
    "time](policy.md)",
    "on_new": "what docxy does if a tag's digest is too young and there is no older one: `serve` (the default), "
    "`deny` or `observe`",
}
ACCESS_KEYS: Mapping[str, str] = {
    "htpasswd": "the file of docxy's own accounts, one `user:hash` a line",
    "token_key_file": "the file of the keys that docxy signs its tokens with, for nodes that accept each other's: one "
    "or two lines of 32 bytes or more, of which the first signs; left out: each cache has its own",
    "allow": "addresses and networks of clients that docxy serves; left out: all",
    "deny": "addresses and networks that it does not serve, even if `allow` has them",
    "trusted_proxies": "proxies in front of docxy whose `address_header` docxy believes; it ignores others'",
    "address_header": "the header in which these proxies name the client: `X-Forwarded-For` (the default) or "
    "`Forwarded` (RFC 7239)",
    "proxy_protocol_from": "balancers that begin each connection with a PROXY header, version 1 or 2; docxy refuses "
    "a connection of theirs without one, and a PROXY header from anybody else",
    "groups": "the users of each group",
    "reserve": "shares of each registry's pull limit that are kept for groups: `{ prod = 0.2 }`",
    "rules": "who may pull what; left out: every account may pull everything",
}
RULE_KEYS: Mapping[str, str] = {
    "users": "the users that this rule is for",
    "groups": "the groups that it is for; `everyone` and `anonymous` exist already",
    "repositories": "globs of what they may pull, each with its registry: `docker.io/library/*`",
}
POLICY_KEYS: Mapping[str, str] = {
    "freeze": "tags that stay where they are, each a `[[freeze]]` table",
    "keep": "images that are always cached, each a `[[keep]]` table",
    "recall": "images and blobs that docxy refuses, each a `[[recall]]` table",
    "cooldown": "how old images must be, each a `[[cooldown]]` table; the first that covers an image decides, and goes "
    "before the `min_age` of its registry",
    "recall_file": "a file of more recalls: a digest, a space, the reason, one a line; `#` begins a comment",
}
COOLDOWN_KEYS: Mapping[str, str] = {
    "images": "names of images, globs too, as `docker.io/library/python:3.*`; without a tag: the whole repository",
    "min_age": "how long docxy must have known a digest, as `3d`; `0s`: it may be new",
    "on_new": "as in `[[upstreams]]`",
}
FREEZE_KEYS: Mapping[str, str] = {
    "image": "the tag, as `docker.io/library/python:3.12`",
    "digest": "the digest that it stays at",
}
RECALL_KEYS: Mapping[str, str] = {
    "digest": "of an index, a manifest, a config or a layer",
    "image": "or the name of an image or a glob, as `docker.io/team/app:1.*`; without a tag: the whole repository",
    "reason": "one line that docxy shows to clients",
}

KEEP_KEYS: Mapping[str, str] = {
    "images": "tags to keep, as `docker.io/library/python:3.*`; only the tag may have wildcards; without a tag: "
    "`latest`",
    "hot": "how many of the most pulled tags to keep too, as `20`",
    "platforms": "as `linux/amd64`, `linux/arm/v7` or `all`; left out: `linux/amd64`, or the only one there is",
    "every": "the time between two refreshes, as `6h`, the default",
    "quiet": "the hours in which a refresh may begin, in the machine's time, as `01:00-05:00`; left out: at any time",
}
WEBHOOK_KEYS: Mapping[str, str] = {
    "url": "the URL that docxy posts events to",
    "secret_file": "file with the secret that docxy signs events with, 24 bytes or more: `whsec_` and base64, or plain "
    "text",
    "events": f"the events that docxy sends: {', '.join(f'`{event}`' for event in webhooks.EVENTS)}; left out: all",
    "ca_file": _CA_FILE,
}
ARCHIVE_KEYS: Mapping[str, str] = {
    "url": "`s3://bucket/prefix`, `gs://bucket/prefix` or `az://account/container/prefix`",
    "endpoint": "scheme, host and port of the store; left out: the provider's",
    "region": "of `s3://` only",
    "access_key": "the name of an S3 key; left out: credentials are those of the environment or the machine's role",
    "secret_file": "the file that holds the S3 secret key, the Azure account's key, or the JSON of a Google service "
    "account",
    "secret_env": "or the environment variable that holds it",
    "ca_file": _CA_FILE,
    "rate": "bytes a second that docxy uploads in all, as `50MB`; left out: no limit",
    "puts": f"blobs that docxy uploads at once, at most {archive.MOST_PUTS}; left out: {ARCHIVE_PUTS}",
    "redirect": "`cold`: clients get blobs that are not in the cache from the store themselves, by a signed URL; "
    "`always`: all blobs that the store has; `never`, which is the default",
    "public_endpoint": "scheme, host and port by which clients reach the store; with `redirect` only",
}

_HEAD = """\
# Configuration

<!-- Made by `python -m docxy.settings.reference`; change the tables in docxy/settings instead. -->

A value on the command line wins over the environment, the environment over the file, the file
over the default. If docxy cannot use a value, it does not start: one line names the value and
where it came from. An empty environment variable counts as one that is not set.

## Options

`twistd docxy --help` prints this list.

"""
_FILE = """\

Where an option takes a port, it takes a Twisted endpoint too:
`--https-port systemd:domain=INET6:index=0`.

With a certificate, given or found at the default path, docxy serves HTTPS. Without one it
serves plain HTTP, and says so in the first line of its log. A certificate that you name and
that is not there is an error.

## The file

`--config FILE` names a TOML file. It takes the options above as keys, with underscores for
dashes, and the tables below. [docxy.example.toml](docxy.example.toml) shows every key.

`docxy config schema > docxy.schema.json` writes a JSON Schema of the file. With the line
`#:schema ./docxy.schema.json` at its top, editors with Taplo, such as VS Code with Even Better TOML,
complete keys, explain them, and mark what is wrong. `docxy config check` knows more than they do.

"""
_POLICY = """\

### Policy

What you want done about images; see [Policy](policy.md). docxy reads these again at a `SIGHUP`, and goes
on with what it had if the file is wrong.

"""


def reference() -> str:
    """The page, as Markdown."""
    return "".join(
        (
            _HEAD,
            _table(("option", "environment", "default", "meaning"), (_row(option) for option in OPTIONS)),
            _FILE,
            "### upstreams\n\nA `[[upstreams]]` table for each registry; see [Several registries](registries.md).\n\n",
            _keys(UPSTREAM_KEYS, upstreams.KEYS),
            '\nThe table with `name = "*"`, or `"*"` among the names, lets clients name any other registry:\n\n',
            _keys(ANY_KEYS, upstreams.ANY_KEYS),
            "\n### access\n\nThe `[access]` table; see [Logins and access](access.md).\n\n",
            _keys(ACCESS_KEYS, access.KEYS),
            "\nEach of its `[[access.rules]]`:\n\n",
            _keys(RULE_KEYS, access.RULE_KEYS),
            _POLICY,
            _keys(POLICY_KEYS, policy_tables.KEYS),
            "\nEach `[[freeze]]`:\n\n",
            _keys(FREEZE_KEYS, policy_tables.FREEZE_KEYS),
            "\nEach `[[keep]]`, which has `images`, `hot`, or both:\n\n",
            _keys(KEEP_KEYS, keep.KEYS),
            "\nEach `[[recall]]`, which has either `digest` or `image`:\n\n",
            _keys(RECALL_KEYS, policy_tables.RECALL_KEYS),
            "\nEach `[[cooldown]]`:\n\n",
            _keys(COOLDOWN_KEYS, policy_tables.COOLDOWN_KEYS),
            "\n### webhook\n\nA `[[webhook]]` table for each receiver; see [Webhooks](policy.md#webhooks).\n\n",
            _keys(WEBHOOK_KEYS, webhooks.KEYS),
            "\n### archive\n\nThe `[archive]` table; see [The archive](archive.md).\n\n",
            _keys(ARCHIVE_KEYS, archive.KEYS),
        )
    )


def _row(option: Option) -> tuple[str, str, str, str]:
    names = ([f"--{option.name} {option.metavar}"] if option.metavar else []) + [f"--{flag}" for flag in option.flags]
    default = option.default_help if option.default is None else f"`{option.default}`"
    return ", ".join(f"`{name}`" for name in names), f"`{option.env}`", default, option.help


def _keys(meanings: Mapping[str, str], known: Collection[str]) -> str:
    if meanings.keys() != set(known):
        raise LookupError(f"explained or taken, but not both: {sorted(meanings.keys() ^ set(known))}")
    return _table(("key", "meaning"), ((f"`{key}`", meaning) for key, meaning in meanings.items()))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.stdout.write(reference())
