"""The ports beside the registry's, for those whom `[access]` lets in.

The law: an address that may not use the registry may not use what stands beside it either; a port that
answers this machine's own programs goes on doing so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from twisted.web.resource import IResource, Resource

from docxy.access.open_gate import check_address
from docxy.addresses import Perimeter, peer
from docxy.errors import Denied
from docxy.web.request import Request


class Guarded(Resource):
    """A tree of resources behind a perimeter."""

    def __init__(self, root: IResource, perimeter: Callable[[], Perimeter], local: bool) -> None:
        """`perimeter`: the one in force.

        `local`: whether the machine's own addresses come in without a look at the lists.
        """
        Resource.__init__(self)
        self._root = root
        self._perimeter = perimeter
        self._local = local
        self.isLeaf = root.isLeaf

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        refusal = self._refusal(request)
        return self._root.getChildWithDefault(path, request) if refusal is None else _Refusing(refusal)

    def render(self, request: Request) -> object:
        refusal = self._refusal(request)
        return (self._root if refusal is None else _Refusing(refusal)).render(request)

    def _refusal(self, request: Request) -> Denied | None:
        if self._local and _is_local(peer(request.client)):
            return None
        try:
            check_address(self._perimeter(), request, request.path[:80].decode("ascii", "replace"))
        except Denied as error:
            return error
        return None


class _Refusing(Resource):
    isLeaf = True

    def __init__(self, error: Denied) -> None:
        Resource.__init__(self)
        self._error = error

    def render(self, request: Request) -> int:
        return request.refuse(self._error)


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
