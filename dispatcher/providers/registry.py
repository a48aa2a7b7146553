"""The providers there are, by the name a configuration gives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dispatcher.providers.apns import APNS
from dispatcher.providers.fcm import FCM
from dispatcher.providers.meta_whatsapp import META_WHATSAPP
from dispatcher.providers.provider import Bound, Limits, Moment, Provider, Request, Response, Unbindable, Unsendable
from dispatcher.providers.sendgrid import SENDGRID
from dispatcher.providers.ses import SES
from dispatcher.providers.smtp import SMTP
from dispatcher.providers.twilio import TWILIO_SMS, TWILIO_WHATSAPP
from dispatcher.providers.webpush import WEBPUSH

__all__ = ["REGISTRY", "Bound", "Limits", "Moment", "Provider", "Request", "Response", "Unbindable", "Unsendable"]

_PROVIDERS = (
    SENDGRID,
    SES,
    SMTP,
    TWILIO_SMS,
    TWILIO_WHATSAPP,
    META_WHATSAPP,
    FCM,
    APNS,
    WEBPUSH,
)

REGISTRY: Mapping[str, Provider] = MappingProxyType({provider.name: provider for provider in _PROVIDERS})
"""Every provider by its name."""
