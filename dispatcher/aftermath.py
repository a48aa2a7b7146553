"""What has happened to a notification since it was taken in, in the words of decisions: one code of a closed set for each thing.

Invariant: every outcome of an attempt that leaves a trace, every report and every state has a code; a test compares the sets.
"""

from __future__ import annotations

from typing import Any, Final

from dispatcher.decisions import Code, Decision, decided
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.model import Status
from dispatcher.outcome import OutcomeClass

CREATED: Final = "created"
"""Told by the decisions themselves."""
ATTEMPTS: Final = {kind.value: Code(f"attempt_{kind.value}") for kind in OutcomeClass if kind is not OutcomeClass.INTERRUPTED}
REPORTS: Final = {f"feedback.{kind.value}": Code(f"feedback_{kind.value}") for kind in FeedbackKind}
BY_HAND: Final = {"requeued": Code.HAND_REQUEUED, "discarded": Code.HAND_DISCARDED}
STATES: Final = {status: Code(f"state_{status.value}") for status in Status}
_CODES: Final = {**ATTEMPTS, **REPORTS, **BY_HAND}


def happened(event: str, **detail: Any) -> Decision | None:
    """One step of a notification's timeline, by its name there; None for what only repeats how it stands."""
    code = _CODES.get(event)
    return None if code is None else decided(code, **detail)


def stands(status: Status, **detail: Any) -> Decision:
    """How it stands."""
    return decided(STATES[status], **detail)
