"""What SES's events mean, as tables. The names are those of its developer guide."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dispatcher.feedback.feedback import FeedbackKind


class Meaning(NamedTuple):
    """What an event is to us."""

    kind: FeedbackKind
    code: str


class Shape(NamedTuple):
    """Where an event keeps what it tells: the name of its object, and of the list of recipients in it.

    Without a list it is about everybody the mail went to.
    """

    object: str
    recipients: str = ""


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "Bounce": Shape("bounce", "bouncedRecipients"),
        "Complaint": Shape("complaint", "complainedRecipients"),
        "Delivery": Shape("delivery", "recipients"),
        "DeliveryDelay": Shape("deliveryDelay", "delayedRecipients"),
        "Reject": Shape("reject"),
        "Rendering Failure": Shape("failure"),
        "Open": Shape("open"),
        "Click": Shape("click"),
        "Subscription": Shape("subscription"),
    }
)
"""By ``notificationType`` or ``eventType``. One that is not here, such as ``Send``, tells nothing that the answer did not."""

PLAIN: Mapping[str, Meaning] = MappingProxyType(
    {
        "Delivery": Meaning(FeedbackKind.DELIVERED, "delivered"),
        "DeliveryDelay": Meaning(FeedbackKind.DEFERRED, "delayed"),
        "Reject": Meaning(FeedbackKind.REFUSED, "rejected"),
        "Rendering Failure": Meaning(FeedbackKind.REFUSED, "rendering_failed"),
        "Open": Meaning(FeedbackKind.READ, "opened"),
        "Click": Meaning(FeedbackKind.READ, "clicked"),
    }
)
"""Events that always mean the same."""

BOUNCES: Mapping[tuple[str, str], Meaning] = MappingProxyType(
    {
        ("Permanent", "General"): Meaning(FeedbackKind.BOUNCED, "bounced"),
        ("Permanent", "NoEmail"): Meaning(FeedbackKind.BOUNCED, "no_such_mailbox"),
        ("Permanent", "Suppressed"): Meaning(FeedbackKind.BOUNCED, "suppressed_by_ses"),
        ("Permanent", "OnAccountSuppressionList"): Meaning(FeedbackKind.BOUNCED, "on_suppression_list"),
        ("Permanent", "UnsubscribedRecipient"): Meaning(FeedbackKind.UNSUBSCRIBED, "unsubscribed"),
        ("Transient", "General"): Meaning(FeedbackKind.SOFT_BOUNCED, "not_delivered"),  # automatic replies are among these
        ("Transient", "MailboxFull"): Meaning(FeedbackKind.SOFT_BOUNCED, "mailbox_full"),
        ("Transient", "MessageTooLarge"): Meaning(FeedbackKind.REFUSED, "message_too_large"),
        ("Transient", "ContentRejected"): Meaning(FeedbackKind.REFUSED, "content_rejected"),
        ("Transient", "AttachmentRejected"): Meaning(FeedbackKind.REFUSED, "attachment_rejected"),
        ("Undetermined", "Undetermined"): Meaning(FeedbackKind.SOFT_BOUNCED, "undetermined"),
    }
)
"""By ``bounceType`` and ``bounceSubType``."""

BOUNCE_TYPES: Mapping[str, Meaning] = MappingProxyType(
    {
        "Permanent": Meaning(FeedbackKind.BOUNCED, "bounced"),
        "Transient": Meaning(FeedbackKind.SOFT_BOUNCED, "not_delivered"),
    }
)
"""By ``bounceType`` alone, for a ``bounceSubType`` that is new."""
BOUNCE_DEFAULT: Final = Meaning(FeedbackKind.SOFT_BOUNCED, "undetermined")
"""A type that is new suppresses nobody by itself."""

COMPLAINTS: Mapping[str, Meaning | None] = MappingProxyType(
    {
        "abuse": Meaning(FeedbackKind.COMPLAINED, "complaint_abuse"),
        "auth-failure": Meaning(FeedbackKind.COMPLAINED, "complaint_auth_failure"),
        "fraud": Meaning(FeedbackKind.COMPLAINED, "complaint_fraud"),
        "not-spam": None,  # the opposite of a complaint: somebody took the mail out of the junk
        "other": Meaning(FeedbackKind.COMPLAINED, "complaint_other"),
        "virus": Meaning(FeedbackKind.COMPLAINED, "complaint_virus"),
    }
)
"""By ``complaintFeedbackType``, which most do not tell."""
COMPLAINT_DEFAULT: Final = Meaning(FeedbackKind.COMPLAINED, "complaint")
COMPLAINT_LISTED: Final = Meaning(FeedbackKind.COMPLAINED, "on_suppression_list")
"""The mail was not even sent on: the address had complained before."""

OPTED_OUT: Final = Meaning(FeedbackKind.UNSUBSCRIBED, "unsubscribed")
OPTED_IN: Final = Meaning(FeedbackKind.RESUBSCRIBED, "resubscribed")


def meaning_of(kind: str, told: Mapping[str, Any]) -> Meaning | None:
    """What an event means by the tables above; None for nothing. ``told`` is its object. Subscriptions are read elsewhere."""
    if kind == "Bounce":
        bounce_type, sub_type = _text(told.get("bounceType")), _text(told.get("bounceSubType"))
        return BOUNCES.get((bounce_type, sub_type)) or BOUNCE_TYPES.get(bounce_type, BOUNCE_DEFAULT)
    if kind == "Complaint":
        if told.get("complaintSubType") == "OnAccountSuppressionList":
            return COMPLAINT_LISTED
        return COMPLAINTS.get(_text(told.get("complaintFeedbackType")), COMPLAINT_DEFAULT)
    return PLAIN.get(kind)


def preferences_of(told: Mapping[str, Any]) -> list[tuple[Meaning, str | None]]:
    """What a ``Subscription`` event says somebody wants now: of everything (None), or of topics by their names."""
    wanted, before = (_object(told.get(name)) for name in ("newTopicPreferences", "oldTopicPreferences"))
    if wanted.get("unsubscribeAll") is True:
        return [(OPTED_OUT, None)]
    found: list[tuple[Meaning, str | None]] = [(OPTED_IN, None)] if before.get("unsubscribeAll") is True else []
    topics = wanted.get("topicSubscriptionStatus")
    for topic in topics if isinstance(topics, list) else ():
        name, status = (_object(topic).get(part) for part in ("topicName", "subscriptionStatus"))
        if isinstance(name, str) and 0 < len(name) <= 64 and status in ("OptIn", "OptOut"):
            found.append((OPTED_IN if status == "OptIn" else OPTED_OUT, name))
    return found


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
