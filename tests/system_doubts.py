"""What may be sent again although it may have been sent already: each channel's policy, judged at every call.

Part of ``tests/system_checker.py``. It counts the marks itself, as they appear in the rows.
"""

from __future__ import annotations

from collections import defaultdict

import trio
from attrs import define

from actors.memory_tables import Row
from dispatcher.messages import ProviderPolicy
from dispatcher.model import NotificationId, Status
from dispatcher.outcome import OnUnknown


@define
class Doubt:
    """Of one notification: when its present attempt passed the gate, all marks, and what nobody has decided about since."""

    gated_s: float = 0.0
    marks: int = 0
    unresolved: int = 0
    since_s: float = 0.0
    """When the first unresolved attempt passed the gate."""
    through: str | None = None
    """The configuration that is on record for the unresolved attempts."""


class Doubts:
    """The doubts about all notifications."""

    def __init__(self) -> None:
        self._doubts: dict[NotificationId, Doubt] = defaultdict(Doubt)

    def changed(self, row: Row, marks: int, *, by_hand: bool) -> None:
        """A row has changed. ``marks`` are those it carries now; ``by_hand``: a person has decided that it is sent again."""
        doubt = self._doubts[row.id]
        if row.status is Status.SENDING:
            doubt.gated_s = trio.current_time()
        if marks > doubt.marks:
            if not doubt.unresolved:
                doubt.since_s, doubt.through = doubt.gated_s, row.provider_config_id
            doubt.unresolved += marks - doubt.marks
            doubt.marks = marks
        if by_hand:
            doubt.unresolved = 0

    def strayed(self, id: NotificationId, config_id: str) -> str | None:
        """The configuration through which it may have been sent already, if this is another one."""
        doubt = self._doubts[id]
        return doubt.through if doubt.unresolved and doubt.through != config_id else None

    def objection(self, id: NotificationId, policy: ProviderPolicy, patience_s: float, *, denied: bool) -> str | None:
        """Why a call that begins now should not, ``patience_s`` at most after it was decided on. None when it may.

        ``denied``: the provider has just said that it knew nothing of the notification.
        """
        doubt = self._doubts[id]
        if not doubt.unresolved:
            return None
        if policy.on_unknown is OnUnknown.ASK:
            return None if denied else f"with {doubt.unresolved} attempts in doubt, without having asked the provider"
        if policy.on_unknown is OnUnknown.HOLD:
            return f"with {doubt.unresolved} attempts in doubt, which a person should have decided about"
        if policy.on_unknown is OnUnknown.RESEND and policy.key_retention_s is not None:
            age_s = trio.current_time() - doubt.since_s
            return f"{age_s:.0f} s after an attempt in doubt" if age_s > policy.key_retention_s + patience_s else None
        return f"with {doubt.marks} marks" if doubt.marks > 1 else None
