"""Credentials at rest, in envelopes: each value is sealed with a key of its own, and that key with one of several named keys.

An envelope (version 2) is ``2 | length of key id | key id | nonce (12) | sealed data key (48) | length of label (2) | label |
nonce (12) | ciphertext and tag``, all of it AES-256-GCM. What is sealed is bound to the *context*, the identity of its row: moved
to another row it does not open. The *label* can be read by everybody and changed by nobody. The first named key seals, every
one opens; to rotate, put a new key first: :func:`rewrap` seals the data key anew and touches nothing else, so no credential is
in the clear while keys are changed. Version 1, from before there were envelopes, sealed the value with the named key itself
(``1 | length of key id | key id | nonce | ciphertext and tag``). It still opens, and rewrapping turns it into an envelope.

Invariant: neither a key nor a plaintext ever stands in a repr or an error.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dispatcher.errors import ConfigError

KEYS_VARIABLE = "DISPATCHER_ENCRYPTION_KEYS"
"""Where the keys come from, for the messages to name."""
KEY_BYTES = 32

_DIRECT = 1
_ENVELOPE = 2
_NONCE_BYTES = 12
_TAG_BYTES = 16
_WRAPPED_BYTES = KEY_BYTES + _TAG_BYTES
_LABEL_BYTES_MAX = 65_535
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")


@frozen
class EncryptionKeys:
    """Named 32-byte keys in order of preference: the first one seals, all of them open."""

    sealing_id: str
    _ciphers: Mapping[str, AESGCM] = field(repr=False, eq=False)
    _secrets: tuple[bytes, ...] = field(repr=False, eq=False)

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
        ciphers = MappingProxyType({key_id: AESGCM(key) for key_id, key in keys.items()})
        return cls(next(iter(keys)), ciphers, tuple(keys.values()))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, the sealing one first."""
        return tuple(self._ciphers)

    def derived(self, purpose: bytes, length_bytes: int) -> tuple[bytes, ...]:
        """Keys for something else, one of each of these and in their order (HKDF, RFC 5869). They tell nothing of these."""
        return tuple(HKDF(SHA256(), length_bytes, None, purpose).derive(secret) for secret in self._secrets)

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


def seal(
    keys: EncryptionKeys, plaintext: bytes, context: bytes, random_bytes: Callable[[int], bytes], label: bytes = b""
) -> bytes:
    """Put a value in an envelope under the first key. ``random_bytes`` gives fresh unpredictable bytes.

    ``context`` must be the same to open; ``label`` is authenticated and not secret, at most 65,535 bytes.
    """
    if len(label) > _LABEL_BYTES_MAX:
        raise ValueError(f"a label has at most {_LABEL_BYTES_MAX} bytes")
    data_key, nonce = random_bytes(KEY_BYTES), random_bytes(_NONCE_BYTES)
    label_part = len(label).to_bytes(2, "big") + label
    content = AESGCM(data_key).encrypt(nonce, plaintext, _content_aad(label_part, context))
    return _wrap(keys, data_key, context, random_bytes) + label_part + nonce + content


def open_sealed(keys: EncryptionKeys, sealed: bytes, context: bytes) -> bytes:
    """Decrypt what ``seal`` returned for the same context. Raises ConfigError when the key is missing or is not the one."""
    head = _head_of(sealed)
    try:
        if head[0] == _DIRECT:
            return _open_direct(keys, sealed, head, context)
        data_key, label_part, rest = _unwrap(keys, sealed, head, context)
        return AESGCM(data_key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _content_aad(label_part, context))
    except InvalidTag:
        raise _does_not_open(head) from None


def rewrap(keys: EncryptionKeys, sealed: bytes, context: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
    """The same value under the first key. Of an envelope only the data key is opened. Raises ConfigError like ``open_sealed``.

    A value of version 1 is opened and put in an envelope with an empty label.
    """
    head = _head_of(sealed)
    if head[0] == _DIRECT:
        return seal(keys, open_sealed(keys, sealed, context), context, random_bytes)
    try:
        data_key, label_part, rest = _unwrap(keys, sealed, head, context)
    except InvalidTag:
        raise _does_not_open(head) from None
    return _wrap(keys, data_key, context, random_bytes) + label_part + rest


def seal_directly(keys: EncryptionKeys, plaintext: bytes, context: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
    """Seal with the first key itself, for the proof of keys that a process of the first release must be able to open."""
    head = _head(_DIRECT, keys.sealing_id)
    nonce = random_bytes(_NONCE_BYTES)
    return head + nonce + keys.cipher(keys.sealing_id).encrypt(nonce, plaintext, head + context)


def key_id_of(sealed: bytes) -> str:
    """The id of the key a value was sealed with. Raises ConfigError for bytes that ``seal`` can not have made."""
    return _key_id_in(_head_of(sealed))


def label_of(sealed: bytes) -> bytes | None:
    """The label of an envelope, not authenticated before it is opened; None for a value of version 1.

    Raises ConfigError for bytes that ``seal`` can not have made.
    """
    head = _head_of(sealed)
    return None if head[0] == _DIRECT else _label_part(sealed, head)[2:]


def _wrap(keys: EncryptionKeys, data_key: bytes, context: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
    """The beginning of an envelope: head, nonce, sealed data key."""
    head, nonce = _head(_ENVELOPE, keys.sealing_id), random_bytes(_NONCE_BYTES)
    return head + nonce + keys.cipher(keys.sealing_id).encrypt(nonce, data_key, head + context)


def _unwrap(keys: EncryptionKeys, sealed: bytes, head: bytes, context: bytes) -> tuple[bytes, bytes, bytes]:
    """Data key, label with its length, and the rest of an envelope. Raises InvalidTag, or ConfigError without the named key."""
    label_part = _label_part(sealed, head)
    at = len(head) + _NONCE_BYTES
    wrapped = sealed[at : at + _WRAPPED_BYTES]
    data_key = keys.cipher(_key_id_in(head)).decrypt(sealed[len(head) : at], wrapped, head + context)
    return data_key, label_part, sealed[at + _WRAPPED_BYTES + len(label_part) :]


def _open_direct(keys: EncryptionKeys, sealed: bytes, head: bytes, context: bytes) -> bytes:
    at = len(head) + _NONCE_BYTES
    return keys.cipher(_key_id_in(head)).decrypt(sealed[len(head) : at], sealed[at:], head + context)


def _label_part(sealed: bytes, head: bytes) -> bytes:
    at = len(head) + _NONCE_BYTES + _WRAPPED_BYTES
    end = at + 2 + int.from_bytes(sealed[at : at + 2], "big")
    if len(sealed) < end + _NONCE_BYTES + _TAG_BYTES:
        raise _not_sealed()
    return sealed[at:end]


def _content_aad(label_part: bytes, context: bytes) -> bytes:
    return bytes((_ENVELOPE,)) + label_part + context


def _head(version: int, key_id: str) -> bytes:
    return bytes((version, len(key_id))) + key_id.encode("ascii")


def _head_of(sealed: bytes) -> bytes:
    head_bytes = 2 + sealed[1] if len(sealed) >= 2 else 0
    version = sealed[0] if sealed else 0
    if version not in (_DIRECT, _ENVELOPE) or head_bytes < 3 or len(sealed) < head_bytes + _NONCE_BYTES + _TAG_BYTES:
        raise _not_sealed()
    return sealed[:head_bytes]


def _key_id_in(head: bytes) -> str:
    key_id = head[2:].decode("latin-1")
    if _KEY_ID.fullmatch(key_id) is None:
        raise ConfigError("a stored value names a key whose id can not exist: it was damaged")
    return key_id


def _not_sealed() -> ConfigError:
    return ConfigError("a stored value is not in the sealed format: it was damaged, or written by a newer version")


def _does_not_open(head: bytes) -> ConfigError:
    return ConfigError(
        f"a stored value does not open with the key {_key_id_in(head)!r} of {KEYS_VARIABLE}: "
        "the key under this id is another one than it was sealed with, or the value was changed or moved"
    )
