"""What the statuses of an ordinary JSON API mean where nothing in the body says more."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dispatcher.http_message import HttpResponse
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.error_table import Row
from dispatcher.providers.hints import hint_s

_HARD, _SOFT, _CONFIG = OutcomeClass.HARD, OutcomeClass.SOFT, OutcomeClass.MISCONFIGURED

STATUSES: Final[Mapping[int, Row]] = MappingProxyType(
    {
        400: Row(_HARD, "http_400", "The provider refuses the message."),
        401: Row(_CONFIG, "http_401", "The provider refuses the credentials. Replace them."),
        403: Row(_CONFIG, "http_403", "The credentials do not allow this. Check the account and what they are good for."),
        404: Row(_CONFIG, "http_404", "There is no such address at the provider. Check the account, and base_url if it is set."),
        405: Row(_CONFIG, "http_405", "What answers is not the provider's API. Check base_url."),
        408: Row(_SOFT, "http_408", "The provider did not get the whole request in time."),
        413: Row(_HARD, "http_413", "The message is too large."),
        415: Row(_CONFIG, "http_415", "What answers is not the provider's API. Check base_url."),
        425: Row(_SOFT, "http_425", "The provider asks for the same again, later."),
        429: Row(OutcomeClass.RATE_LIMITED, "http_429", "Too many requests. Lower rate_per_s or concurrency_max."),
        # Of a gateway, which may have handed the message on and missed the answer.
        502: Row(OutcomeClass.UNKNOWN, "http_502", "A gateway lost the provider's answer: the message may have gone out."),
        504: Row(OutcomeClass.UNKNOWN, "http_504", "A gateway lost the provider's answer: the message may have gone out."),
    }
)
"""One that is not listed goes by its hundred, see ``HUNDREDS``."""

HUNDREDS: Final[Mapping[int, Row]] = MappingProxyType(
    {
        2: Row(OutcomeClass.DELIVERED, "http", "The provider took the message."),
        3: Row(_CONFIG, "http", "The provider is somewhere else; redirects are not followed. Check base_url."),
        4: Row(_HARD, "http", "The provider refuses the message."),
        5: Row(_SOFT, "http", "The provider had a fault of its own."),
    }
)
_ODD: Final = Row(OutcomeClass.UNKNOWN, "http", "What answered is not a provider's API. Check base_url.")


def status_row(status: int) -> Row:
    """The row of a status."""
    row = STATUSES.get(status)
    if row is not None:
        return row
    row = HUNDREDS.get(status // 100, _ODD)
    return row._replace(code=f"{row.code}_{status}")


def by_status(response: HttpResponse, now_unix_s: float) -> Outcome:
    """What an answer means by its status and its hints."""
    return status_row(response.status).outcome(hint_s(response, now_unix_s))


EXPLANATIONS: Final[Mapping[str, str]] = MappingProxyType({row.code: row.words for row in STATUSES.values()})
"""The words of the listed statuses by their codes."""
