"""Messages of SNS for tests: a certificate of our own making, and a signer that shares nothing with what checks it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

NOW = 1_700_000_000.0
TOPIC = "arn:aws:sns:eu-central-1:123456789012:ses-reports"
CERTIFICATE_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"
CONFIRM_URL = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37"
MESSAGE_ID = "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"


@cache
def key() -> rsa.RSAPrivateKey:
    """The key of these tests."""
    return rsa.generate_private_key(65_537, 2048)


def certificate(
    from_s: float = NOW - 86_400, until_s: float = NOW + 86_400, private: CertificateIssuerPrivateKeyTypes | None = None
) -> bytes:
    """A certificate in PEM, valid between two times, of the tests' key or another."""
    private = private or key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key()).serial_number(1)
    made = builder.not_valid_before(datetime.fromtimestamp(from_s, UTC)).not_valid_after(datetime.fromtimestamp(until_s, UTC))
    return made.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@cache
def certificate_of_a_curve() -> bytes:
    """One whose key is not of RSA."""
    return certificate(private=ec.generate_private_key(ec.SECP256R1()))


@cache
def good() -> bytes:
    """The usual one."""
    return certificate()


def time(unix_s: float) -> str:
    """As SNS writes it."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def envelope(
    message: object = "hello", *, kind: str = "Notification", at_s: float = NOW, version: str = "1", **fields: Any
) -> dict[str, Any]:
    """A signed envelope. ``fields`` are set before it is signed."""
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    made: dict[str, Any] = {"Type": kind, "MessageId": MESSAGE_ID, "TopicArn": TOPIC, "Message": text, "Timestamp": time(at_s)}
    if kind != "Notification":
        made |= {"Token": "2336412f37", "SubscribeURL": CONFIRM_URL}
    return resigned({**made, "SignatureVersion": version, "SigningCertURL": CERTIFICATE_URL, **fields})


def resigned(made: dict[str, Any]) -> dict[str, Any]:
    """The same with a signature that fits."""
    order = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{made[name]}\n" for name in order if name in made)
    digest = hashes.SHA256() if made["SignatureVersion"] == "2" else hashes.SHA1()
    return {**made, "Signature": base64.b64encode(key().sign(text.encode(), padding.PKCS1v15(), digest)).decode()}
