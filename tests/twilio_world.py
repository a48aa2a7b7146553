"""Twilio configurations and deliveries for tests."""

from __future__ import annotations

from random import Random
from typing import Any

from attrs import evolve

from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.providers.provider import Moment
from dispatcher.providers.registry import REGISTRY
from dispatcher.providers.twilio import BoundTwilio

NOW = 1_700_000_000.0
MOMENT = Moment(NOW, Random(1).randbytes)
ID = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
ACCOUNT = "AC" + "0a" * 16
SERVICE = "MG" + "0b" * 16
CONTENT = "HX" + "0c" * 16
KEY = "SK" + "0d" * 16
TOKEN = "hush-token"
NUMBER = "+15551230000"
CREDENTIALS = {"account_sid": ACCOUNT, "auth_token": TOKEN}
SETTINGS = {"from_number": "+15005550006"}
ORIGINS = {"http://127.0.0.1:8025"}
SMS = ProviderConfig("1", OrganizationId("acme"), Channel.SMS, "twilio_sms", SETTINGS, CREDENTIALS, revision=1)
WHATSAPP = evolve(SMS, channel=Channel.WHATSAPP, provider="twilio_whatsapp")
DELIVERY = Delivery(
    ID, OrganizationId("acme"), Channel.SMS, NUMBER, {"text": "Doors at 7 & later"}, attempt=1, attempts_max=8, created_at_s=NOW
)
TEMPLATE = {"name": "order_update", "language": "en_US", "parameters": ["Ann", "B7"]}


def sms(credentials: dict[str, str] | None = None, **settings: Any) -> BoundTwilio:
    """Twilio for texts, with these settings besides the sender."""
    return _bound(SMS, credentials, settings)


def whatsapp(credentials: dict[str, str] | None = None, **settings: Any) -> BoundTwilio:
    """Twilio for WhatsApp."""
    return _bound(WHATSAPP, credentials, settings)


def _bound(config: ProviderConfig, credentials: dict[str, str] | None, settings: dict[str, Any]) -> BoundTwilio:
    chosen = {name: value for name, value in {**SETTINGS, **settings}.items() if value is not None}
    bound = REGISTRY[config.provider].bind(evolve(config, settings=chosen, credentials=credentials or CREDENTIALS), ORIGINS)
    assert isinstance(bound, BoundTwilio)
    return bound
