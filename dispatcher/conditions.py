"""The expressions of rules: conditions on an event, and values taken out of it.

They are the expressions of the template language (``template_language``), compiled and run in the same sandbox within a budget,
so they can neither loop nor reach anything but what they are given. What an event does not have is null here, not an error: a
condition about it is false. Invariant: evaluating ends after bounded work with a value or an :class:`ExpressionError`, and the
error names no content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Expression(Protocol):
    """A compiled expression. ``source`` is how it was written."""

    source: str

    def value(self, variables: Mapping[str, Any]) -> Any:
        """What it gives: JSON, None where something is not there. Raises ExpressionError."""

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Whether it is true."""
