"""The shipped presets: set-ups for the neighbouring domains, ready to install for an organization."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dispatcher.presets.integrations import INTEGRATIONS
from dispatcher.presets.payments import PAYMENTS
from dispatcher.presets.preset import Example, Preset, addition
from dispatcher.presets.reporting import REPORTING
from dispatcher.presets.ticketing import TICKETING

__all__ = ["PRESETS", "Example", "Preset", "addition"]

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {preset.name: preset for preset in (TICKETING, PAYMENTS, INTEGRATIONS, REPORTING)}
)
"""By their names."""
