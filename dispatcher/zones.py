"""Time zones by their IANA names. Invariant: what is no zone is None here and never an exception, whatever the text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}")
_NOT_OF_THE_WORLD = frozenset({"localtime", "posixrules", "Factory", "leapseconds", "tzdata", "posix", "right"})
"""Files that stand beside the zones in a zone database, and change with the machine or are none."""

ZONE_RULE = "must be a time zone of the IANA database, such as America/Sao_Paulo"
"""What a field that names a zone must be."""


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo | None:
    """The zone of this name, or None. Zones are read once and kept."""
    if _NAME.fullmatch(name) is None or name.partition("/")[0] in _NOT_OF_THE_WORLD:
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # not there; a folder; a file of something else
        return None


def is_zone(value: Any) -> bool:
    """Whether it can be stored as a zone: a text that names one."""
    return isinstance(value, str) and zone_named(value) is not None
