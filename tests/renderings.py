"""A rendering for testing what templates may do with values, without a template."""

from __future__ import annotations

from attrs import define, field

from dispatcher.localization import NEUTRAL, Localization
from dispatcher.template_limits import Budget

STEPS = 1_000_000


@define
class Rendering:
    """All that a function of the template language sees. ``spent`` is what it has cost so far."""

    autoescape: bool = False
    constants: frozenset[str] = frozenset()
    localization: Localization = NEUTRAL
    rtl: bool = False
    budget: Budget = field(factory=lambda: Budget(STEPS, 100_000))

    @property
    def spent(self) -> int:
        return STEPS - self.budget.steps_left
