"""How many segments a text message is sent in, which is what it costs.

A text whose characters are all in the GSM 7-bit default alphabet (3GPP TS 23.038, section 6.2.1) travels in septets; those of the
extension table take two. One other character, and the whole text travels in UCS-2, two bytes a code unit. What does not fit into
one segment goes in several, each with a header that takes room. Invariant: nothing that takes two units is cut in two, as phones
can not put it together again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from attrs import frozen

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = frozenset("\f^{}\\[~]|€")

GSM_UNITS: Final = (160, 153)
"""Septets that one segment has room for: alone, and as one of several."""
UCS2_UNITS: Final = (70, 67)
"""Code units that one segment has room for: alone, and as one of several."""


class Encoding(StrEnum):
    """How the characters of a text message travel."""

    GSM7 = "gsm-7"
    UCS2 = "ucs-2"


@frozen
class Segments:
    """``units`` are septets or UTF-16 code units, ``count`` is how many segments are sent and paid for."""

    encoding: Encoding
    units: int
    count: int

    def document(self) -> dict[str, object]:
        """As it is shown."""
        return {"encoding": self.encoding.value, "units": self.units, "segments": self.count}


def segments_of(text: str) -> Segments:
    """The segments of a text as a phone network counts them. An empty text is one segment."""
    characters = set(text)
    if characters <= _BASIC | _EXTENSION:
        return _counted(Encoding.GSM7, [2 if character in _EXTENSION else 1 for character in text], *GSM_UNITS)
    return _counted(Encoding.UCS2, [2 if character > "\uffff" else 1 for character in text], *UCS2_UNITS)


def _counted(encoding: Encoding, widths: list[int], alone: int, among_several: int) -> Segments:
    units = sum(widths)
    if units <= alone:
        return Segments(encoding, units, 1)
    count, left = 1, among_several
    for width in widths:
        if width > left:
            count, left = count + 1, among_several
        left -= width
    return Segments(encoding, units, count)
