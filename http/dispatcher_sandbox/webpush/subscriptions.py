"""Browsers' subscriptions, and the reading of what was encrypted for them (RFC 8291 over RFC 8188).

A subscription's keys are derived from its name, and the key of the one server that may send to it stands in its endpoint, so any
sandbox knows every subscription of any other. That makes them worthless as secrets, which is right for a sandbox.
"""

from __future__ import annotations

import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PREFIX = "/push/"
ANYBODY = "any"
"""In the place of a server's key: whoever has one may send."""
BODY_BYTES_MAX = 4096
_PATH = re.compile(r"/push/(any|[A-Za-z0-9_-]{87})/([A-Za-z0-9_.~-]{1,128})")
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_HEAD = struct.Struct("!16sIB")
_TAG_BYTES = 16


class Undecryptable(Exception):
    """A browser would throw this away."""


class Subscription(NamedTuple):
    """What the service knows of one. ``server_key`` is the public key it was made for, None for any."""

    name: str
    server_key: str | None


def subscription(origin: str, name: str, server_key: str | None = None) -> dict[str, Any]:
    """What a browser would hand to the app, as the object that becomes the recipient's JSON."""
    endpoint = f"{origin}{PREFIX}{server_key or ANYBODY}/{name}"
    if _PATH.fullmatch(endpoint[len(origin) :]) is None:
        raise ValueError("a name has 1 to 128 characters of A-Z a-z 0-9 _ . ~ -, a key 87 of base64url")
    public = _private_key(name).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {"endpoint": endpoint, "keys": {"p256dh": _text(public), "auth": _text(_secret(name))}}


def subscription_at(path: str) -> Subscription | None:
    """The one an endpoint's path names."""
    match = _PATH.fullmatch(path)
    return None if match is None else Subscription(match[2], None if match[1] == ANYBODY else match[1])


def decrypt(name: str, body: bytes) -> bytes:
    """What the browser of this subscription reads. Raises Undecryptable."""
    if len(body) < _HEAD.size + 65 + _TAG_BYTES + 1:
        raise Undecryptable
    salt, record_bytes, id_bytes = _HEAD.unpack_from(body)
    sender, record = body[_HEAD.size : _HEAD.size + id_bytes], body[_HEAD.size + id_bytes :]
    if id_bytes != 65 or record_bytes < _TAG_BYTES + 2 or len(record) > record_bytes:
        raise Undecryptable  # several records are allowed in general and forbidden for push
    key = _private_key(name)
    own = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    try:
        shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
        seed = _hkdf(_secret(name), shared, b"WebPush: info\x00" + own + sender, 32)
        content_key = _hkdf(salt, seed, b"Content-Encoding: aes128gcm\x00", 16)
        padded = AESGCM(content_key).decrypt(_hkdf(salt, seed, b"Content-Encoding: nonce\x00", 12), record, None)
    except (ValueError, InvalidTag):
        raise Undecryptable from None
    plain = padded.rstrip(b"\x00")
    if not plain.endswith(b"\x02"):
        raise Undecryptable
    return plain[:-1]


def public_key_of(text: str) -> ec.EllipticCurvePublicKey | None:
    """A server's key as it stands in a header."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return None


def _private_key(name: str) -> ec.EllipticCurvePrivateKey:
    drawn = int.from_bytes(_hkdf(b"sandbox", name.encode(), b"p256dh", 48))
    return ec.derive_private_key(drawn % (_ORDER - 1) + 1, ec.SECP256R1())


def _secret(name: str) -> bytes:
    return _hkdf(b"sandbox", name.encode(), b"auth", 16)


def _hkdf(salt: bytes, material: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(material)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
