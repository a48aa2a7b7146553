"""SendGrid v3 as a simulator: routes, authentication, and the wording of every answer.

``POST /v3/mail/send`` is what it is for; ``POST /v3/mail/batch`` hands out ids that group scheduled mails, ``GET /v3/messages``
tells what was sent. Two things the real
one does not know: the header ``idempotency-key``, which a gateway in front of it may honour and the behaviour may switch on, and
the 422 for such a key used again with another body.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic import Magic, magic_of
from dispatcher_sandbox.messages import JSON, REASONS, Answer, Request, gateway_page
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.sendgrid.activity import listing, search_of
from dispatcher_sandbox.sendgrid.events import Events
from dispatcher_sandbox.sendgrid.faults import Fault, Unreadable, at, refusal
from dispatcher_sandbox.sendgrid.mail import faults_of
from dispatcher_sandbox.sendgrid.people import domain_of
from dispatcher_sandbox.sendgrid.settings import is_sandboxed
from dispatcher_sandbox.simulator import Intake, Search

_SEND = b"/v3/mail/send"
_BATCH = b"/v3/mail/batch"
_ACTIVITY = b"/v3/messages"
_METHODS = {_SEND: b"POST", _BATCH: b"POST", _ACTIVITY: b"GET"}
_BEARER = b"Bearer SG."
_NO_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"

_TEXTS: dict[tuple[int, str], Fault] = {
    (400, ""): Fault("Bad Request"),
    (400, "address"): at("personalizations.0.to.0.email", "Does not contain a valid address."),
    (401, ""): Fault("The provided authorization grant is invalid, expired, or revoked"),
    (401, "credits"): Fault("Maximum credits exceeded"),
    (403, ""): Fault("access forbidden"),
    (403, "sender"): Fault("The from address does not match a verified Sender Identity.", "from"),
    (404, ""): Fault("resource not found"),
    (405, ""): Fault("method not allowed"),
    (415, ""): Fault("Content-Type should be application/json."),
    (422, "idempotency_key"): Fault("This idempotency key was used with another request body."),
    (429, ""): Fault("too many requests"),
    (500, ""): Fault("internal server error"),
}

_BY_FRONT_SERVER = frozenset({413, 502, 503, 504})
"""Statuses the server in front of the API answers by itself, with a page instead of JSON."""


class SendGrid(Events):
    """The simulator. Holds nothing."""

    name = "sendgrid"
    prefix = b"/v3/"
    ceiling_per_s = 10_000
    """As documented for mail/send."""

    def account(self, request: Request) -> bytes:
        """The API key."""
        return request.headers.get(b"authorization", b"")

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Answer:
        """Route, authenticate, check."""
        headers = request.headers
        target = request.target
        if target != _SEND:
            target = request.path
            if target not in _METHODS:
                return _refused(404)
        if request.method != _METHODS[target]:
            return _refused(405)._replace(headers=JSON + b"Allow: %b\r\n" % _METHODS[target])
        key = headers.get(b"authorization", b"")
        if not key.startswith(_BEARER) or len(key) == len(_BEARER) or b" " in key[len(_BEARER) :]:
            return _refused(401)
        if target == _BATCH:
            return _batch(key, now_s)
        if target == _ACTIVITY:
            return search_of(request.target) if behaviour.email_activity else _refused(403)
        kind = headers.get(b"content-type", b"")
        if kind != b"application/json" and kind.partition(b";")[0].strip().lower() != b"application/json":
            return _refused(415)
        try:
            mail = orjson.loads(request.body)
            faults = faults_of(mail, now_s)
        except (orjson.JSONDecodeError, Unreadable):
            return _refused(400)
        if faults:
            return refusal(400, faults)
        if behaviour.sender_domains and domain_of(mail["from"]["email"]) not in behaviour.sender_domains:
            return _refused(403, "sender")
        return _intake(mail, headers.get(b"idempotency-key"), behaviour.magic_recipients)

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """202 without a body; the id is in a header."""
        message_id = base64.urlsafe_b64encode(id_bits.to_bytes(16, "big"))[:22]
        return message_id.decode(), Answer(202, b"%bX-Message-Id: %b\r\n" % (_NO_TEXT, message_id))

    def replayed(self, message_id: str) -> Answer:
        """The 202 again."""
        return Answer(202, b"%bX-Message-Id: %b\r\n" % (_NO_TEXT, message_id.encode()))

    def validated(self) -> Answer:
        """200 without a body: sandbox mode."""
        return Answer(200, _NO_TEXT)

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """The mails a search has found."""
        return listing(sent)

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found."""
        return _refused(status, reason)

    def rate_headers(self, rate: Rate) -> bytes:
        """The three headers of the v3 API."""
        return b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
            rate.limit,
            rate.remaining,
            rate.reset_s,
        )


def _refused(status: int, reason: str = "") -> Answer:
    if status in _BY_FRONT_SERVER:
        return gateway_page(status)
    reason, _, places = reason.partition(":")
    fault = _TEXTS.get((status, reason)) or Fault(REASONS.get(status, "error").lower())
    if not places:
        return refusal(status, [fault])
    return refusal(status, [at(f"personalizations.{place}.to.0.email", fault.message) for place in places.split(",")])


def _batch(key: bytes, now_s: float) -> Answer:
    """A new batch id."""
    digest = hashlib.blake2b(b"%b %f" % (key, now_s), digest_size=36).digest()
    return Answer(201, JSON, orjson.dumps({"batch_id": base64.urlsafe_b64encode(digest).decode()}))


def _intake(mail: dict[str, Any], key: bytes | None, magic_recipients: bool) -> Intake:
    """What a mail without faults carries."""
    root = mail.get("custom_args")
    correlations: list[Correlation] = []
    tricks: list[tuple[int, Magic, str]] = []
    for block in mail["personalizations"]:
        own = block.get("custom_args")
        arguments = own if root is None else root if own is None else {**root, **own}
        if magic_recipients and (found := _first_magic(block)) is not None:
            tricks.append((len(correlations), *found))
        if arguments is None:
            correlations.append(Correlation(None, None))
        else:
            correlations.append(Correlation(arguments.get("notification_id"), arguments.get("organization_id")))
    idempotency_key = None if key is None else key.decode("latin-1")
    validate_only = "mail_settings" in mail and is_sandboxed(mail)
    if not tricks:
        return Intake(tuple(correlations), idempotency_key, None, "", validate_only)
    place, magic, address = _deciding(tricks)
    name = correlations[place].notification_id or idempotency_key or address
    return Intake(tuple(correlations), idempotency_key, magic, name, validate_only)


def _deciding(tricks: list[tuple[int, Magic, str]]) -> tuple[int, Magic, str]:
    """The magic recipient that decides: the first, unless addresses are refused; of those the answer names every one."""
    if len(tricks) == 1 and not tricks[0][0]:
        return tricks[0]
    wrong = [trick for trick in tricks if trick[1].reason == "address"]
    if not wrong:
        return tricks[0]
    place, magic, address = wrong[0]
    return place, magic._replace(reason="address:" + ",".join(str(trick[0]) for trick in wrong)), address


def _first_magic(block: dict[str, Any]) -> tuple[Magic, str] | None:
    for kind in ("to", "cc", "bcc"):
        for person in block.get(kind) or ():
            found = magic_of(person["email"])
            if found is not None:
                return found, person["email"]
    return None
