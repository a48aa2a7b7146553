"""Twilio's Messages resource as a simulator, for texts and WhatsApp: routes, authentication, and the wording of every answer.

Whoever says STOP (see ``reports``) is refused with 21610 by this account and sender from then on. The auth token of a request
signs the callbacks of its message; one that came with an API key is signed with the last token the account was seen with.
"""

from __future__ import annotations

import base64
import re
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import Any

import orjson

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic_phone import magic_phone
from dispatcher_sandbox.messages import JSON, REASONS, Answer, Request, gateway_page
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.simulator import Intake, Search
from dispatcher_sandbox.twilio.faults import TEXTS, Fault, refusal
from dispatcher_sandbox.twilio.form import Form, form_of
from dispatcher_sandbox.twilio.reports import Reports, ids_of

REMEMBERED_MAX = 100_000

_PATH = re.compile(rb"/2010-04-01/Accounts/(AC[0-9a-f]{32})(/Messages|/IncomingPhoneNumbers)?\.json")
_KEY = re.compile(r"SK[0-9a-f]{32}")
_FORM = b"application/x-www-form-urlencoded"
_BY_FRONT_SERVER = frozenset({413, 502, 504})


class Twilio(Reports):
    """The simulator. Holds the auth tokens it has seen, and who has said STOP to whom."""

    name = "twilio"
    prefix = b"/2010-04-01/"
    ceiling_per_s = 100
    """The real one limits requests under way, by account, and tells no number."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._stopped: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    def renewed(self) -> Twilio:
        """The same without what it has seen."""
        return Twilio()

    def account(self, request: Request) -> bytes:
        """The account of the path."""
        match = _PATH.fullmatch(request.path)
        return match[1] if match else b"twilio"

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Answer:
        """Route, authenticate, check."""
        match = _PATH.fullmatch(request.path)
        if match is None:
            return _refused(404)
        account = match[1].decode()
        if not self._knows(request, account):
            return _refused(401)
        if match[2] != b"/Messages":
            if request.method != b"GET":
                return _refused(405)
            return Answer(200, JSON, orjson.dumps(_resource(account) if match[2] is None else {"incoming_phone_numbers": []}))
        if request.method != b"POST":
            return _refused(405)
        if request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _FORM:
            return refusal(Fault(20001, "Content-Type should be application/x-www-form-urlencoded."))
        form = form_of(request.body)
        if isinstance(form, Fault):
            return refusal(form)
        if self.has_stopped(account, form):
            return _refused(400, "opted-out")
        key = request.headers.get(b"idempotency-key")
        idempotency_key = None if key is None else key.decode("latin-1")
        correlation = correlation_of(form, idempotency_key)
        magic = magic_phone(form.to) if behaviour.magic_recipients else None
        return Intake(
            (correlation,),
            idempotency_key,
            magic,
            "" if magic is None else correlation.notification_id or form.to,
            words=partial(_created, account, form, now_s),
        )

    def _knows(self, request: Request, account: str) -> bool:
        """Whether the credentials are the account's or a key's. Any secret is right: there is nothing to compare it with."""
        scheme, _, encoded = request.headers.get(b"authorization", b"").partition(b" ")
        try:
            user, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return False
        if scheme.lower() != b"basic" or not secret:
            return False
        if user == account:
            self._tokens[account] = secret
            self._tokens.move_to_end(account)
            if len(self._tokens) > REMEMBERED_MAX:
                self._tokens.popitem(last=False)
            return True
        return _KEY.fullmatch(user) is not None

    def token_of(self, account: str) -> str | None:
        """The last auth token that the account was seen with."""
        return self._tokens.get(account)

    def stop(self, account: str, form: Form) -> None:
        """The recipient of this message wants no more of its sender."""
        self._stopped[_pair(account, form)] = None
        if len(self._stopped) > REMEMBERED_MAX:
            self._stopped.popitem(last=False)

    def has_stopped(self, account: str, form: Form) -> bool:
        """Whether the recipient has said so."""
        return _pair(account, form) in self._stopped

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """201 with nothing but the id; ``read`` gives what says more."""
        sid = f"SM{id_bits:032x}"
        return sid, self.replayed(sid)

    def replayed(self, message_id: str) -> Answer:
        """The 201 again."""
        return Answer(201, JSON, orjson.dumps({"sid": message_id, "status": "queued", "error_code": None, "error_message": None}))

    def validated(self) -> Answer:
        """Never asked for."""
        return Answer(200, JSON, b"{}")

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """Never asked for: Twilio's list of messages can not be searched by our ids."""
        return Answer(200, JSON, b'{"messages": []}')

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found."""
        return _refused(status, reason)

    def rate_headers(self, rate: Rate) -> bytes:
        """How many requests are under way is all that Twilio tells."""
        return b"Twilio-Concurrent-Requests: %d\r\n" % (rate.limit - rate.remaining)


def correlation_of(form: Form, idempotency_key: str | None) -> Correlation:
    """Our ids in the query of the status callback; without one, an idempotency key is the notification's id."""
    ids = ids_of(form.callback or "")
    return Correlation(ids.get("notification_id", idempotency_key), ids.get("organization_id"))


def _refused(status: int, reason: str = "") -> Answer:
    if status in _BY_FRONT_SERVER:
        return gateway_page(status)
    fault = TEXTS.get((status, reason)) or Fault(20000 + status, REASONS.get(status, "Error"), status)
    return refusal(fault)


def _pair(account: str, form: Form) -> tuple[str, str, str]:
    sender = form.fields.get("MessagingServiceSid") or form.fields["From"]
    return account, sender, form.fields["To"]


def _resource(account: str) -> dict[str, Any]:
    """An account, as far as anybody looks at it."""
    uri = f"/2010-04-01/Accounts/{account}.json"
    return {"sid": account, "status": "active", "type": "Full", "friendly_name": "Sandbox", "uri": uri}


def _created(account: str, form: Form, now_s: float, id_bits: int) -> tuple[str, Answer]:
    """201 with the message, which repeats what was sent."""
    fields = form.fields
    sid = f"SM{id_bits:032x}"
    uri = f"/2010-04-01/Accounts/{account}/Messages/{sid}"
    service = fields.get("MessagingServiceSid")
    date = format_datetime(datetime.fromtimestamp(int(now_s), UTC)).replace("GMT", "+0000")
    message = {
        "sid": sid,
        "status": "queued" if service is None else "accepted",
        "account_sid": account,
        "api_version": "2010-04-01",
        "body": fields.get("Body", ""),
        "date_created": date,
        "date_sent": None,
        "date_updated": date,
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": fields.get("From"),
        "messaging_service_sid": service,
        "num_media": "0",
        "num_segments": "1" if service is None else "0",
        "price": None,
        "price_unit": "USD",
        "subresource_uris": {"media": f"{uri}/Media.json"},
        "to": fields["To"],
        "uri": f"{uri}.json",
    }
    return sid, Answer(201, JSON, orjson.dumps(message))
