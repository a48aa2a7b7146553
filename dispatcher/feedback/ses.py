"""What SES reports through SNS: bounces, complaints, deliveries, delays, refusals, opens and opt-outs.

Two forms say the same: notifications of an identity (``notificationType``), and events of a configuration set (``eventType``),
which alone bring back our tags. One report may be about several recipients; each becomes a record of its own. Reports are
believed of topics that the configuration names, and of mails that its account has sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

import orjson

from dispatcher.feedback.feedback import Feedback, Reading, WebhookRequest
from dispatcher.feedback.ses_events import SHAPES, Meaning, Shape, meaning_of, preferences_of
from dispatcher.feedback.sns import Published, opened, refused, unix_s
from dispatcher.http_message import Origin
from dispatcher.ids import is_uuid
from dispatcher.model import NotificationId
from dispatcher.origins import parse_base_url
from dispatcher.problems import Problem
from dispatcher.providers.ses_settings import topics_of

RECIPIENTS_MAX: Final = 50
"""A mail has no more."""

_ID = re.compile(r"[!-~]{1,128}")
_NAMED = re.compile(r"[^<>]*<([^<>\s]{3,320})>")


class SesFeedback:
    """Holds nothing."""

    def read(
        self,
        request: WebhookRequest,
        settings: Mapping[str, Any],
        credentials: Mapping[str, Any],
        now_unix_s: float,
        fetched: Mapping[str, bytes],
    ) -> Reading | Problem:
        """The records of one message of SNS, or what it asks for. Never raises."""
        published = opened(request.body, now_unix_s, fetched, topics_of(settings), _origin_extra(settings))
        if not isinstance(published, Published):
            return published
        report = _object_in(published.message)
        mail = _object(report.get("mail"))
        account = settings.get("account_id") or published.topic_arn.split(":")[4]
        if mail.get("sendingAccountId", account) != account:
            return refused("account_refused", "The report is about a mail of another AWS account than that of the configuration.")
        return list(_feedback(report, mail, published))


def _origin_extra(settings: Mapping[str, Any]) -> Origin | None:
    """Where beside Amazon a certificate may lie: where the configuration sends its mails, if that is not Amazon.

    A base URL is stored only if whoever runs the dispatcher has allowed its origin.
    """
    base_url = settings.get("base_url")
    base = parse_base_url(base_url) if isinstance(base_url, str) else None
    return None if base is None or base.origin.host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else base.origin


def _feedback(report: Mapping[str, Any], mail: Mapping[str, Any], published: Published) -> Iterator[Feedback]:
    kind = report.get("eventType", report.get("notificationType"))
    shape = SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None or not isinstance(kind, str):
        return
    told = _object(report.get(shape.object))
    times = (unix_s(told.get("timestamp")), unix_s(mail.get("timestamp")), published.at_unix_s)
    at_unix_s = next(at for at in times if at is not None)
    meanings: list[tuple[Meaning, str | None]] = []
    if kind == "Subscription":
        meanings = preferences_of(told)
    elif (meaning := meaning_of(kind, told)) is not None:
        meanings = [(meaning, None)]
    feedback_id = told.get("feedbackId")
    name = feedback_id if isinstance(feedback_id, str) and _ID.fullmatch(feedback_id) else published.message_id
    notification_id, message_id = _notification_id(mail), _text(mail.get("messageId"))
    for recipient in _recipients(shape, told, mail):
        who = sha256(recipient.encode("utf-8", "replace")).hexdigest()[:16]
        for number, (meaning, topic) in enumerate(meanings):
            yield Feedback(
                f"{name}/{who}" if number == 0 else f"{name}/{who}/{number}",
                meaning.kind,
                meaning.code,
                at_unix_s,
                notification_id,
                message_id if _ID.fullmatch(message_id) else None,
                recipient,
                topic,
            )


def _recipients(shape: Shape, told: Mapping[str, Any], mail: Mapping[str, Any]) -> list[str]:
    """Whom a report is about: addresses, or objects with one, each once."""
    given = told.get(shape.recipients) if shape.recipients else mail.get("destination")
    listed = given if isinstance(given, list) else []
    addresses = (entry.get("emailAddress") if isinstance(entry, dict) else entry for entry in listed[:RECIPIENTS_MAX])
    return list(dict.fromkeys(plain for address in addresses if (plain := _address(address))))


def _address(value: object) -> str:
    """An address without a name around it; empty for what is none."""
    if not isinstance(value, str):
        return ""
    named = _NAMED.fullmatch(value.strip())
    address = named[1] if named else value.strip()
    return address if 0 < len(address) <= 320 and "@" in address and address.isprintable() else ""


def _notification_id(mail: Mapping[str, Any]) -> NotificationId | None:
    """Ours, out of the tags."""
    values = _object(mail.get("tags")).get("notification_id")
    value = values[0] if isinstance(values, list) and values else None
    return NotificationId(value) if isinstance(value, str) and is_uuid(value) else None


def _object_in(text: str) -> Mapping[str, Any]:
    with suppress(orjson.JSONDecodeError):
        return _object(orjson.loads(text))
    return {}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


SES_FEEDBACK: Final = SesFeedback()
