from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import Origin
from dispatcher.origins import BaseUrl
from dispatcher.providers.provider import (
    COMMON_SETTINGS,
    CONCURRENCY_MAX_DEFAULT,
    Limits,
    Sharing,
    Unbindable,
    Unsendable,
    base_url_of,
    common_problems,
    invalid,
    limits_of,
    missing,
    sharing_of,
    unknown_fields,
)

ORIGINS = ("https://api.example.org:443", "http://127.0.0.1:8025")


def pointers(settings: dict[str, Any]) -> list[str | None]:
    return [problem.pointer for problem in common_problems(settings, ORIGINS)]


def test_nothing_has_to_be_set() -> None:
    assert pointers({}) == []
    assert limits_of({}) == Limits(None, 1, CONCURRENCY_MAX_DEFAULT)


@pytest.mark.parametrize(
    "settings",
    [
        {"rate_per_s": 0.5},
        {"quota": 1},
        {"quota": 1_000_000_000, "quota_window_h": 24},
        {"rate_per_s": 1_000_000, "burst": 1_000_000, "concurrency_max": 1024},
        {"base_url": "https://api.example.org"},
        {"base_url": "http://127.0.0.1:8025/path"},
        dict.fromkeys(COMMON_SETTINGS),
    ],
)
def test_settings_within_bounds_have_no_problem(settings: dict[str, Any]) -> None:
    assert pointers(settings) == []


@pytest.mark.parametrize(
    ("settings", "sharing"),
    [
        ({}, Sharing(100, True, False)),
        (dict.fromkeys(COMMON_SETTINGS), Sharing(100, True, False)),
        ({"weight": 1, "failover": False, "failover_on_unknown": True}, Sharing(1, False, True)),
        ({"weight": 1000, "failover": True, "failover_on_unknown": True, "on_unknown": "resend"}, Sharing(1000, True, True)),
    ],
)
def test_what_a_configuration_takes_and_leaves_is_in_its_settings(settings: dict[str, Any], sharing: Sharing) -> None:
    assert pointers(settings) == []
    assert sharing_of(settings) == sharing


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"weight": 0}, "/settings/weight"),
        ({"weight": 1001}, "/settings/weight"),
        ({"weight": True}, "/settings/weight"),
        ({"weight": 2.5}, "/settings/weight"),
        ({"failover": "never"}, "/settings/failover"),
        ({"failover": 0}, "/settings/failover"),
        ({"failover_on_unknown": 1}, "/settings/failover_on_unknown"),
        ({"failover_on_unknown": True, "on_unknown": "hold"}, "/settings/failover_on_unknown"),
        ({"failover_on_unknown": True, "on_unknown": "ask"}, "/settings/failover_on_unknown"),
    ],
)
def test_sharing_that_makes_no_sense_is_a_problem(settings: dict[str, Any], pointer: str) -> None:
    assert pointers(settings) == [pointer]


@pytest.mark.parametrize("value", [0, -1, 1_000_001, float("nan"), float("inf"), "10", True, [1]])
def test_a_rate_is_a_sensible_number(value: object) -> None:
    assert pointers({"rate_per_s": value}) == ["/settings/rate_per_s"]


@pytest.mark.parametrize("value", [0, -1, 1.5, 1_000_001, "10", True])
def test_a_burst_is_a_sensible_count(value: object) -> None:
    assert pointers({"rate_per_s": 1, "burst": value}) == ["/settings/burst"]


def test_a_burst_needs_a_rate() -> None:
    assert pointers({"burst": 5}) == ["/settings/burst"]


@pytest.mark.parametrize("value", [0, 1025, 1.5, "10", False])
def test_concurrency_is_a_sensible_count(value: object) -> None:
    assert pointers({"concurrency_max": value}) == ["/settings/concurrency_max"]


@pytest.mark.parametrize("value", [0, -1, 1_000_000_001, 1.5, "10", True])
def test_a_quota_is_a_sensible_count(value: object) -> None:
    assert pointers({"quota": value}) == ["/settings/quota"]


@pytest.mark.parametrize("value", [0, 25, 0.5, "24", True])
def test_the_window_of_a_quota_has_1_to_24_hours(value: object) -> None:
    assert pointers({"quota": 10, "quota_window_h": value}) == ["/settings/quota_window_h"]


def test_a_window_needs_a_quota() -> None:
    assert pointers({"quota_window_h": 5}) == ["/settings/quota_window_h"]


@pytest.mark.parametrize("value", [7, "nonsense", "https://user:hush@api.example.org", "ftp://api.example.org"])
def test_a_base_url_is_a_plain_url(value: object) -> None:
    (problem,) = common_problems({"base_url": value}, ORIGINS)

    assert (problem.code, problem.pointer) == ("setting_invalid", "/settings/base_url")
    assert "hush" not in problem.detail


@pytest.mark.parametrize("value", ["http://api.example.org", "https://169.254.169.254", "https://api.example.org:8443"])
def test_a_base_url_leads_only_where_it_may(value: str) -> None:
    """Otherwise an organization could have this process call any host it can reach."""
    (problem,) = common_problems({"base_url": value}, ORIGINS)

    assert problem.code == "base_url_not_allowed"
    assert value not in problem.detail


@given(
    st.dictionaries(st.sampled_from(sorted(COMMON_SETTINGS)), st.none() | st.booleans() | st.floats() | st.integers() | st.text())
)
def test_settings_without_problems_make_limits(settings: dict[str, Any]) -> None:
    if not common_problems(settings, ORIGINS):
        limits = limits_of(settings)
        assert limits.burst >= 1
        assert limits.concurrency_max >= 1
        assert limits.rate_per_s is None or limits.rate_per_s > 0


def test_without_a_burst_one_second_may_go_at_once() -> None:
    assert limits_of({"rate_per_s": 25.5}) == Limits(25.5, 25, CONCURRENCY_MAX_DEFAULT)
    assert limits_of({"quota": 100})[3:] == (100, 24)
    assert limits_of({"quota": 100, "quota_window_h": 1})[3:] == (100, 1)
    assert limits_of({"rate_per_s": 0.1}) == Limits(0.1, 1, CONCURRENCY_MAX_DEFAULT)
    assert limits_of({"rate_per_s": 10, "burst": 3, "concurrency_max": 2}) == Limits(10.0, 3, 2)


def test_a_base_url_replaces_the_default() -> None:
    default = BaseUrl(Origin("https", "api.example.org", 443), "")

    assert base_url_of({}, default) == default
    assert base_url_of({"base_url": "http://127.0.0.1:8025/x"}, default) == BaseUrl(Origin("http", "127.0.0.1", 8025), "/x")


def test_unknown_fields_are_counted_and_never_named() -> None:
    assert unknown_fields({"a": 1}, {"a", "b"}, "/settings") == []
    (one,) = unknown_fields({"a": 1, "SG.hush": 1}, {"a", "b"}, "/settings")
    (two,) = unknown_fields({"x": 1, "y": 1}, {"a"}, "/credentials")

    assert one.detail == "1 unknown field; known are a, b"
    assert (two.detail, two.pointer, two.code) == ("2 unknown fields; known are a", "/credentials", "setting_unknown")


def test_problems_are_unprocessable_and_point_at_their_field() -> None:
    assert (invalid("/a", "x").status, invalid("/a", "x").code) == (422, "setting_invalid")
    assert missing("/a", "x").code == "setting_missing"


def test_errors_carry_a_code_and_nothing_else() -> None:
    assert (Unsendable("subject_missing").code, str(Unsendable("subject_missing"))) == ("subject_missing", "subject_missing")
    unbindable = Unbindable(missing("/settings/from_email", "x"))
    assert (unbindable.code, str(unbindable)) == ("setting_missing", "setting_missing at /settings/from_email")
