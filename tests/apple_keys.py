"""What Apple's push service needs for tests: a signing key as its ``.p8`` file, and the ids that go with it."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

TEAM_ID = "TEAM123456"
KEY_ID = "KEY1234567"


@cache
def p8(name: str = "") -> str:
    """A private key, for each name the same for the whole run."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def apple_credentials() -> dict[str, str]:
    """Credentials of a provider configuration."""
    return {"team_id": TEAM_ID, "key_id": KEY_ID, "private_key": p8()}
