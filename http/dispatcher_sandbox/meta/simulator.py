"""Meta's WhatsApp Cloud API as a simulator: ``POST /{version}/{phone_number_id}/messages``, and a look at the number.

Every phone number id exists but one that begins with ``404``, and every bearer token is good. Our ids are read from
``biz_opaque_callback_data``, written as the query of a URL.
"""

from __future__ import annotations

import base64
import re
import urllib.parse
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic_phone import magic_phone
from dispatcher_sandbox.messages import JSON, REASONS, Answer, Request, gateway_page
from dispatcher_sandbox.meta.faults import TEXTS, Fault, refusal
from dispatcher_sandbox.meta.reports import Reports, number_of
from dispatcher_sandbox.meta.rules import fault_of
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.simulator import Intake, Search

VERSIONS = range(17, 40)
NOT_THERE = "404"

_PATH = re.compile(rb"/v[0-9]{2}\.[0-9]/([0-9]{1,32})(/messages)?")
_BEARER = b"Bearer "
_BY_FRONT_SERVER = frozenset({413, 502, 504})


class Meta(Reports):
    """The simulator. Holds nothing."""

    name = "meta"
    prefix = tuple(b"/v%d." % version for version in VERSIONS)
    ceiling_per_s = 80
    """Of one number, until Meta raises it."""

    def account(self, request: Request) -> bytes:
        """The number: its throughput is what Meta counts."""
        match = _PATH.fullmatch(request.path)
        return match[1] if match else b"meta"

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Answer:
        """Route, authenticate, check."""
        match = _PATH.fullmatch(request.path)
        if match is None:
            return _refused(404)
        token = request.headers.get(b"authorization", b"")
        if not token.startswith(_BEARER) or not token[len(_BEARER) :].strip():
            return _refused(401)
        number = match[1].decode()
        if number.startswith(NOT_THERE):
            message = f"Unsupported {request.method.decode('latin-1').lower()} request. Object with ID '{number}' does not exist"
            return refusal(Fault(100, message, subcode=33))
        if match[2] is None:
            return Answer(200, JSON, orjson.dumps(_resource(number))) if request.method == b"GET" else _refused(405)
        if request.method != b"POST":
            return _refused(405)
        try:
            message = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return _refused(400)
        fault = fault_of(message)
        if fault is not None:
            return refusal(fault)
        to = number_of(message["to"])
        ids = dict(urllib.parse.parse_qsl(message.get("biz_opaque_callback_data", "")))
        key = request.headers.get(b"idempotency-key")
        magic = magic_phone(to) if behaviour.magic_recipients else None
        return Intake(
            (Correlation(ids.get("notification_id"), ids.get("organization_id")),),
            None if key is None else key.decode("latin-1"),
            magic,
            "" if magic is None else ids.get("notification_id", to),
            words=partial(_created, message, to),
        )

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """200 with nothing but the id; ``read`` gives what says more."""
        message_id = _message_id(id_bits)
        return message_id, self.replayed(message_id)

    def replayed(self, message_id: str) -> Answer:
        """The 200 again."""
        return Answer(200, JSON, orjson.dumps({"messaging_product": "whatsapp", "messages": [{"id": message_id}]}))

    def validated(self) -> Answer:
        """Never asked for."""
        return Answer(200, JSON, b"{}")

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """Never asked for: sent messages can not be listed."""
        return Answer(200, JSON, b'{"data": []}')

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found."""
        return _refused(status, reason)

    def rate_headers(self, rate: Rate) -> bytes:
        """How much of the app's hourly calls is used up, in per cent."""
        used = 100 * (rate.limit - rate.remaining) // rate.limit
        return b'X-App-Usage: {"call_count":%d,"total_cputime":0,"total_time":0}\r\n' % used


def _refused(status: int, reason: str = "") -> Answer:
    if status in _BY_FRONT_SERVER:
        return gateway_page(status)
    return refusal(TEXTS.get((status, reason)) or Fault(1 if status >= 500 else 100, REASONS.get(status, "Error"), status=status))


def _resource(number: str) -> dict[str, Any]:
    return {
        "id": number,
        "display_phone_number": "+1 500-555-0006",
        "verified_name": "Sandbox",
        "quality_rating": "GREEN",
        "status": "CONNECTED",
    }


def _message_id(id_bits: int) -> str:
    return "wamid." + base64.b64encode(b"sandbox" + id_bits.to_bytes(16, "big")).decode()


def _created(message: dict[str, Any], to: str, id_bits: int) -> tuple[str, Answer]:
    """200 with the recipient as it was given and as WhatsApp knows it."""
    message_id = _message_id(id_bits)
    created: dict[str, str] = {"id": message_id}
    if message.get("type") == "template":
        created["message_status"] = "accepted"
    document = {
        "messaging_product": "whatsapp",
        "contacts": [{"input": message["to"], "wa_id": to[1:]}],
        "messages": [created],
    }
    return message_id, Answer(200, JSON, orjson.dumps(document))
