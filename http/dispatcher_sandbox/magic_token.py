"""Push tokens that fail on purpose: ``sandbox-``, the name of a trick, optionally a number, optionally more after a hyphen.

``sandbox-soft-3-order17`` fails softly three times, then is accepted. Tricks that every provider plays alike are here; each adds
those that only it knows. The number means what it means for e-mail addresses, see ``magic``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dispatcher_sandbox.magic import TABLE, Magic, Trick

PREFIX = "sandbox-"
_ALIKE = ("delivered", "soft", "always-soft", "rate-limited", "status", "drop", "always-drop", "close", "silent", "slow")
COMMON: Mapping[str, Magic] = MappingProxyType({name: TABLE[name] for name in _ALIKE})
"""The tricks of every push provider."""


def magic_token(token: str, table: Mapping[str, Magic]) -> Magic | None:
    """The row a token names, or None for an ordinary one."""
    if not token.startswith(PREFIX):
        return None
    words = token[len(PREFIX) :].split("-")
    for length in (3, 2, 1):
        row = table.get("-".join(words[:length]))
        if row is None:
            continue
        number = words[length] if len(words) > length else ""
        if not (number.isascii() and number.isdecimal() and len(number) <= 6):
            return row
        if row is table.get("status"):
            return row._replace(status=int(number)) if 300 <= int(number) <= 599 else None
        if row.trick is Trick.SLOW:
            return row._replace(delay_s=float(min(int(number), 3600)))
        return row._replace(times=int(number))
    return None
