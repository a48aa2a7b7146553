from __future__ import annotations

from datetime import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model import Channel
from dispatcher.people import QuietHours
from dispatcher.policy import KEPT_DAYS, Cap, Policy, parse_policy
from dispatcher.problems import Problem

FULL = {
    "time_zone": "America/Sao_Paulo",
    "quiet_hours": {"start": "22:00", "end": "08:00", "days": ["mon", "tue"]},
    "caps": [{"name": "news", "count_max": 3, "window_s": 86_400, "topic": "news", "channel": "sms"}],
    "kept_days": 90,
}


def faults(body: Any, name: str = "default") -> set[str]:
    problem = parse_policy(name, body)
    assert isinstance(problem, Problem)
    return {fault.pointer or "" for fault in problem.errors or (problem,)}


def test_a_policy_says_zone_quiet_hours_caps_and_how_long_history_is_kept() -> None:
    assert parse_policy("default", FULL) == Policy(
        "America/Sao_Paulo",
        QuietHours(time(22), time(8), frozenset({0, 1})),
        (Cap("news", 3, 86_400, "news", Channel.SMS),),
        90,
    )
    assert parse_policy("default", {}) == Policy()


def test_every_fault_is_named_at_once() -> None:
    body = {
        "time_zone": "Mars/Olympus",
        "quiet_hours": {"start": "24:00", "end": 7, "days": ["mon", "mon", "noday"], "more": 1},
        "caps": [
            {"name": "a", "count_max": 0, "window_s": 1, "topic": "", "channel": "fax", "more": 1},
            {"name": "b", "count_max": True, "window_s": 60.5},
            {"name": "b", "count_max": 1, "window_s": 60},
            7,
        ],
        "kept_days": 31,
        "more": 1,
    }

    assert faults(body, "other") == {
        "", "/time_zone", "/quiet_hours", "/quiet_hours/start", "/quiet_hours/end", "/quiet_hours/days/1", "/quiet_hours/days/2",
        "/caps/0", "/caps/0/count_max", "/caps/0/window_s", "/caps/0/topic", "/caps/0/channel", "/caps/1/count_max",
        "/caps/1/window_s", "/caps/2/name", "/caps/3", "/kept_days",
    }  # fmt: skip


@pytest.mark.parametrize("days", [[], "mon", None, 3])
def test_days_are_a_list_of_some(days: Any) -> None:
    assert faults({"quiet_hours": {"start": "22:00", "end": "07:00", "days": days}}) == {"/quiet_hours/days"}


def test_quiet_hours_that_never_end_are_refused() -> None:
    assert faults({"quiet_hours": {"start": "08:00", "end": "08:00"}}) == {"/quiet_hours"}
    assert isinstance(parse_policy("default", {"quiet_hours": {"start": "08:00", "end": "08:00", "days": ["sun"]}}), Policy)


def test_history_is_kept_for_one_of_a_closed_set_of_times() -> None:
    assert all(isinstance(parse_policy("default", {"kept_days": days}), Policy) for days in KEPT_DAYS)
    assert faults({"kept_days": 30.0}) == faults({"kept_days": "30"}) == faults({"kept_days": True}) == {"/kept_days"}


def test_there_are_only_so_many_caps() -> None:
    assert faults({"caps": [{"name": f"c{n}", "count_max": 1, "window_s": 60} for n in range(21)]}) == {"/caps"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["start", "end", "days", "name"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*FULL, "x"]), JSON))
def test_any_document_is_a_policy_or_a_problem_with_pointers(body: dict[str, Any]) -> None:
    parsed = parse_policy("default", body)

    assert isinstance(parsed, Policy | Problem)
    assert isinstance(parsed, Policy) or all(fault.pointer is not None for fault in parsed.errors or (parsed,))
