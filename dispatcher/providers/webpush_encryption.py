"""Encryption of a push message for one browser: RFC 8291, one ``aes128gcm`` record of RFC 8188.

A key pair and a salt of its own for every message; nothing of either is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RECORD_BYTES: Final = 4096
"""What every push service must take of a body."""
PLAINTEXT_BYTES_MAX: Final = RECORD_BYTES - 86 - 17
"""The record without its head of salt, size and key, its tag and its delimiter: 3993."""
SALT_BYTES: Final = 16

_DRAWN_BYTES = 48
"""A third more than a scalar has, so that reducing them favours no scalar by more than chance could show."""
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_LAST_RECORD = b"\x02"


class NoPoint(ValueError):
    """A browser's public key is no point of the curve."""


def encrypt(plaintext: bytes, public_key: bytes, auth: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
    """The body of a request, at most ``PLAINTEXT_BYTES_MAX`` bytes of plaintext. Raises NoPoint."""
    drawn = int.from_bytes(random_bytes(_DRAWN_BYTES))
    key = ec.derive_private_key(drawn % (_ORDER - 1) + 1, ec.SECP256R1())
    return encrypt_with(key, random_bytes(SALT_BYTES), plaintext, public_key, auth)


def encrypt_with(key: ec.EllipticCurvePrivateKey, salt: bytes, plaintext: bytes, public_key: bytes, auth: bytes) -> bytes:
    """The same with a given key and salt, neither of which may ever be used for another message."""
    try:
        browser = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError:
        raise NoPoint from None
    own = raw_public_key(key)
    seed = _hkdf(auth, key.exchange(ec.ECDH(), browser), b"WebPush: info\x00" + public_key + own, 32)
    content_key = _hkdf(salt, seed, b"Content-Encoding: aes128gcm\x00", 16)
    nonce = _hkdf(salt, seed, b"Content-Encoding: nonce\x00", 12)
    head = struct.pack("!16sIB", salt, RECORD_BYTES, len(own)) + own
    return head + AESGCM(content_key).encrypt(nonce, plaintext + _LAST_RECORD, None)


def raw_public_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half as an uncompressed point."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _hkdf(salt: bytes, material: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(material)
