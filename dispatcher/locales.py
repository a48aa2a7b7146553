"""Language tags (BCP 47): whether one is well formed, its usual spelling, and which to try when the wanted one is missing.

Tags are compared in their usual spelling: language in lower case, script capitalised, region in upper case, the rest in lower
case (``zh-Hant-TW``). What is wanted is looked up by leaving out subtags from the right (RFC 4647, section 3.4). Invariant:
normalising a normal tag changes nothing, and a chain never names a tag twice.
"""

from __future__ import annotations

import re
from functools import lru_cache

TAG_LENGTH_MAX = 64

_TAG = re.compile(
    r"(?P<language>[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})"
    r"(?:-(?P<script>[a-z]{4}))?"
    r"(?:-(?P<region>[a-z]{2}|\d{3}))?"
    r"(?P<variants>(?:-(?:[a-z0-9]{5,8}|\d[a-z0-9]{3}))*)"
    r"(?P<extensions>(?:-[0-9a-wy-z](?:-[a-z0-9]{2,8})+)*)"
    r"(?P<private>-x(?:-[a-z0-9]{1,8})+)?"
)


def normalize(tag: str) -> str | None:
    """The usual spelling of a well-formed tag, or None. An underscore counts as a hyphen.

    Tags that RFC 5646 keeps for old times' sake only (``i-klingon``) and wholly private ones (``x-…``) are not taken.
    """
    if len(tag) > TAG_LENGTH_MAX or not tag.isascii():
        return None
    match = _TAG.fullmatch(tag.lower().replace("_", "-"))
    if match is None:
        return None
    variants = match["variants"].split("-")[1:]
    singletons = re.findall(r"-([0-9a-z])(?=-)", match["extensions"])
    if len(set(variants)) < len(variants) or len(set(singletons)) < len(singletons):
        return None
    script = f"-{match['script'].capitalize()}" if match["script"] else ""
    region = f"-{match['region'].upper()}" if match["region"] else ""
    return f"{match['language']}{script}{region}{match['variants']}{match['extensions']}{match['private'] or ''}"


@lru_cache(maxsize=4096)
def chain(requested: str | None, organization_default: str, template_default: str | None = None) -> tuple[str, ...]:
    """The tags to try in order: the requested one and what is left of it, then the organization's, then the template's own.

    All arguments are normal tags. ``template_default`` is the locale a template has at least.
    """
    wanted = (requested, organization_default, template_default)
    return tuple(dict.fromkeys(tag for start in wanted if start is not None for tag in _shortened(start)))


def _shortened(tag: str) -> list[str]:
    """The tag and what remains when subtags are left out from the right. What remains never ends in a single letter."""
    subtags = tag.split("-")
    ends = (end for end in range(len(subtags) - 1, 0, -1) if len(subtags[end - 1]) > 1)
    return [tag, *("-".join(subtags[:end]) for end in ends)]
