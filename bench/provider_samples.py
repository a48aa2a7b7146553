"""One configuration, recipient and message of each provider, for the bench: what costs are compared with.

A provider without a sample is named by the bench, so add one with the provider. ``url`` is always the sandbox's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import httpx
import orjson
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.rig import API_KEY, TEXT
from dispatcher.http_message import HttpResponse
from dispatcher.model import Channel
from dispatcher.providers.provider import Response
from dispatcher.smtp_message import SmtpReply, SmtpResponse, Stage
from dispatcher_sandbox.ses.signature import SECRET
from dispatcher_sandbox.webpush import subscription

SHORT = "Doors open at seven. Your seat is B7."
MAIL = {"subject": "Your tickets", "text": TEXT}
PUSH = {"title": "Doors", "text": SHORT, "data": {"seat": "B7"}}
BROWSERS = 16
"""Subscriptions that pushes go to in turns: making one costs more than encrypting for it."""


@frozen
class Sample:
    """How one provider is used. ``answer`` is for one that is not called here, because its way is not HTTP/1.1."""

    channel: Channel
    payload: Mapping[str, Any]
    recipient: Callable[[str, int], str]
    settings: Callable[[str], Mapping[str, Any]]
    credentials: Callable[[str], Mapping[str, Any]]
    answer: Response | None = None
    origin: str = ""
    """What it must be allowed to name, beside the sandbox."""


def _mail_to(_url: str, number: int) -> str:
    return f"reader{number}@example.org"


def _number(_url: str, number: int) -> str:
    return f"+1206555{number % 10_000:04d}"


@cache
def _curve_key(encoding: Encoding, form: PrivateFormat) -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(encoding, form, NoEncryption())


def _apple(_url: str) -> Mapping[str, Any]:
    pem = _curve_key(Encoding.PEM, PrivateFormat.PKCS8).decode()
    return {"team_id": "TEAM123456", "key_id": "KEY1234567", "private_key": pem}


@cache
def _google(url: str) -> Mapping[str, Any]:
    return {"service_account": httpx.get(f"{url}/_sandbox/fcm/service-account?project_id=hall").json()}


def _vapid(_url: str) -> Mapping[str, Any]:
    return {"vapid_private_key": _curve_key(Encoding.PEM, PrivateFormat.PKCS8).decode()}


@cache
def _subscription(url: str, number: int) -> str:
    return orjson.dumps(subscription(url, f"browser-{number}")).decode()


def _twilio(_url: str) -> Mapping[str, Any]:
    return {"account_sid": "AC" + "0a" * 16, "auth_token": "bench-token"}


SAMPLES: Mapping[str, Sample] = MappingProxyType(
    {
        "sendgrid": Sample(
            Channel.EMAIL,
            MAIL,
            _mail_to,
            lambda url: {"from_email": "shop@example.org", "base_url": url},
            lambda _: {"api_key": API_KEY},
        ),
        "ses": Sample(
            Channel.EMAIL,
            MAIL,
            _mail_to,
            lambda url: {"region": "eu-central-1", "from_email": "shop@example.org", "base_url": url},
            lambda _: {"access_key_id": "AKIASANDBOXSANDBOX00", "secret_access_key": SECRET},
        ),
        "smtp": Sample(
            Channel.EMAIL,
            MAIL,
            _mail_to,
            lambda _: {"host": "mail.example.org", "from_email": "shop@example.org"},
            lambda _: {"username": "shop", "password": "bench"},
            SmtpResponse(Stage.MESSAGE, SmtpReply(250, (2, 0, 0), b"queued"), (SmtpReply(250),)),
            "smtp://mail.example.org:587",
        ),
        "twilio_sms": Sample(
            Channel.SMS, {"text": SHORT}, _number, lambda url: {"from_number": "+15005550006", "base_url": url}, _twilio
        ),
        "twilio_whatsapp": Sample(
            Channel.WHATSAPP, {"text": SHORT}, _number, lambda url: {"from_number": "+15005550006", "base_url": url}, _twilio
        ),
        "meta_whatsapp": Sample(
            Channel.WHATSAPP,
            {"text": SHORT},
            _number,
            lambda url: {"phone_number_id": "106540352242922", "base_url": url},
            lambda _: {"access_token": "bench-token", "app_secret": "bench-secret", "verify_token": "bench-verify"},
        ),
        "fcm": Sample(
            Channel.PUSH, PUSH, lambda _, number: f"device{number}:APA91b{'x' * 130}", lambda url: {"base_url": url}, _google
        ),
        "apns": Sample(
            Channel.PUSH,
            PUSH,
            lambda _, number: f"{number:064x}",
            lambda _: {"topic": "org.example.tickets"},
            _apple,
            HttpResponse(200, ((b"apns-id", b"0192d3a4-7c1e-7f00-8000-000000000001"),), b""),
        ),
        "webpush": Sample(
            Channel.PUSH,
            PUSH,
            lambda url, number: _subscription(url, number % BROWSERS),
            lambda _: {"subject": "mailto:ops@example.org"},
            _vapid,
        ),
    }
)
"""By the provider's name."""
