"""The demo's provider configurations: one of every kind, each leading to a sandbox, with credentials made up on the spot."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dispatcher_sandbox.sandbox import Sandbox
from dispatcher_sandbox.simulators import ACCOUNTS

Document = dict[str, Any]
SENDER = "tickets@concert-hall.example"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:concert-hall"
"""Of the account that the sandbox sends as: reports about any other account's mail would be refused."""
META_SECRETS = {"app_secret": secrets.token_hex(16), "verify_token": secrets.token_hex(8)}


def mail(sandbox: Sandbox) -> Document:
    """SendGrid, the first choice for mail."""
    credentials = {"api_key": f"SG.{secrets.token_urlsafe(16)}.{secrets.token_urlsafe(32)}"}
    return _document("sendgrid", "email", credentials, {"from_email": SENDER, "base_url": sandbox.url})


def standby(sandbox: Sandbox) -> Document:
    """Amazon SES, for when SendGrid is down."""
    credentials = {"access_key_id": "AKIASANDBOXSANDBOX00", "secret_access_key": "sandbox-secret-access-key"}
    settings = {"region": "eu-west-1", "from_email": SENDER, "base_url": sandbox.url}
    return {**_document("ses", "email", credentials, settings), "priority": 1}


def texts(sandbox: Sandbox) -> Document:
    """Twilio, for texts."""
    credentials = {"account_sid": "AC" + secrets.token_hex(16), "auth_token": secrets.token_hex(16)}
    return _document("twilio_sms", "sms", credentials, {"from_number": "+15005550006", "base_url": sandbox.url})


def whatsapp(sandbox: Sandbox) -> Document:
    """Meta's Cloud API."""
    credentials = {"access_token": secrets.token_urlsafe(24), **META_SECRETS}
    return _document("meta_whatsapp", "whatsapp", credentials, {"phone_number_id": "106540352242922", "base_url": sandbox.url})


def devices(sandbox: Sandbox) -> list[Document]:
    """Push: FCM, APNs and browsers. Which of them a token belongs to, its form says."""
    key_file = ACCOUNTS.key_file("concert-hall", sandbox.url)
    signing = ec.generate_private_key(ec.SECP256R1())
    pem = signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    vapid = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32, "big")
    apple = {"team_id": "TEAM123456", "key_id": "KEY1234567", "private_key": pem}
    return [
        _document("fcm", "push", {"service_account": key_file}, {"base_url": sandbox.url}),
        _document("apns", "push", apple, {"topic": "example.concert-hall", "base_url": sandbox.urls["apns"]}),
        _document("webpush", "push", {"vapid_private_key": _base64url(vapid)}, {"subject": "mailto:ops@concert-hall.example"}),
    ]


def _document(provider: str, channel: str, credentials: Document, settings: Document) -> Document:
    return {"provider": provider, "channel": channel, "credentials": credentials, "settings": settings}


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
