"""One report of a provider about one message or one recipient, in our own words, whoever it came from.

A provider reports over HTTP, signed in its own way. Its module here is a :class:`FeedbackSource`: pure functions that check the
signature over the raw bytes, and turn a body into :class:`Feedback` records. Reports come doubled, in any order, and sometimes
before we have written down that the message was accepted; that is for whoever takes them in, and so is the record of which were
seen. Invariant: nothing here raises for what came over the wire, and no recipient stands in a repr or an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from attrs import field, frozen

from dispatcher.model import NotificationId
from dispatcher.problems import Problem


class FeedbackKind(StrEnum):
    """What became of a message, or what its recipient did: a closed set."""

    DEFERRED = "deferred"
    """The provider goes on trying. Changes nothing."""
    SENT = "sent"
    """Handed on to the next carrier."""
    DELIVERED = "delivered"
    """It has arrived at the recipient's mailbox or device."""
    READ = "read"
    """The recipient has opened or read it."""
    BOUNCED = "bounced"
    """The address does not exist or takes no mail, for good: it must not be used again."""
    SOFT_BOUNCED = "soft_bounced"
    """It could not be delivered this time (mailbox full, handset off): counted against the contact, and the count expires."""
    REFUSED = "refused"
    """This message failed for good, because of the message, the sender or a policy. The recipient stays usable."""
    COMPLAINED = "complained"
    """The recipient has called it spam: must not be used again."""
    UNSUBSCRIBED = "unsubscribed"
    """The recipient has opted out (``topic`` None: of everything)."""
    RESUBSCRIBED = "resubscribed"
    """The recipient has opted in again."""
    INVALID = "invalid"
    """The token, number or account does not exist any more: must not be used again."""


@frozen
class Feedback:
    """One report about one recipient of one message.

    ``event_id`` is what the provider's repetitions of it have in common, at most 200 ASCII characters, unique within one
    configuration. ``code`` is a short token from our table, as in an ``Outcome``. ``at_unix_s`` is when it happened, by the
    provider's clock. At least one of ``notification_id`` (which came back in the field we sent it in), ``provider_message_id``
    and ``recipient`` is there. ``topic`` names an unsubscribe group of the provider. Where a provider tells no time, ours stands
    in for ``at_unix_s``, on whole milliseconds, and ``key_unix_s`` is an instant that all repetitions have in common: of such a
    report the time of its first coming counts.
    """

    event_id: str
    kind: FeedbackKind
    code: str
    at_unix_s: float
    notification_id: NotificationId | None = None
    provider_message_id: str | None = None
    recipient: str | None = field(default=None, repr=False)
    topic: str | None = None
    key_unix_s: float | None = None


@frozen
class WebhookRequest:
    """A report as it came: ``body`` are the raw bytes, header names are lower case, ``url`` is the one the provider was given,
    with its query: some sign it.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@frozen
class WebhookReply:
    """What to answer instead of taking reports in, for instance the echo of a challenge. ``code`` is logged, the body is not."""

    status: int
    code: str
    body: bytes = field(default=b"", repr=False)
    content_type: str = "text/plain"


@frozen
class Fetch:
    """Something must be fetched before the reports can be trusted or go on coming: a certificate, or a confirmation to visit.

    ``url`` has passed the provider's own rules for such a URL. With ``again`` the request is read once more, with the answer
    among ``fetched``; otherwise fetching it is all that was asked for.
    """

    url: str = field(repr=False)
    again: bool


Reading = Sequence[Feedback] | WebhookReply | Fetch


class FeedbackSource(Protocol):
    """How one provider reports."""

    def read(
        self,
        request: WebhookRequest,
        settings: Mapping[str, Any],
        credentials: Mapping[str, Any],
        now_unix_s: float,
        fetched: Mapping[str, bytes],
    ) -> Reading | Problem:
        """Check a report and read it; a Problem (401 or 403) when it is not from the provider, too old, or of another account.

        ``fetched`` holds what was fetched before, by URL. Whoever calls keeps certificates for a while. What is authentic and
        tells nothing of use is an empty sequence. Never raises.
        """


KEPT_FOR_EVER_UNIX_S = 281_474_976_000.0
"""As ``key_unix_s``: later than any time at which old reports are forgotten."""
SOFT_BOUNCES_MAX = 5
"""So many soft bounces without a delivery in between, within ``SOFT_BOUNCE_EXPIRY_S``, and a contact counts as bounced."""
SOFT_BOUNCE_EXPIRY_S = 7 * 86_400.0
REPLAY_WINDOW_S = 300.0
"""A signed time may be this far from ours, where the provider signs one afresh for every delivery of a report."""
