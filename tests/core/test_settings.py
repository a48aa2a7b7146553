from __future__ import annotations

import traceback
from typing import Any

import pytest
from attrs import fields, frozen
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.settings import METADATA_KEY, Fault, Setting, count, number, server_url, setting, word


@frozen
class Kinds:
    """One field of each kind."""

    places: int = count(3, "how many", at_least=1, at_most=10)
    wait_s: float = number(1.5, "how long", above=0.0, at_most=60.0)
    text: str = word("x", "what", shown_default="nothing")
    choice: str = word("red", "which", among=("red", "green"))
    url: str | None = server_url("where", schemes=("redis", "rediss"), shown_default="here")
    twice: tuple[str, ...] = setting(("a",), "pairs", lambda text: (text, text), secret=True)


def known(name: str) -> Setting:
    found = getattr(fields(Kinds), name).metadata[METADATA_KEY]
    assert isinstance(found, Setting)
    return found


def fault(name: str, text: str) -> str:
    with pytest.raises(Fault) as refused:
        known(name).parse(text)
    return str(refused.value)


def test_a_record_has_its_defaults_and_its_meanings() -> None:
    assert Kinds() == Kinds(3, 1.5, "x", "red", None, ("a",))
    assert known("places").meaning == "how many"
    assert [known(name).shown_default for name in ("places", "wait_s", "text", "url")] == [
        None,
        "1.5",
        "nothing",
        "here",
    ]


def test_a_secret_does_not_stand_in_the_repr() -> None:
    shown = repr(Kinds(url="redis://:hush@host", twice=("hush", "hush")))

    assert "hush" not in shown
    assert "places=3" in shown


@pytest.mark.parametrize("text", ["1", "10", "007"])
def test_whole_numbers_within_bounds_are_taken(text: str) -> None:
    assert known("places").parse(text) == int(text)


@pytest.mark.parametrize("text", ["0", "11", "-1", "+1", "1.0", "1e1", "ten", "٣", "1" * 5000, "²", "1_0"])
def test_no_other_count_is(text: str) -> None:
    assert fault("places", text) == "must be a whole number from 1 to 10"


@pytest.mark.parametrize(("text", "value"), [("0.25", 0.25), ("60", 60.0), ("1e1", 10.0)])
def test_numbers_within_bounds_are_taken(text: str, value: float) -> None:
    assert known("wait_s").parse(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "60.1", "nan", "inf", "-inf", "soon", "1,5"])
def test_no_other_number_is(text: str) -> None:
    assert fault("wait_s", text) == "must be a number above 0 and at most 60"


def test_a_choice_is_one_of_its_words_in_any_case() -> None:
    assert known("choice").parse("GREEN") == "green"
    assert fault("choice", "blue") == "must be one of red, green"


def test_a_free_text_is_taken_as_it_is() -> None:
    assert known("text").parse("/Some Where") == "/Some Where"


@pytest.mark.parametrize("text", ["redis://host", "rediss://:p%23w@host:6379/0", "redis:///path?db=1", "redis://[::1]:6379"])
def test_urls_of_the_right_scheme_are_taken(text: str) -> None:
    assert known("url").parse(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://host", "starts with redis:// or rediss://"),
        ("host:6379", "starts with"),
        ("redis:host", "starts with"),
        ("redis://[::1", "starts with"),
        ("redis://", "names no host"),
        ("redis://:p#w@host", "must not contain # or blanks"),
        ("redis://:p w@host", "must not contain # or blanks"),
    ],
)
def test_other_urls_are_refused_with_what_to_do(text: str, reason: str) -> None:
    assert reason in fault("url", text)


@given(st.sampled_from(["places", "wait_s", "choice", "url"]), st.text(max_size=30))
def test_no_fault_repeats_what_it_refused(name: str, text: str) -> None:
    told = ""
    try:
        known(name).parse(f"secret{text}secret")
    except Fault as refused:
        told = "".join(traceback.format_exception(refused))

    assert "secret" not in told.replace('f"secret{text}secret"', "")


def test_a_setting_of_another_kind_parses_itself() -> None:
    value: Any = known("twice").parse("b")

    assert value == ("b", "b")
