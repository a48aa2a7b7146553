from __future__ import annotations

import pytest

from dispatcher_sandbox.magic import TABLE, Trick
from dispatcher_sandbox.magic_token import COMMON, magic_token


@pytest.mark.parametrize("token", ["", "soft", "sandbox", "sandbox-", "sandbox-nothing", "sandbox-softly", "x-sandbox-soft"])
def test_any_other_token_is_an_ordinary_one(token: str) -> None:
    assert magic_token(token, COMMON) is None


@pytest.mark.parametrize("token", [f"sandbox-soft{rest}" for rest in ("", "-a", "-2x", "-\u0662", "-1234567")])
def test_a_name_alone_is_its_row(token: str) -> None:
    assert magic_token(token, COMMON) == TABLE["soft"]


def test_the_longest_name_counts() -> None:
    assert magic_token("sandbox-always-soft-a", COMMON) == TABLE["always-soft"]
    assert magic_token("sandbox-rate-limited-3", COMMON) == TABLE["rate-limited"]._replace(times=3)


def test_a_number_is_the_times_the_seconds_or_the_status() -> None:
    assert magic_token("sandbox-soft-5-a", COMMON) == TABLE["soft"]._replace(times=5)
    assert magic_token("sandbox-slow-7", COMMON) == TABLE["slow"]._replace(delay_s=7.0)
    assert magic_token("sandbox-slow-99999", COMMON) == TABLE["slow"]._replace(delay_s=3600.0)
    assert magic_token("sandbox-status-307", COMMON) == TABLE["status"]._replace(status=307)
    assert magic_token("sandbox-status-200", COMMON) is None


def test_every_trick_of_all_is_one_that_needs_no_text_of_a_provider() -> None:
    assert all(row.reason == "" for row in COMMON.values())
    assert {row.trick for row in COMMON.values()} == set(Trick)
