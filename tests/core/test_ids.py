from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ids import RANDOM_BITS, is_uuid, uuid7, uuid7_ms

MILLISECONDS = st.integers(0, 2**48 - 1)
RANDOM = st.integers(0, 2**RANDOM_BITS - 1)


@given(MILLISECONDS, RANDOM)
def test_an_id_is_a_version_7_uuid_in_canonical_form(now_ms: int, random_bits: int) -> None:
    made = uuid7(now_ms, random_bits)
    parsed = UUID(made)

    assert str(parsed) == made
    assert (parsed.version, parsed.variant) == (7, RFC_4122)
    assert is_uuid(made)


@given(MILLISECONDS, RANDOM)
def test_an_id_gives_back_its_milliseconds(now_ms: int, random_bits: int) -> None:
    assert uuid7_ms(uuid7(now_ms, random_bits)) == now_ms


@given(MILLISECONDS, st.lists(RANDOM, min_size=2, max_size=2, unique=True))
def test_every_random_bit_reaches_the_id(now_ms: int, random_bits: list[int]) -> None:
    one, other = (uuid7(now_ms, bits) for bits in random_bits)

    assert one != other


@given(st.lists(MILLISECONDS, min_size=2, max_size=2, unique=True), RANDOM, RANDOM)
def test_a_later_id_sorts_after_an_earlier_one_whatever_the_random_bits(moments: list[int], one: int, other: int) -> None:
    earlier, later = sorted(moments)

    assert uuid7(earlier, one) < uuid7(later, other)
    assert UUID(uuid7(earlier, one)).bytes < UUID(uuid7(later, other)).bytes


def test_the_example_of_the_standard() -> None:
    made = uuid7(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F)

    assert made == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize(("now_ms", "random_bits"), [(-1, 0), (2**48, 0), (0, -1), (0, 2**RANDOM_BITS)])
def test_what_does_not_fit_is_refused(now_ms: int, random_bits: int) -> None:
    with pytest.raises(ValueError, match="must fit"):
        uuid7(now_ms, random_bits)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f\n",
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
        "017f22e279b07cc398c4dc0c0c07398f",
        "٠17f22e2-79b0-7cc3-98c4-dc0c0c07398f",
    ],
)
def test_only_the_canonical_form_is_a_uuid(text: str) -> None:
    assert not is_uuid(text)


@pytest.mark.parametrize("text", ["not an id", "9a8b7c6d-1234-4cc3-98c4-dc0c0c07398f"])
def test_only_version_7_has_milliseconds(text: str) -> None:
    with pytest.raises(ValueError, match="not a UUIDv7"):
        uuid7_ms(text)
