"""Topics: what people can have preferences about. One is a definition of the kind ``topic``."""

from __future__ import annotations

from attrs import frozen

from dispatcher.model import Channel


@frozen
class Topic:
    """One topic. Without a preference it is sent by the channels of ``default``.

    A ``critical`` one is sent whatever the person prefers, whatever the hour and the caps; only a contact that can not or may not
    be used stops it.
    """

    name: str
    title: str = ""
    critical: bool = False
    default: frozenset[Channel] = frozenset(Channel)
