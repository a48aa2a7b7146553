"""Twilio's status callbacks and incoming messages: forms, one for each event, signed over the URL and every field.

A message's states go to the StatusCallback of its request, with our ids in the query. An answer of its recipient goes to the same
address without them, as if the sender's incoming messages were sent there. A hook that is set (secret ``auth_token``) is for
requests without a callback.
"""

from __future__ import annotations

import base64
import hmac
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha1

from dispatcher_sandbox.callbacks import Callback, Event, Hook, Message
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Correlation
from dispatcher_sandbox.magic_phone import magic_phone
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.twilio.form import Form, form_of

UNSEEN = "sandbox"
"""Signs for an account that was seen with API keys only, never with its auth token."""
STOP = "incoming STOP"

_SENT = ("sent", 0)
_DELIVERED = ("delivered", 0)
_STATES: Mapping[Fate, tuple[tuple[str, int], ...]] = {
    Fate.DELIVERED: (_SENT, _DELIVERED),
    Fate.READ: (_SENT, _DELIVERED),
    Fate.DEFERRED: (_SENT, _DELIVERED),
    Fate.SOFT_BOUNCED: (_SENT, ("undelivered", 30003)),
    Fate.BOUNCED: (_SENT, ("undelivered", 30006)),
    Fate.INVALID: (_SENT, ("undelivered", 30005)),
    Fate.BLOCKED: (_SENT, ("undelivered", 30007)),
    Fate.DROPPED: (("failed", 21610),),
    Fate.COMPLAINED: (_SENT, _DELIVERED, (STOP, 0)),
    Fate.UNSUBSCRIBED: (_SENT, _DELIVERED, (STOP, 0)),
    Fate.NOTHING: (),
}
_ON_WHATSAPP: Mapping[Fate, tuple[tuple[str, int], ...]] = {
    **_STATES,
    Fate.READ: (_SENT, _DELIVERED, ("read", 0)),
    Fate.SOFT_BOUNCED: (_SENT, ("undelivered", 30008)),
    Fate.BOUNCED: (("undelivered", 63003),),
    Fate.INVALID: (("undelivered", 63024),),
    Fate.BLOCKED: (("undelivered", 63049),),
    Fate.DROPPED: (("undelivered", 63033),),
}


class Reports(ABC):
    """The half of the simulator that reports."""

    events_max = 1
    hooks_in_requests = True

    @abstractmethod
    def token_of(self, account: str) -> str | None:
        """The auth token of an account, if it was seen."""

    @abstractmethod
    def stop(self, account: str, form: Form) -> None:
        """The recipient of this message wants no more of its sender."""

    def keep(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """The auth token, if the account's own shall not be used."""
        if unknown := sorted(set(secrets) - {"auth_token"}):
            raise ValueError(f"no such secret: {', '.join(unknown)}; there is auth_token")
        return dict(secrets)

    def shown(self, hook: Hook) -> Mapping[str, str]:
        """Nothing: the receiver knows its auth token."""
        return {}

    def opening(self, hook: Hook, now_s: float, id_bits: int) -> Callback | None:
        """None: no consent is asked for."""
        return None

    def messages(self, request: Request, message_id: str, now_s: float) -> Sequence[Message]:
        """The one message."""
        form = form_of(request.body)
        assert isinstance(form, Form)
        account = request.path.split(b"/")[3].decode()
        url = form.callback
        token = self.token_of(account) or UNSEEN
        hook = None if url is None else Hook("twilio", url, account, {"auth_token": token})
        ids = ids_of(url or "")
        correlation = Correlation(ids.get("notification_id"), ids.get("organization_id"))
        details = {"form": form, "account": account}
        return [Message(message_id, 0, now_s, correlation, form.to, account, magic_phone(form.to), hook, details)]

    def events(self, message: Message, fate: Fate, at_s: float, id_bits: int) -> Sequence[Event]:
        """The states of a message; of an answer, what it says."""
        form, account = message.details["form"], message.details["account"]
        found: list[Event] = []
        for state, code in (_ON_WHATSAPP if form.is_whatsapp else _STATES)[fate]:
            if state == STOP:
                self.stop(account, form)
                found.append(_answer(message, form, account, id_bits))
            else:
                found.append(_state(message, form, account, state, code))
        return found

    def callback(self, hook: Hook, events: Sequence[Event], now_s: float, id_bits: int) -> Callback:
        """Signed over the URL, without its fragment, and the fields in order of their names."""
        (event,) = events
        url = hook.url.partition("#")[0]
        if "Body" in event:
            url = _without_ids(url)
        token = hook.secrets.get("auth_token") or self.token_of(event["AccountSid"]) or UNSEEN
        headers = {
            "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
            "user-agent": "TwilioProxy/1.1",
            "i-twilio-idempotency-token": blake2b(b"%d" % id_bits, digest_size=16).hexdigest(),
            "x-twilio-signature": signature(token, url, event),
        }
        return Callback(url, headers, urllib.parse.urlencode(event).encode())


def signature(token: str, url: str, fields: Mapping[str, str]) -> str:
    """Twilio's."""
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.new(token.encode(), signed.encode(), sha1).digest()).decode()


def ids_of(url: str) -> dict[str, str]:
    """The fields of a URL's query."""
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


def _state(message: Message, form: Form, account: str, state: str, code: int) -> Event:
    fields = {
        "AccountSid": account,
        "ApiVersion": "2010-04-01",
        "From": form.fields.get("From", "+15005550006"),
        "MessageSid": message.message_id,
        "MessageStatus": state,
        "SmsSid": message.message_id,
        "SmsStatus": state,
        "To": form.fields["To"],
    }
    if "MessagingServiceSid" in form.fields:
        fields["MessagingServiceSid"] = form.fields["MessagingServiceSid"]
    if code:
        fields.update(ErrorCode=str(code), ErrorMessage=f"Undelivered to {form.to}")
    if form.is_whatsapp:
        fields.update(ChannelPrefix="whatsapp", ChannelToAddress=form.to, EventType=state.upper())
    return fields


def _answer(message: Message, form: Form, account: str, id_bits: int) -> Event:
    sid = f"SM{blake2b(b'answer %d' % id_bits, digest_size=16).hexdigest()}"
    return {
        "AccountSid": account,
        "ApiVersion": "2010-04-01",
        "Body": "STOP",
        "From": form.fields["To"],
        "MessageSid": sid,
        "NumMedia": "0",
        "NumSegments": "1",
        "SmsMessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "To": form.fields.get("From", "+15005550006"),
    }


def _without_ids(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    kept = [pair for pair in urllib.parse.parse_qsl(parts.query) if pair[0] not in ("notification_id", "organization_id")]
    return parts._replace(query=urllib.parse.urlencode(kept)).geturl()
