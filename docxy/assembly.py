"""Where the collaborators meet: a Config and a reactor become the site that is served.

The law: nothing below this module knows where its collaborators come from.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from publicsuffixlist import PublicSuffixList
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent
from twisted.web.server import Site

from docxy.config import AuthMode, Config, Upstream
from docxy.pull.direct import DirectPull, Door
from docxy.pull.interfaces import IPull
from docxy.routing import Router
from docxy.upstream.authorize import ClientAuthorizer, OwnAuthorizer
from docxy.upstream.fetch import Fetcher
from docxy.upstream.relay import TokenRelay
from docxy.upstream.remote import Remote
from docxy.upstream.tokens import Realms, Tokens, TokenService
from docxy.web.site import make_site
from docxy.web.token import Token
from docxy.web.v2 import V2


def build_site(config: Config, public_url: str, agent: IAgent, clock: IReactorTime) -> Site:
    """The registry's site.

    `public_url`: without a trailing slash; realm is built from it.
    """
    ours = urlsplit(public_url)
    router = Router(config.upstreams, ourselves=[name for name in (ours.netloc, ours.hostname) if name])
    realms = Realms(PublicSuffixList())
    fetcher = Fetcher(agent, clock, config.timeouts)
    pulls: dict[str, IPull] = {}
    for upstream in config.upstreams:
        pulls[upstream.name] = _pull(config, upstream, public_url, fetcher, realms, clock)
    return make_site(router, V2(router, pulls, clock, config.timeouts.client), Token(router, pulls))


def _pull(
    config: Config, upstream: Upstream, public_url: str, fetcher: Fetcher, realms: Realms, clock: IReactorTime
) -> IPull:
    service = TokenService(upstream, fetcher, realms)
    if config.auth is AuthMode.NONE:
        remote = Remote(upstream, fetcher, OwnAuthorizer(Tokens(service, clock), upstream.name))
        return DirectPull(remote, Door(remote, None, None, clock))
    relay = TokenRelay(upstream, fetcher, service, clock)
    authorizer = ClientAuthorizer(f"{public_url}/auth/token", upstream.name, relay.saw)
    remote = Remote(upstream, fetcher, authorizer)
    return DirectPull(remote, Door(remote, relay, authorizer, clock))
