from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_sandbox.magic import DOMAIN, FOREVER, TABLE, Magic, Trick, magic_of


@pytest.mark.parametrize("name", TABLE)
def test_every_row_is_named_by_its_address_whatever_its_case_and_suffix(name: str) -> None:
    row = TABLE[name]

    assert magic_of(f"{name}@{DOMAIN}") == row
    assert magic_of(f"{name.upper()}@Sandbox.TEST") == row
    assert magic_of(f"{name}+order-17.b@{DOMAIN}") == row


@pytest.mark.parametrize(
    "address",
    ["somebody@sandbox.test", "soft@example.com", "soft@sub.sandbox.test", "soft.er@sandbox.test", "soft-@sandbox.test",
     "+soft@sandbox.test", "status-200@sandbox.test", "status-600@sandbox.test", "@sandbox.test", ""],
)  # fmt: skip
def test_any_other_address_is_ordinary(address: str) -> None:
    assert magic_of(address) is None


@given(st.text())
def test_no_text_at_all_upsets_the_lookup(text: str) -> None:
    assert magic_of(text) is None
    found = magic_of(f"{text}@{DOMAIN}")
    assert found is None or text.lower().startswith(tuple(TABLE))


def test_a_number_says_how_often_the_trick_is_played() -> None:
    assert magic_of("soft-5@sandbox.test") == TABLE["soft"]._replace(times=5)
    assert magic_of("drop-2+a@sandbox.test") == TABLE["drop"]._replace(times=2)
    assert magic_of("soft-0@sandbox.test") == TABLE["soft"]._replace(times=0)


def test_the_number_of_slow_is_in_seconds_and_bounded() -> None:
    assert magic_of("slow-12@sandbox.test") == TABLE["slow"]._replace(delay_s=12.0)
    assert magic_of("slow-999999@sandbox.test") == TABLE["slow"]._replace(delay_s=3600.0)


def test_the_number_of_status_is_the_status() -> None:
    assert magic_of("status-502@sandbox.test") == Magic(Trick.REFUSE, FOREVER, 502, explanation=TABLE["status"].explanation)


def test_every_row_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()

    for name, row in TABLE.items():
        assert f"| `{name}@{DOMAIN}` | {row.explanation} |" in text
