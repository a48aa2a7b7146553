"""The error codes of Meta's WhatsApp Cloud API: one table, read both of answers and of status reports.

The code decides, not the HTTP status, which is 400 for nearly everything. A code whose reach is less than the account (a country,
a template, a recipient outside a test's list) never counts as a fault of the account.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dispatcher.outcome import OutcomeClass, RateScope
from dispatcher.providers.error_table import ErrorTable, Range, Row

_HARD, _SUPPRESS, _SOFT = OutcomeClass.HARD, OutcomeClass.SUPPRESS, OutcomeClass.SOFT
_RATE, _CONFIG = OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED

DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0
NO_SUCH_NUMBER: Final = 33
"""As a code, or as the subcode of the code 100."""
STOPPED_MARKETING: Final = 131050
"""Answered and reported for marketing templates after the recipient has asked for no more of them."""


class _Entry(NamedTuple):
    """A code, or several that mean the same."""

    numbers: int | tuple[int, ...]
    kind: OutcomeClass
    name: str
    words: str
    more: Mapping[str, Any] = MappingProxyType({})


_ONCE = {"attempts_max": 2}

_ENTRIES: Final = (
    # --- token and permission ---
    _Entry(0, _CONFIG, "token_refused", "Meta can not tell who is asking. Replace access_token."),
    _Entry(190, _CONFIG, "token_expired", "The access token has expired or was revoked. Replace access_token."),
    _Entry(3, _CONFIG, "capability_missing", "The app may not use this part of the API. Check its permissions."),
    _Entry(10, _CONFIG, "permission_missing", "The token lacks whatsapp_business_messaging, or does not include the number."),
    # --- how fast ---
    _Entry(4, _RATE, "app_rate", "The app makes too many calls an hour. Lower rate_per_s.", {"retry_after_s": 60.0}),
    _Entry(80007, _RATE, "account_rate", "The business account makes too many calls an hour.", {"retry_after_s": 60.0}),
    _Entry(130429, _RATE, "throughput", "The number sends faster than it may. Lower rate_per_s."),
    _Entry(
        131056, _RATE, "pair_rate", "Too many messages to this one recipient within a short time.",
        {"scope": RateScope.RECIPIENT, "wait_s": 6.0},
    ),
    _Entry(
        131048, _RATE, "spam_rate", "Too many recipients have blocked the number or called it spam: Meta holds it back.",
        {"retry_after_s": HOUR_S},
    ),
    _Entry(
        131064, _RATE, "classification_rate", "Templates were classified wrongly too often: Meta holds the number back.",
        {"retry_after_s": HOUR_S},
    ),
    # --- account and number ---
    _Entry(368, _CONFIG, "policy_block", "Meta has blocked the account for breaking a policy. Its business manager shows which."),
    _Entry(131031, _CONFIG, "account_locked", "Meta has locked the account. Its business manager shows why."),
    _Entry(131042, _CONFIG, "billing", "Meta can not bill the account. Check its payment method."),
    _Entry(131037, _CONFIG, "display_name", "The number's display name is not approved yet."),
    _Entry(131045, _CONFIG, "certificate", "The number is not registered for sending. Register it with its certificate."),
    _Entry(131005, _CONFIG, "access_denied", "The token's permission was not given or was taken back."),
    _Entry(133010, _CONFIG, "number_unregistered", "The number is not registered with the Cloud API. Register it."),
    _Entry(NO_SUCH_NUMBER, _CONFIG, "number_deleted", "The token sees no such number. Check phone_number_id."),
    # --- Meta's own faults ---
    _Entry(131057, _SOFT, "maintenance", "The account is in maintenance, for instance while its throughput is raised."),
    _Entry((131016, 2), _SOFT, "unavailable", "The service was overloaded or away for a moment."),
    _Entry((131000, 1), _SOFT, "unknown_fault", "Something went wrong at Meta."),
    _Entry(135000, _SOFT, "generic_fault", "Meta could not send it and does not say why.", _ONCE),
    # --- the recipient ---
    _Entry(131026, _SUPPRESS, "undeliverable", "The number is not on WhatsApp, or its app is too old or its terms not accepted."),
    _Entry(131021, _HARD, "sender_is_recipient", "Sender and recipient are the same number."),
    _Entry(131030, _HARD, "not_in_test_list", "A test number reaches only the numbers on its list. Add this one, then requeue."),
    _Entry(130497, _HARD, "country_restricted", "The account may not send to recipients in this country."),
    _Entry(
        131047, _HARD, "window_closed",
        "More than 24 hours have passed since the recipient's last message: only a template may be sent.",
    ),
    _Entry(
        131049, _SOFT, "ecosystem_limit", "Meta withholds marketing from this recipient for now; it is no use before tomorrow.",
        {"wait_s": DAY_S},
    ),
    _Entry(131050, _HARD, "stopped_marketing", "The recipient has asked for no more marketing messages of this business."),
    _Entry(130472, _HARD, "experiment", "The recipient is part of one of Meta's experiments and gets no marketing."),
    # --- the template ---
    _Entry(132000, _HARD, "template_parameters", "The template wants another number of parameters."),
    _Entry(132001, _HARD, "template_missing", "The template does not exist in this language, or is not approved."),
    _Entry(132005, _HARD, "template_too_long", "The template is too long once it is filled in."),
    _Entry(132007, _HARD, "template_policy", "The template's content breaks a rule of WhatsApp."),
    _Entry((132008, 132012), _HARD, "template_value", "A parameter has not the form that the template wants."),
    _Entry(
        132015, _SOFT, "template_paused", "Meta has paused the template for its bad ratings; that ends by itself.",
        {"wait_s": HOUR_S},
    ),
    _Entry(132016, _HARD, "template_disabled", "Meta has switched the template off for good. Use another."),
    # --- the message ---
    _Entry(100, _HARD, "parameter_invalid", "Meta does not take a parameter of the request."),
    _Entry(131008, _HARD, "parameter_missing", "The message lacks a parameter."),
    _Entry(131009, _HARD, "value_invalid", "A value of the message is not valid."),
    _Entry(131051, _HARD, "type_unknown", "Messages of this type are not sent."),
    _Entry((131052, 131053), _SOFT, "media", "The media could not be fetched or stored.", _ONCE),
)  # fmt: skip


def _rows() -> Iterator[tuple[int, Row]]:
    for numbers, kind, name, words, more in _ENTRIES:
        for number in numbers if isinstance(numbers, tuple) else (numbers,):
            yield number, Row(kind, f"{name}_{number}", words, **more)


ERRORS: Final[ErrorTable[int]] = ErrorTable(
    MappingProxyType(dict(_rows())),
    (
        Range(200, 299, Row(_CONFIG, "permission", "The token lacks a permission. Check what it was given for.")),
        Range(80_000, 80_999, Row(_RATE, "use_case_rate", "The business account makes too many calls an hour.")),
        Range(130_000, 131_999, Row(_HARD, "message", "Meta refuses the message.")),
        Range(132_000, 132_999, Row(_HARD, "template", "Meta refuses the template.")),
        Range(133_000, 133_999, Row(_CONFIG, "registration", "The number is not registered as it should be.")),
        Range(134_000, 134_999, Row(_HARD, "message", "Meta refuses the message.")),
        Range(135_000, 135_999, Row(_SOFT, "generic", "Meta could not send it and does not say why.", attempts_max=2)),
    ),
    Row(_HARD, "refused", "Meta refuses the message."),
)
"""Every code that a message may end with, by number."""
