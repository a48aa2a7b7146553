"""Layouts: sources that an organization's templates have in common, as what they are wrapped in or include."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import field, frozen


@frozen
class Layout:
    """One layout by its name. ``text`` is for plain parts, ``html`` for parts that escape; at least one is there."""

    name: str
    text: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)


Library = Mapping[str, Layout]
"""An organization's layouts by name."""

NO_LIBRARY: Final[Library] = MappingProxyType({})
