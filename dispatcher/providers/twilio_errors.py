"""Twilio's error codes, for messages of every channel: one table, read both of answers and of status callbacks.

Twilio splits codes over time, so each range has a default. A code whose reach is less than the account (a region, a template)
never counts as a fault of the account: it would stop everybody else's messages for one recipient's sake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dispatcher.outcome import OutcomeClass, RateScope
from dispatcher.providers.error_table import ErrorTable, Range, Row

_HARD, _SUPPRESS, _SOFT = OutcomeClass.HARD, OutcomeClass.SUPPRESS, OutcomeClass.SOFT
_RATE, _CONFIG, _UNKNOWN = OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED, OutcomeClass.UNKNOWN

DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0
HANDSET_OFF_WAIT_S: Final = 1_800.0
"""A phone that is switched off or out of reach is seldom back within minutes."""
OPTED_OUT: Final = 21610
"""Answered while the recipient's last word to this sender was STOP."""

BLOCKED_BY_RECIPIENT: Final = frozenset({63014, 63033})
"""A block is how people opt out of WhatsApp."""
SOFT_BOUNCES: Final = frozenset({30003, 30004, 30008, 30450})
"""Codes of a callback that count against the recipient, who may be reached another time."""


class _Entry(NamedTuple):
    """Codes that mean the same."""

    numbers: tuple[int, ...]
    kind: OutcomeClass
    name: str
    words: str
    more: Mapping[str, Any] = MappingProxyType({})


def _codes(*numbers: int) -> tuple[int, ...]:
    return numbers


_ONCE = {"attempts_max": 2}
_SENDER_SETUP = "Check from_number or messaging_service_sid against the senders of the account."

_ENTRIES: Final = (
    # --- the recipient ---
    _Entry(_codes(21211, 21217), _SUPPRESS, "number_invalid", "The number is not a valid phone number. Ask for another."),
    _Entry(_codes(21268), _SUPPRESS, "number_premium", "The number is a premium one, to which Twilio sends nothing."),
    _Entry(_codes(21614), _SUPPRESS, "number_not_mobile", "The number can not receive text messages."),
    _Entry(_codes(21635), _SUPPRESS, "number_landline", "The number is a landline."),
    _Entry(_codes(21610), _SUPPRESS, "opted_out", "The recipient has answered STOP to this sender; only their START ends that."),
    _Entry(_codes(21612), _HARD, "route_missing", "This sender can not reach this number. Another sender may."),
    _Entry(
        _codes(21408),
        _HARD,
        "region_disabled",
        "Sending to the number's region is switched off. Enable it in the account's messaging geographic permissions, "
        "then requeue what failed.",
    ),
    # --- sender, service and trial accounts ---
    _Entry(_codes(21212), _CONFIG, "sender_invalid", f"Twilio does not take the sender's number. {_SENDER_SETUP}"),
    _Entry(_codes(21601), _CONFIG, "sender_without_messages", f"The sender can not send messages of this kind. {_SENDER_SETUP}"),
    _Entry(_codes(21603), _CONFIG, "sender_missing", f"Twilio found no sender. {_SENDER_SETUP}"),
    _Entry(_codes(21606), _CONFIG, "sender_not_ours", f"The sender is not a number of this account. {_SENDER_SETUP}"),
    _Entry(_codes(21607), _CONFIG, "sender_not_for_trial", "A trial account sends from the number Twilio gave it only."),
    _Entry(_codes(21608), _CONFIG, "trial_recipient", "A trial account sends to verified numbers only. Upgrade it."),
    _Entry(_codes(21616), _CONFIG, "sender_ambiguous", f"Several numbers of the account fit the sender. {_SENDER_SETUP}"),
    _Entry(_codes(21659, 21660, 21661), _CONFIG, "sender_mismatch", f"Account and sender do not fit. {_SENDER_SETUP}"),
    _Entry(_codes(21701, 21705), _CONFIG, "service_unknown", "There is no such Messaging Service. Check messaging_service_sid."),
    _Entry(_codes(21703, 21704), _CONFIG, "service_empty", "The Messaging Service has no sender for this. Add one to its pool."),
    _Entry(_codes(21910), _CONFIG, "channel_mismatch", "Sender and recipient are of different channels. Check from_number."),
    # --- the message ---
    _Entry(_codes(21602, 21619), _HARD, "body_missing", "The message has neither text nor media nor template."),
    _Entry(_codes(21604), _HARD, "recipient_missing", "The message names no recipient."),
    _Entry(_codes(21605, 21617), _HARD, "body_too_long", "The text is too long: 1600 characters are the most. Shorten it."),
    _Entry(_codes(21609), _HARD, "callback_invalid", "Twilio can not use the status callback. Check status_callback_url."),
    _Entry(_codes(21618), _HARD, "body_invalid", "Twilio refuses to send this text."),
    _Entry(_codes(21620, 21621, 21623), _HARD, "media_invalid", "The media of the message can not be used."),
    _Entry(_codes(21654, 21655), _HARD, "content_sid_invalid", "The template's content SID does not exist. Check content_sids."),
    _Entry(_codes(21656, 21664), _HARD, "content_variables_invalid", "The template's parameters do not fit it."),
    # --- how fast ---
    _Entry(
        _codes(21611), _RATE, "sender_queue_full", "Too many messages wait at Twilio for this sender. Lower rate_per_s.",
        {"retry_after_s": 60.0},
    ),
    _Entry(
        _codes(14107), _RATE, "pair_rate", "Too many messages to this one recipient within a short time.",
        {"scope": RateScope.RECIPIENT, "wait_s": 30.0},
    ),
    _Entry(_codes(20429), _RATE, "api_rate", "Too many requests of this account at once. Lower concurrency_max or rate_per_s."),
    # --- account and service ---
    _Entry(_codes(20003), _CONFIG, "credentials_refused", "Twilio refuses the credentials. Check account_sid and token or key."),
    _Entry(_codes(20005), _CONFIG, "account_inactive", "The account is not active. Its owner finds the reason in the console."),
    _Entry(_codes(20403), _CONFIG, "forbidden", "The credentials are good, but not for this account or this request."),
    _Entry(_codes(20404), _CONFIG, "not_found", "Twilio knows no such account at this address. Check account_sid and base_url."),
    _Entry(_codes(20500, 20503), _SOFT, "service_error", "Twilio had a fault of its own, or was too busy."),
    # --- delivery of texts ---
    _Entry(
        _codes(30001), _RATE, "queue_overflow", "The message waited too long in the sender's queue. Lower rate_per_s.",
        {"retry_after_s": 60.0},
    ),
    _Entry(_codes(30002), _CONFIG, "account_suspended", "The account was suspended. Its owner finds the reason in the console."),
    _Entry(
        _codes(30018, 30024, 30032, 30033, 30034, 30035), _CONFIG, "sender_unregistered",
        "The sender is not registered as its destination demands (alphanumeric, toll-free or 10DLC). Finish its registration.",
    ),
    _Entry(
        _codes(30003), _SOFT, "handset_unreachable", "The phone was off or out of reach.", {"wait_s": HANDSET_OFF_WAIT_S},
    ),
    _Entry(_codes(30004), _HARD, "blocked", "The carrier or the recipient blocks messages of this sender."),
    _Entry(_codes(30450), _HARD, "fraud_guard", "Twilio's fraud guard blocked the message."),
    _Entry(_codes(30005), _SUPPRESS, "handset_unknown", "The number is not in service any more."),
    _Entry(_codes(30006), _SUPPRESS, "landline_or_unreachable", "The number is a landline, or its carrier can not be reached."),
    _Entry(_codes(30007), _HARD, "filtered", "A carrier filtered the text as unwanted. Never send the same text again."),
    _Entry(_codes(30008), _SOFT, "unknown_fault", "The carrier gave no reason.", _ONCE),
    _Entry(_codes(30010), _HARD, "price_cap", "The message would have cost more than the highest price set for it."),
    _Entry(_codes(30019), _HARD, "too_large", "The content is too large for the carrier."),
    _Entry(_codes(30036), _HARD, "validity_expired", "The message was not sent within its validity. Check validity_period_s."),
    _Entry(_codes(30017), _SOFT, "carrier_congestion", "The carrier was too busy."),
    _Entry(
        _codes(30022), _RATE, "campaign_rate", "The campaign's rate (10DLC) was exceeded. Lower rate_per_s.",
        {"retry_after_s": 60.0},
    ),
    _Entry(
        _codes(30023, 30027), _RATE, "daily_cap", "The daily cap of brand or campaign (10DLC) is used up until tomorrow.",
        {"retry_after_s": DAY_S},
    ),
    _Entry(
        _codes(30410), _UNKNOWN, "provider_timeout",
        "Twilio's own supplier did not answer in time: the message may have gone out, so Twilio does not try again.",
    ),
    # --- WhatsApp ---
    _Entry(_codes(63001, 63008), _CONFIG, "channel_refused", "WhatsApp refuses Twilio's access to the sender. Reconnect it."),
    _Entry(_codes(63002, 63007), _CONFIG, "channel_sender_unknown", "No WhatsApp sender has this number. Check from_number."),
    _Entry(_codes(63015), _CONFIG, "channel_sandbox", "Twilio's WhatsApp sandbox reaches only who joined it. Use a sender."),
    _Entry(_codes(63020), _CONFIG, "business_manager", "The WhatsApp business account has not let Twilio in."),
    _Entry(_codes(63022), _CONFIG, "display_name", "The sender's display name has no valid certificate."),
    _Entry(_codes(63051), _CONFIG, "business_locked", "WhatsApp has locked the business account. Its manager shows the reason."),
    _Entry(_codes(63003, 63024), _SUPPRESS, "not_on_whatsapp", "The number is not on WhatsApp, or is not valid."),
    _Entry(_codes(63014, 63033), _SUPPRESS, "opted_out_by_block", "The recipient has blocked this sender on WhatsApp."),
    _Entry(_codes(63005, 63021, 63026, 63030), _HARD, "content_refused", "WhatsApp does not take this content."),
    _Entry(_codes(63013), _HARD, "policy", "The message breaks a rule of WhatsApp."),
    _Entry(_codes(63019, 63034), _HARD, "media_refused", "The media could not be fetched, or are too large."),
    _Entry(_codes(63027), _HARD, "template_missing", "The template does not exist in this language. Check content_sids."),
    _Entry(_codes(63028), _HARD, "template_parameters", "The template wants another number of parameters."),
    _Entry(_codes(63029), _HARD, "template_not_fetched", "The recipient's WhatsApp could not load the template."),
    _Entry(_codes(63040), _HARD, "template_rejected", "WhatsApp has rejected the template. Change it and submit it again."),
    _Entry(_codes(63042), _HARD, "template_disabled", "WhatsApp has switched the template off for good. Use another."),
    _Entry(
        _codes(63041), _SOFT, "template_paused", "WhatsApp has paused the template for its bad ratings; that ends by itself.",
        {"wait_s": HOUR_S},
    ),
    _Entry(_codes(63009, 63010, 63012, 63023, 63037), _SOFT, "channel_fault", "WhatsApp, or Twilio's way to it, had a fault."),
    _Entry(
        _codes(63016), _HARD, "window_closed",
        "More than 24 hours have passed since the recipient's last message: only a template may be sent.",
    ),
    _Entry(
        _codes(63017, 63018), _RATE, "channel_rate", "WhatsApp's rate for this sender was exceeded. Lower rate_per_s.",
        {"retry_after_s": 30.0},
    ),
    _Entry(_codes(63038), _RATE, "daily_limit", "The account's daily number of messages is used up.", {"retry_after_s": DAY_S}),
    _Entry(
        _codes(63032, 63049), _HARD, "withheld_by_meta", "Meta chose not to deliver it. Sending it again soon is no use.",
    ),
)  # fmt: skip


def _rows() -> Iterator[tuple[int, Row]]:
    for numbers, kind, name, words, more in _ENTRIES:
        for number in numbers:
            yield number, Row(kind, f"{name}_{number}", words, **more)


ERRORS: Final[ErrorTable[int]] = ErrorTable(
    MappingProxyType(dict(_rows())),
    (
        Range(20_000, 20_999, Row(_CONFIG, "api", "Twilio refuses the request before it looks at the message.")),
        Range(21_000, 29_999, Row(_HARD, "message", "Twilio refuses the message.")),
        Range(30_000, 30_999, Row(_HARD, "delivery", "The message could not be delivered.")),
        Range(60_000, 69_999, Row(_HARD, "channel", "The channel behind Twilio refuses the message.")),
    ),
    Row(_HARD, "refused", "Twilio refuses the message."),
)
"""Every code that a message may end with, by number."""
