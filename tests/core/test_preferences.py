"""The lattice of preferences: what is more specific decides."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.decisions import Code, Step, step_of
from dispatcher.model import Channel
from dispatcher.people import ANY, User
from dispatcher.preferences import allowed
from dispatcher.problems import Problem
from dispatcher.topics import Topic, parse_topic

TOPICS = ("offers", "reminders")
channels = st.sampled_from(list(Channel))
names = st.tuples(st.sampled_from([*TOPICS, ANY]), st.sampled_from([*(channel.value for channel in Channel), ANY]))
preferences = st.dictionaries(names, st.booleans())
defaults = st.frozensets(channels)


def generality(name: tuple[str, str]) -> tuple[bool, bool]:
    """How much a preference is about: of two that apply, the one with the greater is overruled."""
    return name[0] == ANY, name[1] == ANY


@given(preferences, st.sampled_from(TOPICS), channels, defaults)
def test_the_most_specific_preference_that_applies_decides_and_otherwise_the_default(
    said: dict[tuple[str, str], bool], name: str, channel: Channel, default: frozenset[Channel]
) -> None:
    code = allowed(User("ada", preferences=said), Topic(name, default=default), channel)

    applying = [each for each in said if each[0] in (name, ANY) and each[1] in (channel, ANY)]
    if not applying:
        assert code is (Code.PREFERENCE_DEFAULT if channel in default else Code.PREFERENCE_DENIED)
    else:
        assert code is (Code.PREFERENCE_ALLOWED if said[min(applying, key=generality)] else Code.PREFERENCE_DENIED)


@given(preferences, st.sampled_from(TOPICS), channels, names, st.booleans())
def test_what_is_less_specific_than_what_decides_changes_nothing(
    said: dict[tuple[str, str], bool], name: str, channel: Channel, more: tuple[str, str], value: bool
) -> None:
    applying = [each for each in said if each[0] in (name, ANY) and each[1] in (channel, ANY)]
    if not applying or more in said or generality(more) < min(map(generality, applying)):
        return
    topic = Topic(name)

    assert allowed(User("ada", preferences=said), topic, channel) is allowed(
        User("ada", preferences={**said, more: value}), topic, channel
    )


@given(st.none() | st.builds(User, st.just("ada"), preferences=preferences), channels, defaults)
def test_what_is_critical_is_sent_whatever_somebody_prefers(
    user: User | None, channel: Channel, default: frozenset[Channel]
) -> None:
    assert allowed(user, Topic("offers", critical=True, default=default), channel) is Code.PREFERENCE_CRITICAL


@given(st.none() | st.builds(User, st.just("ada"), preferences=preferences), channels)
def test_what_belongs_to_no_topic_is_subject_to_no_preference(user: User | None, channel: Channel) -> None:
    assert allowed(user, None, channel) is Code.PREFERENCE_NO_TOPIC


def test_who_is_no_user_gets_what_the_topic_sends_by_itself() -> None:
    topic = Topic("offers", default=frozenset({Channel.PUSH}))

    assert {channel: allowed(None, topic, channel) for channel in Channel} == {
        Channel.EMAIL: Code.PREFERENCE_DENIED,
        Channel.SMS: Code.PREFERENCE_DENIED,
        Channel.PUSH: Code.PREFERENCE_DEFAULT,
        Channel.WHATSAPP: Code.PREFERENCE_DENIED,
    }


def test_every_answer_is_a_code_of_the_step() -> None:
    topics = (None, Topic("offers"), Topic("offers", critical=True), Topic("offers", default=frozenset()))
    users = (None, User("a"), User("a", preferences={(ANY, ANY): True}), User("a", preferences={("offers", "sms"): False}))

    assert {step_of(allowed(user, topic, Channel.SMS)) for user, topic in product(users, topics)} == {Step.PREFERENCE}


def test_a_topic_is_read_and_what_is_left_out_has_its_default() -> None:
    assert parse_topic("offers", {}) == Topic("offers")
    body = {"title": "Angebote", "critical": True, "default": ["email", "push"]}
    assert parse_topic("shop.offers", body) == Topic("shop.offers", "Angebote", True, frozenset({Channel.EMAIL, Channel.PUSH}))
    assert parse_topic("quiet", {"default": []}) == Topic("quiet", default=frozenset())


def test_every_fault_of_a_topic_is_named_at_once() -> None:
    problem = parse_topic("No Name", {"title": 7, "critical": "yes", "default": ["fax"], "colour": "secret-value"})

    assert isinstance(problem, Problem)
    assert [error.pointer for error in problem.errors] == ["", "", "/title", "/critical", "/default"]
    assert "secret-value" not in str(problem.document())


@pytest.mark.parametrize(
    "body", [{"title": "a\nb"}, {"title": "x" * 201}, {"critical": 1}, {"critical": None}, {"default": "email"},
             {"default": ["email", "email"]}, {"default": [{}]}]
)  # fmt: skip
def test_what_a_topic_can_not_be(body: dict[str, Any]) -> None:
    assert isinstance(parse_topic("offers", body), Problem)


@pytest.mark.parametrize("name", ["", "*", "Offers", ".offers", "a" * 65, "a/b", "ä"])
def test_what_a_topic_can_not_be_called(name: str) -> None:
    assert isinstance(parse_topic(name, {}), Problem)
