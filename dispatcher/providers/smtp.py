"""Email through any mail submission server.

SMTP has no idempotency keys and no records to ask. What it has is a sharp line: a mail is taken on with the reply to its end, so
only an answer lost after that leaves it open whether it went out. The notification's id is the mail's Message-ID, by which
mailboxes and people recognize a double.

Several notifications of equal content may share one transaction, when ``batch_max`` allows: recipients are answered for one by
one, and each notification has its own outcome.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.batching import Part
from dispatcher.providers.error_table import Row
from dispatcher.providers.probing import Probed
from dispatcher.providers.provider import Limits, Moment, Provider, Unbindable, Unsendable, limits_of
from dispatcher.providers.smtp_errors import ERRORS, EXPLANATIONS, FAULTS, row_of
from dispatcher.providers.smtp_mail import Content, Mailbox, Sender, content_of, mail_of, mailbox_of, message_id
from dispatcher.providers.smtp_settings import credentials_problems, origin_of, settings_problems
from dispatcher.smtp_message import Login, SmtpReply, SmtpRequest, SmtpResponse, Stage

CONCURRENCY_MAX_DEFAULT: Final = 10
"""Sessions at once, unless settings say otherwise: submission servers allow a client tens of them, not hundreds."""

_QUEUE_IDS = (
    re.compile(rb"queued as ([0-9A-Za-z._-]{4,128})", re.IGNORECASE),  # Postfix, SendGrid
    re.compile(rb"\bid=([0-9A-Za-z-]{6,64})"),  # Exim
    re.compile(rb"InternalId=([0-9]{4,32})"),  # Exchange
    re.compile(rb"Ok ([0-9a-f]{8,32}(?:-[0-9a-f]{2,12})+)", re.IGNORECASE),  # SES
    re.compile(rb"([0-9A-Za-z]{10,32}) Message accepted for delivery"),  # sendmail
    re.compile(rb"OK +[0-9]{6,12} ([0-9A-Za-z._-]{8,64}) - gsmtp"),  # Gmail
)
_TEXT_BYTES_MAX = 2_048
_NOT_PASSED_ON = Row(OutcomeClass.SOFT, "not_passed_on", "The server did not get to the message. It is tried again by itself.")


class BoundSmtp:
    """A submission server with one configuration."""

    __slots__ = ("_envelope_from", "_login", "_sender", "batch_max", "limits", "origin")

    def __init__(self, config: ProviderConfig) -> None:
        settings, credentials = config.settings, config.credentials
        origin, sender = origin_of(settings), mailbox_of(settings["from_email"])
        assert origin is not None
        assert sender is not None
        self.origin = origin
        limits = limits_of(settings)
        if not settings.get("concurrency_max"):
            limits = limits._replace(concurrency_max=CONCURRENCY_MAX_DEFAULT)
        self.limits: Limits = limits
        self.batch_max: int = settings.get("batch_max") or 1
        reply_to = settings.get("reply_to")
        self._sender = Sender(
            sender, settings.get("from_name") or "", None if reply_to is None else mailbox_of(reply_to), config.organization_id
        )
        envelope_from = mailbox_of(settings.get("envelope_from") or settings["from_email"])
        assert envelope_from is not None
        self._envelope_from = str(envelope_from)
        username = credentials.get("username")
        self._login = None if username is None else Login(username, credentials["password"])

    def __repr__(self) -> str:
        return f"<BoundSmtp {self.origin}>"

    def request(self, delivery: Delivery, moment: Moment) -> SmtpRequest:
        """One mail to one recipient. Raises Unsendable for a payload or recipient that no mail can be made of."""
        content, recipient = content_of(delivery.payload), _recipient(delivery)
        return self._request(content, (recipient,), (delivery.id,), moment)

    def classify(self, response: SmtpResponse, now_unix_s: float) -> Outcome:
        """What became of a mail to one recipient, by the tables of ``smtp_errors``."""
        return self._outcome(response, response.recipients[0] if response.recipients else None)

    def part(self, delivery: Delivery, moment: Moment) -> Part | None:
        """Notifications of equal content go together. An address beyond ASCII goes alone: not every server takes it."""
        content, recipient = content_of(delivery.payload), _recipient(delivery)
        return None if recipient.utf8 else Part(delivery, content, str(recipient).encode("ascii"))

    def batch_request(self, parts: Sequence[Part], moment: Moment) -> SmtpRequest:
        """One mail for all, who do not learn of each other."""
        deliveries = [part.delivery for part in parts]
        recipients = tuple(_recipient(delivery) for delivery in deliveries)
        return self._request(content_of(deliveries[0].payload), recipients, tuple(delivery.id for delivery in deliveries), moment)

    def classify_batch(self, response: SmtpResponse, parts: Sequence[Part], now_unix_s: float) -> Sequence[Outcome | None]:
        """Recipients are answered for one by one. Who was too many is to be sent again; so is everybody when the whole mail was
        refused for somebody, without a word who.
        """
        replies: list[SmtpReply | None] = list(response.recipients[: len(parts)])
        replies += [None] * (len(parts) - len(replies))
        taken = [_is_good(reply) for reply in replies]
        several = sum(taken) > 1
        outcomes: list[Outcome | None] = []
        for reply, is_taken in zip(replies, taken, strict=True):
            outcome = self._outcome(response, reply)
            too_many = len(parts) > 1 and any(taken) and not is_taken and reply is not None and _is_too_many(reply)
            somebody = several and is_taken and outcome.kind is OutcomeClass.SUPPRESS
            outcomes.append(None if too_many or somebody else outcome)
        return outcomes

    def probe(self, moment: Moment) -> SmtpRequest:
        """Opens a session, logs in, names the sender, and takes that back."""
        return SmtpRequest(self.origin, self._login, self._envelope_from, (), None)

    def probed(self, response: SmtpResponse, now_unix_s: float) -> Probed:
        """A server that takes the sender is a good one."""
        reply = response.reply
        if response.stage is Stage.MAIL and reply is not None and reply.code // 100 == 2:
            logged_in = "took the login and the sender" if self._login is not None else "took the sender"
            return Probed(True, "sender_accepted", f"The server {logged_in}. Nothing was sent.")
        row = _refusal(response, None)
        return Probed(False, row.code, row.words)

    def _request(self, content: Content, recipients: tuple[Mailbox, ...], ids: tuple[str, ...], moment: Moment) -> SmtpRequest:
        alone = recipients[0] if len(recipients) == 1 else None
        return SmtpRequest(
            self.origin,
            self._login,
            self._envelope_from,
            tuple(map(str, recipients)),
            mail_of(content, self._sender, alone, ids, moment),
            any(recipient.utf8 for recipient in recipients),
            message_id(ids[0], self._sender),
        )

    def _outcome(self, response: SmtpResponse, own: SmtpReply | None) -> Outcome:
        """The outcome for a recipient with this reply of its own."""
        reply = response.reply
        if (
            response.stage is Stage.MESSAGE
            and reply is not None
            and own is not None
            and own.code // 100 == reply.code // 100 == 2
        ):
            return Outcome(OutcomeClass.DELIVERED, "accepted", _queue_id(reply.text) or response.message_id)
        return _refusal(response, own).outcome()


def bind(config: ProviderConfig, origins_extra: Collection[str] = ()) -> BoundSmtp:
    """A server with one stored configuration. Raises Unbindable when it does not pass the checks it once passed."""
    problems = settings_problems(config.settings, origins_extra) + credentials_problems(config.credentials)
    if problems:
        raise Unbindable(problems[0])
    return BoundSmtp(config)


SMTP: Final = Provider(
    "smtp", frozenset({Channel.EMAIL}), settings_problems, credentials_problems, bind, explanations=EXPLANATIONS
)


def _recipient(delivery: Delivery) -> Mailbox:
    recipient = mailbox_of(delivery.recipient)
    if recipient is None:
        raise Unsendable("recipient_invalid")
    return recipient


def _refusal(response: SmtpResponse, own: SmtpReply | None) -> Row:
    """Why not: the recipient's own refusal, else that of the whole."""
    if response.fault is not None:
        return FAULTS[response.fault]
    if own is not None and not _is_good(own):
        return row_of(own, Stage.RCPT) if own.code // 100 in (4, 5) else _NOT_PASSED_ON
    reply = response.reply
    if reply is None:
        return ERRORS.other
    if response.stage is not Stage.MESSAGE and reply.code // 100 in (2, 3):
        return _NOT_PASSED_ON  # before the message nothing can have been taken on
    return row_of(reply, response.stage)


def _is_good(reply: SmtpReply | None) -> bool:
    return reply is not None and reply.code // 100 == 2


def _is_too_many(reply: SmtpReply) -> bool:
    """Whether a recipient was refused for how many came before it. A bare 452 means that, too, once others were taken."""
    if reply.enhanced is None:
        return reply.code == 452
    return reply.enhanced == (reply.code // 100, 5, 3)


def _queue_id(text: bytes) -> str | None:
    """The server's own name for a mail, where its reply has a form that is known."""
    for pattern in _QUEUE_IDS:
        match = pattern.search(text[:_TEXT_BYTES_MAX])
        if match is not None:
            return match[1].decode("ascii")
    return None
