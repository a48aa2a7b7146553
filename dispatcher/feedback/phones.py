"""What reports about phone numbers have in common, whoever sends them: numbers, words that opt out, our ids in a query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.model import NotificationId
from dispatcher.outcome import OutcomeClass
from dispatcher.problems import Problem
from dispatcher.providers.error_table import Row

STOP_WORDS: Final = frozenset(
    {"STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "OPT OUT"}
)
"""A message that consists of one of these opts out; carriers and Twilio act on the same words."""
START_WORDS: Final = frozenset({"START", "UNSTOP", "YES"})
"""A message that consists of one of these opts in again."""

_NUMBER = re.compile(r"[1-9][0-9]{6,14}")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_QUERY_FIELDS_MAX = 100


def number_of(text: object) -> str | None:
    """A number in E.164 form, with or without ``whatsapp:`` and ``+`` in front; None for anything else."""
    if not isinstance(text, str):
        return None
    digits = text.removeprefix("whatsapp:").removeprefix("+")
    return f"+{digits}" if _NUMBER.fullmatch(digits) else None


def opting(text: object) -> tuple[FeedbackKind, str] | None:
    """What a message means for whether its sender wants any: nothing, unless it consists of one of the words."""
    word = " ".join(text.upper().split()).rstrip(".!") if isinstance(text, str) and len(text) <= 40 else ""
    if word in STOP_WORDS:
        return FeedbackKind.UNSUBSCRIBED, "stop_received"
    if word in START_WORDS:
        return FeedbackKind.RESUBSCRIBED, "start_received"
    return None


def failed_as(row: Row, counts: bool) -> FeedbackKind:
    """What a message that failed for this reason says about its recipient. ``counts`` if it may be the recipient's fault."""
    if row.kind is OutcomeClass.SUPPRESS:
        return FeedbackKind.INVALID
    return FeedbackKind.SOFT_BOUNCED if counts else FeedbackKind.REFUSED


def query_fields(query: str) -> Mapping[str, str]:
    """The fields of a query, the last of a repeated one; none when it is not to be read."""
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX))
    except ValueError:
        return {}


def notification_id_in(query: str) -> NotificationId | None:
    """The id that a request of ours has put there."""
    id = query_fields(query).get("notification_id", "")
    return NotificationId(id) if _ID.fullmatch(id) else None


def refused(status: int, code: str, detail: str) -> Problem:
    """Why a report is not taken in."""
    return Problem(status, code, "The report can not be used", detail)
