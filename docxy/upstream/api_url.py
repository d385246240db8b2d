"""Where a registry's API lies under the URL that an operator wrote.

Pure.  The law: a path is read as in an image's name, so it stands in front of each repository, as for
Harbor's and Artifactory's proxy projects and another docxy (`https://harbor.example/hub`).  A path that
holds `/v2` says itself where the API is: what is before it stays there (`https://art.example/api/hub/v2`).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import frozen


@frozen
class ApiUrl:
    """One URL of an upstream, ready to be asked."""

    root: str
    """What comes before `/v2/`."""
    prefix: str
    """What comes before each repository: empty, or with a slash at its end."""

    @classmethod
    def of(cls, url: str) -> ApiUrl:
        """`url`: scheme, host and perhaps a path."""
        parts = urlsplit(url)
        segments = [segment for segment in parts.path.split("/") if segment]
        place = segments.index("v2") if "v2" in segments else -1
        before, after = (segments[:place], segments[place + 1 :]) if place >= 0 else ([], segments)
        root = "/".join([f"{parts.scheme}://{parts.netloc}", *before])
        return cls(root, "".join(f"{segment}/" for segment in after))

    @property
    def ping(self) -> str:
        return f"{self.root}/v2/"

    def url(self, repository: str, rest: str) -> str:
        """`rest`: `manifests/latest`, with a query where it has one."""
        return f"{self.root}/v2/{self.prefix}{repository}/{rest}"

    def scope(self, repository: str) -> str:
        """The scope of a token to pull from a repository."""
        return f"repository:{self.prefix}{repository}:pull"

    def scoped(self, scopes: str) -> str:
        """The scopes of a client's token request as the upstream knows them; those it wrote itself stay."""
        return " ".join(self._scoped(scope) for scope in scopes.split())

    def _scoped(self, scope: str) -> str:
        kind, _, name = scope.partition(":")
        return scope if kind != "repository" or name.startswith(self.prefix) else f"{kind}:{self.prefix}{name}"

    def unscoped(self, scopes: str) -> str:
        """The upstream's scopes as docxy's clients know the repositories."""
        start = f"repository:{self.prefix}"
        return " ".join(
            f"repository:{scope.removeprefix(start)}" if scope.startswith(start) else scope for scope in scopes.split()
        )
