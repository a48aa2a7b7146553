"""Meta's webhooks: statuses of messages, answers of recipients and their preferences, signed over the bytes.

A hook's secrets are ``app_secret``, which signs, and ``verify_token``; they are invented when they are left out. A new hook is
asked for its consent with a challenge first. What is sent is escaped down to ASCII, as the real one does it, so that who signs
anything but the bytes is found out.
"""

from __future__ import annotations

import hmac
import json
import secrets as randomness
import urllib.parse
from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Any

import orjson

from dispatcher_sandbox.callbacks import Callback, Event, Hook, Message
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Correlation
from dispatcher_sandbox.magic_phone import magic_phone
from dispatcher_sandbox.messages import Request

ACCOUNT = "102290129340398"
"""The business account that every number belongs to."""
EVENTS_MAX = 20
SIGNATURE = "x-hub-signature-256"

_ANSWER, _PREFERENCE = "answer", "preference"
_STATES: Mapping[Fate, tuple[tuple[str, int], ...]] = {
    Fate.DELIVERED: (("sent", 0), ("delivered", 0)),
    Fate.READ: (("sent", 0), ("delivered", 0), ("read", 0)),
    Fate.DEFERRED: (("sent", 0), ("delivered", 0)),
    Fate.SOFT_BOUNCED: (("failed", 131000),),
    Fate.BOUNCED: (("failed", 131026),),
    Fate.INVALID: (("failed", 131026),),
    Fate.BLOCKED: (("failed", 131049),),
    Fate.DROPPED: (("failed", 131050),),
    Fate.COMPLAINED: (("sent", 0), ("delivered", 0), (_PREFERENCE, 0)),
    Fate.UNSUBSCRIBED: (("sent", 0), ("delivered", 0), (_ANSWER, 0)),
    Fate.NOTHING: (),
}


class Reports:
    """The half of the simulator that reports. Holds nothing."""

    events_max = EVENTS_MAX
    hooks_in_requests = False

    def keep(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """The app's secret, and the word that a challenge carries."""
        if unknown := sorted(set(secrets) - {"app_secret", "verify_token"}):
            raise ValueError(f"no such secret: {', '.join(unknown)}; there are app_secret and verify_token")
        return {"app_secret": randomness.token_hex(16), "verify_token": randomness.token_hex(8), **secrets}

    def shown(self, hook: Hook) -> Mapping[str, str]:
        """Both: they are the receiver's credentials."""
        return hook.secrets

    def opening(self, hook: Hook, now_s: float, id_bits: int) -> Callback | None:
        """A challenge, to be echoed."""
        challenge = str(id_bits % 10**10)
        query = urllib.parse.urlencode(
            {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": hook.secrets["verify_token"]}
        )
        url = f"{hook.url}{'&' if '?' in hook.url else '?'}{query}"
        return Callback(url, {"user-agent": "facebookplatform/1.0"}, method="GET", expected=challenge.encode())

    def messages(self, request: Request, message_id: str, now_s: float) -> Sequence[Message]:
        """The one message."""
        message = orjson.loads(request.body)
        to = number_of(message["to"])
        data = message.get("biz_opaque_callback_data")
        ids = dict(urllib.parse.parse_qsl(data or ""))
        correlation = Correlation(ids.get("notification_id"), ids.get("organization_id"))
        number = request.path.split(b"/")[2].decode()
        details = {"data": data, "number": number}
        return [Message(message_id, 0, now_s, correlation, to, number, magic_phone(to), details=details)]

    def events(self, message: Message, fate: Fate, at_s: float, id_bits: int) -> Sequence[Event]:
        """Each is one change of a webhook."""
        return [_change(message, state, code, int(at_s) + index, id_bits) for index, (state, code) in enumerate(_STATES[fate])]

    def callback(self, hook: Hook, events: Sequence[Event], now_s: float, id_bits: int) -> Callback:
        """Signed over the bytes."""
        document = {"object": "whatsapp_business_account", "entry": [{"id": ACCOUNT, "changes": list(events)}]}
        body = json.dumps(document, ensure_ascii=True).encode()
        mac = hmac.new(hook.secrets["app_secret"].encode(), body, sha256).hexdigest()
        headers = {"content-type": "application/json", "user-agent": "facebookexternalua", SIGNATURE: f"sha256={mac}"}
        return Callback(hook.url, headers, body)


def number_of(to: str) -> str:
    """A recipient in E.164 form, however it was written."""
    return "+" + "".join(character for character in to if character.isdecimal())


def _change(message: Message, state: str, code: int, at_s: int, id_bits: int) -> Event:
    metadata = {"display_phone_number": "15005550006", "phone_number_id": message.details["number"]}
    value: dict[str, Any] = {"messaging_product": "whatsapp", "metadata": metadata}
    person = message.recipient[1:]
    if state == _PREFERENCE:
        value["contacts"] = [{"profile": {"name": "Zoë"}, "wa_id": person}]
        value["user_preferences"] = [
            {
                "wa_id": person,
                "detail": "User requested to stop marketing messages",
                "category": "marketing_messages",
                "value": "stop",
                "timestamp": at_s,
            }
        ]
        return {"field": "user_preferences", "value": value}
    if state == _ANSWER:
        id = f"wamid.{blake2b(b'%d' % id_bits, digest_size=16).hexdigest()}"
        value["contacts"] = [{"profile": {"name": "Zoë"}, "wa_id": person}]
        value["messages"] = [{"from": person, "id": id, "timestamp": str(at_s), "type": "text", "text": {"body": "STOP"}}]
        return {"field": "messages", "value": value}
    status: dict[str, Any] = {
        "id": message.message_id,
        "status": state,
        "timestamp": str(at_s),
        "recipient_id": person,
    }
    if message.details["data"] is not None:
        status["biz_opaque_callback_data"] = message.details["data"]
    if code:
        title = "Undeliverable"
        details = {"details": f"Not delivered to {person}"}
        status["errors"] = [
            {"code": code, "title": title, "message": title, "error_data": details, "href": "https://example.com"}
        ]
    else:
        status["conversation"] = {"id": blake2b(person.encode(), digest_size=16).hexdigest(), "origin": {"type": "utility"}}
        status["pricing"] = {"billable": True, "pricing_model": "PMP", "category": "utility"}
    value["statuses"] = [status]
    return {"field": "messages", "value": value}
