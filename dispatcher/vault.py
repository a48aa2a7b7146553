"""Credentials at rest: sealed with AES-256-GCM under one of several named keys, so that keys can be rotated.

A sealed value is ``version (1 byte) | length of key id (1 byte) | key id | nonce (12 bytes) | ciphertext and tag``. Everything
before the nonce is authenticated, and so is the *context*, the identity of the row the value belongs to: a sealed value moved to
another row does not open. The first key seals, every key opens; to rotate, put a new key first and drop the old one when
nothing is sealed with it any more. Invariant: neither a key nor a plaintext ever stands in a repr or an error.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from types import MappingProxyType

from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dispatcher.errors import ConfigError

KEYS_VARIABLE = "DISPATCHER_ENCRYPTION_KEYS"
"""Where the keys come from, for the messages to name."""
KEY_BYTES = 32
NONCE_BYTES = 12
"""How many bytes a nonce takes. It must be random and must never be used twice under one key."""

_VERSION = 1
_TAG_BYTES = 16
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")


@frozen
class EncryptionKeys:
    """Named 32-byte keys in order of preference: the first one seals, all of them open."""

    sealing_id: str
    _ciphers: Mapping[str, AESGCM] = field(repr=False, eq=False)

    @classmethod
    def of(cls, keys: Mapping[str, bytes]) -> EncryptionKeys:
        """Take keys by their ids, the sealing one first. Raises ConfigError when one can not be used."""
        if not keys:
            raise ConfigError(f"{KEYS_VARIABLE}: holds no key; give id:base64 of {KEY_BYTES} random bytes")
        for position, (key_id, key) in enumerate(keys.items(), 1):
            if _KEY_ID.fullmatch(key_id) is None:
                raise ConfigError(
                    f"{KEYS_VARIABLE}: the id of key {position} must be 1 to 32 letters, digits, dots, hyphens or underscores"
                )
            if len(key) != KEY_BYTES:
                raise ConfigError(f"{KEYS_VARIABLE}: key {position} must be exactly {KEY_BYTES} bytes, but is {len(key)}")
        return cls(next(iter(keys)), MappingProxyType({key_id: AESGCM(key) for key_id, key in keys.items()}))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, the sealing one first."""
        return tuple(self._ciphers)

    def cipher(self, key_id: str) -> AESGCM:
        """The cipher of one key. Raises ConfigError when there is none of that id."""
        try:
            return self._ciphers[key_id]
        except KeyError:
            raise ConfigError(
                f"a stored value is sealed with the key {key_id!r}, which {KEYS_VARIABLE} does not hold: add it behind the first"
            ) from None


def parse_keys(text: str) -> EncryptionKeys:
    """Read ``id:base64,id:base64``, the sealing key first. Raises ConfigError, which tells positions and never content."""
    keys: dict[str, bytes] = {}
    for position, entry in enumerate(text.split(","), 1):
        key_id, colon, encoded = entry.strip().partition(":")
        if not colon:
            raise ConfigError(f"{KEYS_VARIABLE}: entry {position} must be an id, a colon and the key in base64")
        try:
            key = b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
        except (Base64Error, ValueError):
            raise ConfigError(f"{KEYS_VARIABLE}: the key of entry {position} is not base64") from None
        if key_id in keys:
            raise ConfigError(f"{KEYS_VARIABLE}: entry {position} repeats the id of an earlier one")
        keys[key_id] = key
    return EncryptionKeys.of(keys)


def seal(keys: EncryptionKeys, plaintext: bytes, context: bytes, nonce: bytes) -> bytes:
    """Encrypt under the first key. ``nonce`` is ``NONCE_BYTES`` fresh random bytes; ``context`` must be the same to open."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
    head = _head(keys.sealing_id)
    return head + nonce + keys.cipher(keys.sealing_id).encrypt(nonce, plaintext, head + context)


def open_sealed(keys: EncryptionKeys, sealed: bytes, context: bytes) -> bytes:
    """Decrypt what ``seal`` returned for the same context. Raises ConfigError when the key is missing or is not the one."""
    key_id = key_id_of(sealed)
    head = _head(key_id)
    nonce, ciphertext = sealed[len(head) : len(head) + NONCE_BYTES], sealed[len(head) + NONCE_BYTES :]
    try:
        return keys.cipher(key_id).decrypt(nonce, ciphertext, head + context)
    except InvalidTag:
        raise ConfigError(
            f"a stored value does not open with the key {key_id!r} of {KEYS_VARIABLE}: "
            "the key under this id is another one than it was sealed with, or the value was changed or moved"
        ) from None


def key_id_of(sealed: bytes) -> str:
    """The id of the key a value was sealed with. Raises ConfigError for bytes that ``seal`` can not have made."""
    head_bytes = 2 + sealed[1] if len(sealed) >= 2 else 0
    if len(sealed) < head_bytes + NONCE_BYTES + _TAG_BYTES or head_bytes < 3 or sealed[0] != _VERSION:
        raise ConfigError("a stored value is not in the sealed format: it was damaged, or written by a newer version")
    key_id = sealed[2:head_bytes].decode("latin-1")
    if _KEY_ID.fullmatch(key_id) is None:
        raise ConfigError("a stored value names a key whose id can not exist: it was damaged")
    return key_id


def _head(key_id: str) -> bytes:
    return bytes((_VERSION, len(key_id))) + key_id.encode("ascii")
