"""Requests to SES for the tests of its sandbox and of its reports, signed by AWS's own SDK."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.ses.signature import SECRET

KEY_ID = "AKIASANDBOXSANDBOX00"
ORIGIN = "http://127.0.0.1:8025"
NOTIFICATION = "0199aaaa-bbbb-7ccc-8ddd-00000000000"


def tags(number: int = 1) -> list[dict[str, str]]:
    """The tags of one of our notifications."""
    return [{"Name": "notification_id", "Value": f"{NOTIFICATION}{number}"}, {"Name": "organization_id", "Value": "acme"}]


def mail(to: str = "somebody@example.com", **fields: Any) -> dict[str, Any]:
    """A mail without faults, with some fields set, or removed by ``...``."""
    document: dict[str, Any] = {
        "FromEmailAddress": "Tickets <tickets@example.org>",
        "Destination": {"ToAddresses": [to]},
        "EmailTags": tags(),
        "Content": {"Simple": {"Subject": {"Data": "Yours"}, "Body": {"Text": {"Data": "See you there."}}}},
        **fields,
    }
    return {name: value for name, value in document.items() if value is not ...}


def entry(to: str, number: int = 1, **values: str) -> dict[str, Any]:
    """One entry of a bulk request."""
    data = {"subject": "Yours", "text": f"Hello {number}", **values}
    return {
        "Destination": {"ToAddresses": [to]},
        "ReplacementTags": tags(number),
        "ReplacementEmailContent": {"ReplacementTemplate": {"ReplacementTemplateData": orjson.dumps(data).decode()}},
    }


def bulk(*entries: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Several mails without faults."""
    content = {"Subject": "{{subject}}", "Text": "{{text}}"}
    document: dict[str, Any] = {
        "FromEmailAddress": "tickets@example.org",
        "DefaultContent": {"Template": {"TemplateContent": content, "TemplateData": "{}"}},
        "BulkEmailEntries": list(entries),
        **fields,
    }
    return {name: value for name, value in document.items() if value is not ...}


def signed(
    path: str,
    document: object,
    now_s: float,
    *,
    method: str = "POST",
    key_id: str = KEY_ID,
    secret: str = SECRET,
    token: str | None = None,
    service: str = "ses",
    origin: str = ORIGIN,
) -> Request:
    """A request as the SDK would send it."""
    body = b"" if method == "GET" else document if isinstance(document, bytes) else orjson.dumps(document)
    request = AWSRequest(method, origin + path, {"Content-Type": "application/json"}, body)
    with patch("botocore.auth.get_current_datetime", lambda: datetime.fromtimestamp(now_s, UTC)):
        SigV4Auth(Credentials(key_id, secret, token), service, "eu-central-1").add_auth(request)
    headers = {name.lower().encode(): value.encode() for name, value in request.headers.items()}
    return Request(method.encode(), path.encode(), {**headers, b"host": urlsplit(origin).netloc.encode()}, body)


def send(document: object, now_s: float, **how: Any) -> Request:
    """One mail, or several."""
    several = isinstance(document, dict) and "BulkEmailEntries" in document
    return signed("/v2/email/outbound-bulk-emails" if several else "/v2/email/outbound-emails", document, now_s, **how)
