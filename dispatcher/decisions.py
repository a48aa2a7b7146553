"""Why a notification is sent, not sent, late, in these words or by this provider: a chain of decisions, each with a code.

The chain of an event's notification is made once, when the event is taken in, and kept with it; a dry run makes the same chain by
the same functions and keeps nothing. Codes are a closed set, each of one step. Invariant: a decision names things of the set-up
(rules, topics, locales, channels) and ids, never a recipient or content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from attrs import field, frozen


class Step(StrEnum):
    """What is decided, in the order in which it is."""

    RULE = "rule"
    RECIPIENT = "recipient"
    PREFERENCE = "preference"
    CONTACT = "contact"
    PROVIDER = "provider"
    LOCALE = "locale"
    TEMPLATE = "template"
    TIME = "time"
    CAP = "cap"
    RATE = "rate"
    ATTEMPT = "attempt"
    """From here on it is what happened, told after the decisions, not decided when it was taken in."""
    FEEDBACK = "feedback"
    HAND = "hand"
    STATE = "state"


class Code(StrEnum):
    """What was decided. Some end the chain: nothing is sent then (``ENDS``)."""

    RULE_MATCHED = "rule_matched"
    RULE_CONDITION_FALSE = "rule_condition_false"
    RULE_DISABLED = "rule_disabled"
    RULE_NONE = "rule_none"
    """There is no rule for events of this type."""
    RULE_DIRECT = "rule_direct"
    """It was handed in as a notification, so no rule was asked."""

    RECIPIENT_GIVEN = "recipient_given"
    RECIPIENT_OF_USER = "recipient_of_user"
    RECIPIENT_UNKNOWN = "recipient_unknown"
    """There is no such user, or the event names nobody."""
    RECIPIENT_NO_CONTACT_POINT = "recipient_no_contact_point"
    RECIPIENT_EXPIRED = "recipient_expired"
    """The only contact points are push tokens whose time has passed."""
    RECIPIENT_NOT_NEEDED = "recipient_not_needed"
    """An earlier channel of a rule that uses the first usable one reaches them already."""

    PREFERENCE_DEFAULT = "preference_default"
    PREFERENCE_ALLOWED = "preference_allowed"
    PREFERENCE_DENIED = "preference_denied"
    PREFERENCE_CRITICAL = "preference_critical"
    """The topic is critical: it is sent whatever the person prefers."""
    PREFERENCE_NO_TOPIC = "preference_no_topic"

    CONTACT_USABLE = "contact_usable"
    CONTACT_IGNORED = "contact_ignored"
    """It has bounced or opted out, and the producer said to send all the same."""
    CONTACT_BOUNCED = "contact_bounced"
    CONTACT_COMPLAINED = "contact_complained"
    CONTACT_UNSUBSCRIBED = "contact_unsubscribed"
    CONTACT_INVALID = "contact_invalid"

    PROVIDER_CONFIGURED = "provider_configured"
    PROVIDER_NONE = "provider_none"

    LOCALE_REQUESTED = "locale_requested"
    LOCALE_SHORTENED = "locale_shortened"
    LOCALE_ORGANIZATION = "locale_organization"
    LOCALE_TEMPLATE = "locale_template"

    TEMPLATE_USED = "template_used"
    TEMPLATE_CONTENT = "template_content"
    """It was handed in with its words, so no template was asked."""
    TEMPLATE_NONE = "template_none"
    TEMPLATE_FAILED = "template_failed"
    """It can not be rendered with these variables; the detail names the fault."""

    TIME_NOW = "time_now"
    TIME_DELAYED = "time_delayed"
    TIME_SEND_AT = "time_send_at"
    TIME_RELATIVE = "time_relative"
    TIME_WINDOW = "time_window"
    TIME_QUIET_HOURS = "time_quiet_hours"
    TIME_CRITICAL = "time_critical"
    """It is sent at once in spite of quiet hours or a window."""
    TIME_DIGEST = "time_digest"
    TIME_EXPIRED = "time_expired"
    TIME_MISSING = "time_missing"
    """The date it is to be relative to is not in the event, or is none."""

    CAP_NONE = "cap_none"
    CAP_WITHIN = "cap_within"
    CAP_REACHED = "cap_reached"
    CAP_CRITICAL = "cap_critical"

    RATE_UNLIMITED = "rate_unlimited"
    RATE_LIMITED = "rate_limited"
    """The provider's account has a limit, so it may wait for its turn."""

    ATTEMPT_DELIVERED = "attempt_delivered"
    ATTEMPT_SOFT = "attempt_soft"
    ATTEMPT_RATE_LIMITED = "attempt_rate_limited"
    ATTEMPT_HARD = "attempt_hard"
    ATTEMPT_SUPPRESS = "attempt_suppress"
    ATTEMPT_MISCONFIGURED = "attempt_misconfigured"
    ATTEMPT_UNKNOWN = "attempt_unknown"
    ATTEMPT_UNRESOLVED = "attempt_unresolved"
    """As :class:`~dispatcher.outcome.OutcomeClass` says; one that was interrupted never began."""

    FEEDBACK_DEFERRED = "feedback_deferred"
    FEEDBACK_SENT = "feedback_sent"
    FEEDBACK_DELIVERED = "feedback_delivered"
    FEEDBACK_READ = "feedback_read"
    FEEDBACK_BOUNCED = "feedback_bounced"
    FEEDBACK_SOFT_BOUNCED = "feedback_soft_bounced"
    FEEDBACK_REFUSED = "feedback_refused"
    FEEDBACK_COMPLAINED = "feedback_complained"
    FEEDBACK_UNSUBSCRIBED = "feedback_unsubscribed"
    FEEDBACK_RESUBSCRIBED = "feedback_resubscribed"
    FEEDBACK_INVALID = "feedback_invalid"
    """As the provider reported it: see :class:`~dispatcher.feedback.feedback.FeedbackKind`."""

    HAND_REQUEUED = "hand_requeued"
    HAND_DISCARDED = "hand_discarded"
    """What somebody did to its dead letter."""

    STATE_SCHEDULED = "state_scheduled"
    STATE_QUEUED = "state_queued"
    STATE_SENDING = "state_sending"
    STATE_DELIVERED = "state_delivered"
    STATE_FAILED = "state_failed"
    STATE_CANCELED = "state_canceled"
    """How it stands now."""


_STEPS: Final = {code: Step(code.value.partition("_")[0]) for code in Code}
ENDS: Final = frozenset(
    {
        Code.RULE_CONDITION_FALSE,
        Code.RULE_DISABLED,
        Code.RULE_NONE,
        Code.RECIPIENT_UNKNOWN,
        Code.RECIPIENT_NO_CONTACT_POINT,
        Code.RECIPIENT_EXPIRED,
        Code.RECIPIENT_NOT_NEEDED,
        Code.PREFERENCE_DENIED,
        Code.CONTACT_BOUNCED,
        Code.CONTACT_COMPLAINED,
        Code.CONTACT_UNSUBSCRIBED,
        Code.CONTACT_INVALID,
        Code.PROVIDER_NONE,
        Code.TEMPLATE_NONE,
        Code.TEMPLATE_FAILED,
        Code.TIME_EXPIRED,
        Code.TIME_MISSING,
        Code.CAP_REACHED,
    }
)
"""After these nothing is sent."""

_NO_DETAIL: Mapping[str, Any] = MappingProxyType({})


@frozen
class Decision:
    """One link of a chain. ``detail`` holds names of the set-up, ids, codes and numbers, as JSON."""

    step: Step
    code: Code
    detail: Mapping[str, Any] = field(default=_NO_DETAIL)

    def document(self) -> dict[str, Any]:
        """As it is kept and shown."""
        link = _LINKS[self.code]
        return {**link, "detail": dict(self.detail)} if self.detail else link.copy()


def decided(code: Code, **detail: Any) -> Decision:
    """The decision of that code. Details that are None are left out."""
    if not detail:
        return _PLAIN[code]
    if None in detail.values():
        detail = {name: value for name, value in detail.items() if value is not None}
    return Decision(_STEPS[code], code, detail)


def step_of(code: Code) -> Step:
    """The step a code belongs to."""
    return _STEPS[code]


# Nine or ten links are made and written for every notification, so nothing is looked up in an enumeration then.
_PLAIN: Final = {code: Decision(step, code) for code, step in _STEPS.items()}
_LINKS: Final = {code: {"step": step.value, "code": code.value} for code, step in _STEPS.items()}


def ends(chain: Sequence[Decision]) -> bool:
    """Whether nothing is sent."""
    return any(decision.code in ENDS for decision in chain)
