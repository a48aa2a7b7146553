"""A Lua script and the digest the server knows it by."""

from __future__ import annotations

from hashlib import sha1

from attrs import field, frozen


@frozen
class Script:
    """Called by its digest; its source travels only to a server that does not have it."""

    source: str = field(repr=False)
    sha: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.source.encode(), usedforsecurity=False).hexdigest())
