"""Mails and requests for the tests of the sandbox: a right one, and ways to make it wrong."""

from __future__ import annotations

from typing import Any

import orjson

from dispatcher_sandbox.messages import Request

KEY = "SG.test.key"
AUTHORIZATION = f"Bearer {KEY}"
NOTIFICATION = "0199aaaa-bbbb-7ccc-8ddd-000000000001"


def mail(to: str = "somebody@example.com", notification_id: str | None = NOTIFICATION, **fields: Any) -> dict[str, Any]:
    """A mail without faults, with some root fields set, or removed by None given as ``...``."""
    block: dict[str, Any] = {"to": [{"email": to}]}
    if notification_id is not None:
        block["custom_args"] = {"notification_id": notification_id, "organization_id": "acme"}
    document: dict[str, Any] = {
        "personalizations": [block],
        "from": {"email": "tickets@example.org", "name": "Tickets"},
        "subject": "Your tickets",
        "content": [{"type": "text/plain", "value": "See you there."}],
    }
    document.update(fields)
    return {name: value for name, value in document.items() if value is not ...}


def send(document: Any, *, key: str | None = None, **headers: str) -> Request:
    """The request of a mail; ``key`` is its idempotency key, ``headers`` set or (by an empty text) remove others."""
    all_headers = {"authorization": AUTHORIZATION, "content-type": "application/json"}
    all_headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    if key is not None:
        all_headers["idempotency-key"] = key
    encoded = {name.encode(): value.encode() for name, value in all_headers.items() if value}
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return Request(b"POST", b"/v3/mail/send", encoded, body)
