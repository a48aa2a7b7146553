"""A mail as bytes, out of a payload: pure, so the same notification at the same moment is the same mail to the byte.

Built with the standard library's ``email``, which folds, encodes and refuses. Invariant: no line of a header comes from a
payload, and everything that is not ASCII is encoded, unless an address can only be written as it is.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate
from typing import Any, NamedTuple

from attrs import frozen

from dispatcher.mail_extras import NO_EXTRAS, Extras, extras_of
from dispatcher.providers.provider import Moment, Unsendable

UNDISCLOSED = "undisclosed-recipients:;"
"""The To of a mail with several recipients, who are not to learn of each other."""

_SEVEN_BIT = SMTP.clone(cte_type="7bit")
_EIGHT_BIT = SMTPUTF8.clone(cte_type="8bit")
_ADDRESS = re.compile(
    r"(?P<local>[^\s@\x00-\x1f\x7f-\x9f<>()\[\],;:\\\"]{1,64})@"
    r"(?P<domain>[^\s@\x00-\x1f\x7f-\x9f<>,;:]{1,255})"
)
_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
_LINE_BREAK = re.compile(r"[\r\n\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BREAK = re.compile(r"\r\n|\r|\n")
_BARE_BREAK = re.compile(rb"\r\n|\r|\n")


class Mailbox(NamedTuple):
    """An address as it stands on the wire: its domain in ASCII."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    def __repr__(self) -> str:
        return "<mailbox>"

    @property
    def utf8(self) -> bool:
        """It can not be written in ASCII."""
        return not self.local.isascii()


def mailbox_of(text: str) -> Mailbox | None:
    """An address without a name; None for anything else. A domain of another script is written as its ASCII form."""
    match = _ADDRESS.fullmatch(text)
    if match is None or match["local"].startswith(".") or match["local"].endswith(".") or ".." in match["local"]:
        return None
    domain = match["domain"]
    try:
        text.encode()
        domain = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return Mailbox(match["local"], domain) if _DOMAIN.fullmatch(domain) and ".." not in domain else None


@frozen
class Sender:
    """The headers that every mail of a configuration has."""

    mailbox: Mailbox
    name: str
    reply_to: Mailbox | None
    organization_id: str


class Content(NamedTuple):
    """What a payload says. Mails of equal content may share a transaction."""

    subject: str
    text: str | None
    html: str | None
    extras: Extras = NO_EXTRAS

    def __repr__(self) -> str:
        return "<content>"


def content_of(payload: Mapping[str, Any]) -> Content:
    """Raises Unsendable for a payload that no mail can be made of."""
    subject, text, html = payload.get("subject"), payload.get("text") or None, payload.get("html") or None
    if not isinstance(subject, str) or not subject:
        raise Unsendable("subject_missing")
    if _LINE_BREAK.search(subject):
        raise Unsendable("subject_has_line_break")
    if (text is not None and not isinstance(text, str)) or (html is not None and not isinstance(html, str)):
        raise Unsendable("content_invalid")
    if text is None and html is None:
        raise Unsendable("content_missing")
    try:
        "".join((subject, text or "", html or "")).encode()
    except UnicodeEncodeError:
        raise Unsendable("payload_not_unicode") from None
    if "\0" in (text or "") or "\0" in (html or ""):
        raise Unsendable("content_invalid")
    extras = extras_of(payload)
    if extras is None:
        raise Unsendable("extras_invalid")
    return Content(subject, text, html, extras)


def message_id(notification_id: str, sender: Sender) -> str:
    """The mail's own name."""
    return f"<{notification_id}@{sender.mailbox.domain}>"


def mail_of(content: Content, sender: Sender, recipient: Mailbox | None, ids: Sequence[str], moment: Moment) -> bytes:
    """The whole mail, for one recipient or, with None, for several. ``ids`` are of the notifications in it, at least one.

    Raises Unsendable for what can not be written down after all.
    """
    utf8 = sender.mailbox.utf8 or (recipient is not None and recipient.utf8)
    mail = EmailMessage(policy=_EIGHT_BIT if utf8 else _SEVEN_BIT)
    try:
        mail["From"] = Address(sender.name, sender.mailbox.local, sender.mailbox.domain)
        mail["To"] = UNDISCLOSED if recipient is None else Address("", recipient.local, recipient.domain)
        if sender.reply_to is not None:
            mail["Reply-To"] = Address("", sender.reply_to.local, sender.reply_to.domain)
        mail["Subject"] = content.subject
        mail["Date"] = formatdate(moment.unix_s)
        mail["Message-ID"] = message_id(ids[0], sender)
        mail["X-Notification-Id"] = ", ".join(ids)
        mail["X-Organization-Id"] = sender.organization_id
        if content.text is not None:
            mail.set_content(_BREAK.sub("\n", content.text))
            if content.html is not None:
                mail.add_alternative(_BREAK.sub("\n", content.html), subtype="html")
                mail.set_boundary(f"={moment.random_bytes(12).hex()}=")
        else:
            mail.set_content(_BREAK.sub("\n", content.html or ""), subtype="html")
        for each in content.extras.attachments:
            maintype, _, subtype = each.content_type.partition("/")
            mail.add_attachment(b64decode(each.content), maintype, subtype, filename=each.filename)
        if content.extras.attachments:
            mail.set_boundary(f"={moment.random_bytes(12).hex()}=files=")
        # As they are: where a line is long and has no blank, email would encode it, and nobody would read the link in it.
        own = "".join(f"{name}: {value}\r\n" for name, value in content.extras.headers).encode("ascii")
        return own + _BARE_BREAK.sub(b"\r\n", mail.as_bytes())
    except (MessageError, ValueError, LookupError, IndexError, TypeError):  # email's parsers have their own opinions of odd input
        raise Unsendable("mail_not_built") from None
