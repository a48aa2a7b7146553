"""A provider's error codes as data: one row a code, a default for each range, and one for all others.

Providers split and add codes without notice, so a code without a row falls to the default of its range. The words of a row say
what happened and what to do about it, for people who never read the provider's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from attrs import frozen

from dispatcher.outcome import Outcome, OutcomeClass, RateScope

Code = TypeVar("Code", int, str)


class Row(NamedTuple):
    """What one error means. ``code`` is ours, as in an outcome; the rest are fields of the outcome."""

    kind: OutcomeClass
    code: str
    words: str
    retry_after_s: float | None = None
    scope: RateScope = RateScope.ACCOUNT
    attempts_max: int | None = None
    wait_s: float = 0.0

    def outcome(self, retry_after_s: float | None = None, since_unix_s: float | None = None) -> Outcome:
        """The outcome of this row; a hint of the provider lengthens the row's own."""
        hints = [hint for hint in (retry_after_s, self.retry_after_s) if hint is not None]
        return Outcome(
            self.kind, self.code, None, max(hints, default=None), self.scope, self.attempts_max, self.wait_s, since_unix_s
        )


class Range(NamedTuple):
    """The default of the codes from ``low`` to ``high``, both included. Its row's code is completed by the number."""

    low: int
    high: int
    row: Row


@frozen
class ErrorTable(Generic[Code]):
    """Rows by the provider's code."""

    rows: Mapping[Code, Row]
    ranges: Sequence[Range]
    other: Row

    @property
    def explanations(self) -> Mapping[str, str]:
        """The words by our codes, for ``Provider.explanations``."""
        return {row.code: row.words for row in self.rows.values()}

    def row(self, code: Code) -> Row:
        """The row of a code, of its range, or of all others."""
        row = self.rows.get(code)
        if row is not None:
            return row
        if isinstance(code, int):
            for low, high, default in self.ranges:
                if low <= code <= high:
                    return default._replace(code=f"{default.code}_{code}")
        return self.other
