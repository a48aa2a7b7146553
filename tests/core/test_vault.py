from __future__ import annotations

import base64
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import ConfigError
from dispatcher.vault import KEY_BYTES, EncryptionKeys, key_id_of, label_of, open_sealed, parse_keys, rewrap, seal, seal_directly

OLD, NEW = bytes(range(KEY_BYTES)), bytes(range(KEY_BYTES, 2 * KEY_BYTES))
RANDOM = Random(20).randbytes
ROW = b"delivery_provider_configs/1"
KEYS = EncryptionKeys.of({"k1": OLD})


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


@given(st.binary(max_size=2000), st.binary(max_size=100), st.binary(max_size=100), st.integers())
def test_what_was_sealed_opens_for_the_same_context(plaintext: bytes, context: bytes, label: bytes, seed: int) -> None:
    sealed = seal(KEYS, plaintext, context, Random(seed).randbytes, label)

    assert open_sealed(KEYS, sealed, context) == plaintext
    assert (key_id_of(sealed), label_of(sealed)) == ("k1", label)


@given(st.binary(max_size=2000), st.binary(max_size=100))
def test_after_rewrapping_only_the_new_key_is_needed_and_only_the_data_key_was_opened(plaintext: bytes, label: bytes) -> None:
    sealed = seal(KEYS, plaintext, ROW, RANDOM, label)
    moved = rewrap(EncryptionKeys.of({"k2": NEW, "k1": OLD}), sealed, ROW, RANDOM)

    assert open_sealed(EncryptionKeys.of({"k2": NEW}), moved, ROW) == plaintext
    assert (key_id_of(moved), label_of(moved)) == ("k2", label)
    assert moved.endswith(sealed[-16 - len(plaintext) :])  # not sealed anew
    with pytest.raises(ConfigError, match="does not hold"):
        open_sealed(KEYS, moved, ROW)


def test_every_value_has_a_key_of_its_own() -> None:
    one, other = seal(KEYS, b"same", ROW, RANDOM), seal(KEYS, b"same", ROW, RANDOM)
    head = 2 + len("k1") + 12
    swapped = one[:head] + other[head : head + 48] + one[head + 48 :]

    with pytest.raises(ConfigError, match="changed or moved"):
        open_sealed(KEYS, swapped, ROW)


def test_a_value_from_before_the_envelopes_opens_and_becomes_one() -> None:
    direct = seal_directly(KEYS, b"credentials", ROW, RANDOM)
    moved = rewrap(KEYS, direct, ROW, RANDOM)

    assert (direct[0], moved[0]) == (1, 2)
    assert open_sealed(KEYS, direct, ROW) == open_sealed(KEYS, moved, ROW) == b"credentials"
    assert (label_of(direct), label_of(moved)) == (None, b"")


def test_a_value_can_not_be_rewrapped_without_its_key_or_for_another_row() -> None:
    sealed = seal(KEYS, b"credentials", ROW, RANDOM)

    with pytest.raises(ConfigError, match="does not hold"):
        rewrap(EncryptionKeys.of({"k2": NEW}), sealed, ROW, RANDOM)
    with pytest.raises(ConfigError, match="changed or moved"):
        rewrap(KEYS, sealed, b"delivery_provider_configs/2", RANDOM)


def test_a_label_has_its_bounds() -> None:
    with pytest.raises(ValueError, match="65535 bytes"):
        seal(KEYS, b"", b"", RANDOM, bytes(65_536))


def test_one_letter_is_enough_for_an_id() -> None:
    keys = EncryptionKeys.of({"k": OLD})

    assert open_sealed(keys, seal(keys, b"", ROW, RANDOM), ROW) == b""


def test_nothing_of_the_plaintext_can_be_seen() -> None:
    assert b"SG.hush" not in seal(KEYS, b"SG.hush" * 100, ROW, RANDOM)


def test_a_value_moved_to_another_row_does_not_open() -> None:
    sealed = seal(KEYS, b"credentials", ROW, RANDOM)

    with pytest.raises(ConfigError, match="changed or moved"):
        open_sealed(KEYS, sealed, b"delivery_provider_configs/2")


def test_changing_any_byte_is_noticed() -> None:
    sealed = seal(KEYS, b"credentials", ROW, RANDOM)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(ConfigError) as refused:
            open_sealed(KEYS, bytes(changed), ROW)
        assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_cutting_it_short_anywhere_is_noticed() -> None:
    sealed = seal(KEYS, b"credentials", ROW, RANDOM)
    for length in range(len(sealed)):
        with pytest.raises(ConfigError):
            open_sealed(KEYS, sealed[:length], ROW)


def test_after_a_rotation_the_new_key_seals_and_the_old_one_still_opens() -> None:
    sealed = seal(KEYS, b"credentials", ROW, RANDOM)
    rotated = EncryptionKeys.of({"k2": NEW, "k1": OLD})

    assert open_sealed(rotated, sealed, ROW) == b"credentials"
    assert key_id_of(seal(rotated, b"credentials", ROW, RANDOM)) == "k2"


def test_a_missing_key_is_named_with_what_to_do() -> None:
    sealed = seal(KEYS, b"credentials", ROW, RANDOM)

    with pytest.raises(ConfigError, match="sealed with the key 'k1', which DISPATCHER_ENCRYPTION_KEYS does not hold"):
        open_sealed(EncryptionKeys.of({"k2": NEW}), sealed, ROW)


def test_another_key_under_the_same_id_is_told() -> None:
    sealed = seal(KEYS, b"credentials", ROW, RANDOM)

    with pytest.raises(ConfigError, match="does not open with the key 'k1'"):
        open_sealed(EncryptionKeys.of({"k1": NEW}), sealed, ROW)


@pytest.mark.parametrize(
    "sealed",
    [b"", b"\x01", b"\x03\x02k1" + b"x" * 40, b"\x02\x02k1" + b"x" * 80, b"\x01\x00" + b"x" * 40, b"\x01\xffk1" + b"x" * 40],
)
def test_what_was_never_sealed_is_told_from_what_can_not_be_opened(sealed: bytes) -> None:
    with pytest.raises(ConfigError, match="not in the sealed format"):
        open_sealed(KEYS, sealed, ROW)


def test_an_impossible_key_id_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="id can not exist"):
        open_sealed(KEYS, b"\x01\x02\xff\n" + b"x" * 40, ROW)


def test_keys_are_read_in_order_and_in_both_alphabets_of_base64() -> None:
    high = b"\xff" * KEY_BYTES
    keys = parse_keys(f" k2:{base64.urlsafe_b64encode(high).decode()}, k1:{encoded(OLD)} ")

    assert keys.ids == ("k2", "k1")
    assert keys.sealing_id == "k2"
    assert open_sealed(keys, seal(EncryptionKeys.of({"k2": high}), b"x", ROW, RANDOM), ROW) == b"x"


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
