"""What push needs for tests: a service account's key file, a VAPID key pair, browsers' subscriptions."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from orjson import dumps


@cache
def rsa_pem(bits: int = 2048) -> str:
    """A private key, the same for the whole run."""
    key = rsa.generate_private_key(65537, bits)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def service_account(**fields: Any) -> dict[str, Any]:
    """A key file as Google's console makes it."""
    return {
        "type": "service_account",
        "project_id": "hall-tickets",
        "private_key_id": "0123456789abcdef0123456789abcdef01234567",
        "private_key": rsa_pem(),
        "client_email": "sender@hall-tickets.iam.gserviceaccount.com",
        "client_id": "100000000000000000001",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
        **fields,
    }


VAPID_PRIVATE_KEY = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
VAPID_PUBLIC_KEY = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"
"""A key pair that stands in RFC 8291, as that of a server: secret to nobody."""
BROWSER_PRIVATE_KEY = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
BROWSER_PUBLIC_KEY = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
BROWSER_AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
"""Those of a browser there."""


def raw(text: str) -> bytes:
    """What base64url stands for."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def browser(endpoint: str = "https://updates.push.services.mozilla.com/wpush/v2/gAAAA", **keys: str) -> str:
    """A subscription as a recipient."""
    document = {
        "endpoint": endpoint,
        "expirationTime": None,
        "keys": {"p256dh": BROWSER_PUBLIC_KEY, "auth": BROWSER_AUTH, **keys},
    }
    return dumps(document).decode()
