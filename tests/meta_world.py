"""Configurations of Meta's Cloud API and deliveries for tests."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from dispatcher.model import Channel, OrganizationId, ProviderConfig
from dispatcher.providers.meta_whatsapp import BoundMetaWhatsApp, bind
from twilio_world import DELIVERY as TEXT

PHONE_NUMBER_ID = "106540352242922"
ACCOUNT_ID = "102290129340398"
CREDENTIALS = {"access_token": "hush-token", "app_secret": "hush-secret", "verify_token": "hush-verify"}
SETTINGS = {"phone_number_id": PHONE_NUMBER_ID}
CONFIG = ProviderConfig("1", OrganizationId("acme"), Channel.WHATSAPP, "meta_whatsapp", SETTINGS, CREDENTIALS, revision=1)
DELIVERY = evolve(TEXT, channel=Channel.WHATSAPP)


def meta(**settings: Any) -> BoundMetaWhatsApp:
    """The Cloud API, with these settings besides the number."""
    return bind(evolve(CONFIG, settings={**SETTINGS, **settings}), {"http://127.0.0.1:8025"})
