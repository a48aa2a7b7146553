"""Identifiers: UUIDv7 (RFC 9562) as its canonical 36-character text.

The leading 48 bits are Unix milliseconds, so new rows touch the right edge of an index and ids sort by age; the other 74 free
bits are random. Invariant: for equal ``random_bits`` a later millisecond sorts after an earlier one, as text and as bytes.
"""

from __future__ import annotations

import re

RANDOM_BITS = 74
"""How many random bits one id takes."""

_MS_END = 1 << 48
_RANDOM_END = 1 << RANDOM_BITS
_LOW_MASK = (1 << 62) - 1
_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid7(now_ms: int, random_bits: int) -> str:
    """One identifier from Unix milliseconds and ``RANDOM_BITS`` random bits. Raises ValueError when either does not fit."""
    if not (0 <= now_ms < _MS_END and 0 <= random_bits < _RANDOM_END):
        raise ValueError("now_ms must fit 48 bits and random_bits 74")
    digits = f"{now_ms << 80 | _VERSION | random_bits >> 62 << 64 | _VARIANT | random_bits & _LOW_MASK:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid7_ms(id: str) -> int:
    """The Unix milliseconds in a UUIDv7. Raises ValueError for anything else."""
    if not is_uuid(id) or id[14] != "7":
        raise ValueError("not a UUIDv7")
    return int(id[:8] + id[9:13], 16)


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID of any version in canonical form: lower case, with hyphens, nothing around it."""
    return _CANONICAL.fullmatch(text) is not None
