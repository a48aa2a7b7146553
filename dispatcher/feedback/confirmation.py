"""What reports say in the end of one notification: the furthest state wins, whatever order they come in.

``status`` of a notification tells what we did, up to handing it to the provider; this tells what became of it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from dispatcher.feedback.feedback import Feedback, FeedbackKind

RANKS: Mapping[FeedbackKind, int] = MappingProxyType(
    {
        FeedbackKind.SENT: 10,
        FeedbackKind.SOFT_BOUNCED: 20,
        FeedbackKind.DELIVERED: 30,
        FeedbackKind.READ: 40,
        # A mail server may take a message and send it back later: what failed in the end, failed.
        FeedbackKind.REFUSED: 50,
        FeedbackKind.BOUNCED: 60,
        FeedbackKind.INVALID: 70,
        FeedbackKind.COMPLAINED: 80,
    }
)
"""How far each kind of report is. Those that are not here say nothing about what became of the message."""


@frozen
class Confirmation:
    """The furthest state of a notification that was reported, and the first report of it."""

    state: FeedbackKind
    at_unix_s: float
    code: str


def confirmation_of(report: Feedback) -> Confirmation | None:
    """What one report says of its notification."""
    return Confirmation(report.kind, report.at_unix_s, report.code) if report.kind in RANKS else None


def furthest(one: Confirmation | None, other: Confirmation | None) -> Confirmation | None:
    """Of two, the one further on; of two equally far, the earlier."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=_order)


def _order(confirmation: Confirmation) -> tuple[int, float, str]:
    return RANKS[confirmation.state], -confirmation.at_unix_s, confirmation.code
