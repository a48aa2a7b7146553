from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import ConfigError
from dispatcher.vault import KEY_BYTES, NONCE_BYTES, EncryptionKeys, key_id_of, open_sealed, parse_keys, seal

OLD, NEW = bytes(range(KEY_BYTES)), bytes(range(KEY_BYTES, 2 * KEY_BYTES))
NONCE = b"n" * NONCE_BYTES
ROW = b"delivery_provider_configs/1"
KEYS = EncryptionKeys.of({"k1": OLD})


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


@given(st.binary(max_size=2000), st.binary(max_size=100), st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES))
def test_what_was_sealed_opens_for_the_same_context(plaintext: bytes, context: bytes, nonce: bytes) -> None:
    sealed = seal(KEYS, plaintext, context, nonce)

    assert open_sealed(KEYS, sealed, context) == plaintext
    assert key_id_of(sealed) == "k1"


def test_one_letter_is_enough_for_an_id() -> None:
    keys = EncryptionKeys.of({"k": OLD})

    assert open_sealed(keys, seal(keys, b"", ROW, NONCE), ROW) == b""


def test_nothing_of_the_plaintext_can_be_seen() -> None:
    assert b"SG.hush" not in seal(KEYS, b"SG.hush" * 100, ROW, NONCE)


def test_a_value_moved_to_another_row_does_not_open() -> None:
    sealed = seal(KEYS, b"credentials", ROW, NONCE)

    with pytest.raises(ConfigError, match="changed or moved"):
        open_sealed(KEYS, sealed, b"delivery_provider_configs/2")


def test_changing_any_byte_is_noticed() -> None:
    sealed = seal(KEYS, b"credentials", ROW, NONCE)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(ConfigError) as refused:
            open_sealed(KEYS, bytes(changed), ROW)
        assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_cutting_it_short_anywhere_is_noticed() -> None:
    sealed = seal(KEYS, b"credentials", ROW, NONCE)
    for length in range(len(sealed)):
        with pytest.raises(ConfigError):
            open_sealed(KEYS, sealed[:length], ROW)


def test_after_a_rotation_the_new_key_seals_and_the_old_one_still_opens() -> None:
    sealed = seal(KEYS, b"credentials", ROW, NONCE)
    rotated = EncryptionKeys.of({"k2": NEW, "k1": OLD})

    assert open_sealed(rotated, sealed, ROW) == b"credentials"
    assert key_id_of(seal(rotated, b"credentials", ROW, NONCE)) == "k2"


def test_a_missing_key_is_named_with_what_to_do() -> None:
    sealed = seal(KEYS, b"credentials", ROW, NONCE)

    with pytest.raises(ConfigError, match="sealed with the key 'k1', which DISPATCHER_ENCRYPTION_KEYS does not hold"):
        open_sealed(EncryptionKeys.of({"k2": NEW}), sealed, ROW)


def test_another_key_under_the_same_id_is_told() -> None:
    sealed = seal(KEYS, b"credentials", ROW, NONCE)

    with pytest.raises(ConfigError, match="does not open with the key 'k1'"):
        open_sealed(EncryptionKeys.of({"k1": NEW}), sealed, ROW)


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x02\x02k1" + b"x" * 40, b"\x01\x00" + b"x" * 40, b"\x01\xffk1" + b"x" * 40])
def test_what_was_never_sealed_is_told_from_what_can_not_be_opened(sealed: bytes) -> None:
    with pytest.raises(ConfigError, match="not in the sealed format"):
        open_sealed(KEYS, sealed, ROW)


def test_an_impossible_key_id_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="id can not exist"):
        open_sealed(KEYS, b"\x01\x02\xff\n" + b"x" * 40, ROW)


def test_a_nonce_has_its_length() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        seal(KEYS, b"", b"", b"short")


def test_keys_are_read_in_order_and_in_both_alphabets_of_base64() -> None:
    high = b"\xff" * KEY_BYTES
    keys = parse_keys(f" k2:{base64.urlsafe_b64encode(high).decode()}, k1:{encoded(OLD)} ")

    assert keys.ids == ("k2", "k1")
    assert keys.sealing_id == "k2"
    assert open_sealed(keys, seal(EncryptionKeys.of({"k2": high}), b"x", ROW, NONCE), ROW) == b"x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "entry 1 must be an id"),
        (f"k1:{encoded(OLD)},", "entry 2 must be an id"),
        (encoded(OLD), "entry 1 must be an id"),
        ("k1:!!!", "entry 1 is not base64"),
        ("k1:é", "entry 1 is not base64"),
        (f"k1:{encoded(OLD)},k1:{encoded(NEW)}", "entry 2 repeats the id"),
        (f"k1:{encoded(OLD[1:])}", "exactly 32 bytes, but is 31"),
        (f"k 1:{encoded(OLD)}", "the id of key 1 must be"),
        (f":{encoded(OLD)}", "the id of key 1 must be"),
        (f"{'k' * 33}:{encoded(OLD)}", "the id of key 1 must be"),
    ],
)
def test_faults_in_keys_are_told_by_position_and_never_by_content(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        parse_keys(text)

    assert str(refused.value).startswith("DISPATCHER_ENCRYPTION_KEYS: ")
    assert encoded(OLD)[:12] not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_no_keys_at_all_is_a_fault() -> None:
    with pytest.raises(ConfigError, match="holds no key"):
        EncryptionKeys.of({})


def test_a_repr_shows_no_key() -> None:
    assert repr(parse_keys(f"k1:{encoded(OLD)}")) == "EncryptionKeys(sealing_id='k1')"
