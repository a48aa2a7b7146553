"""Whose token a recipient is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.audience import AUDIENCES, LANES, audience_of, lane, lanes_of, serves
from dispatcher.model import Channel


@pytest.mark.parametrize(
    ("token", "audience"),
    [
        ("ab" * 32, "apple"),
        ("AB09" * 40, "apple"),
        ("ab" * 31, "google"),
        ("ab" * 32 + "g", "google"),
        ("ab" * 32 + "\n", "google"),
        ("dGhpcyBpcw:APA91bHun4", "google"),
        ('{"endpoint":"https://push.example.org/1"}', "web"),
        ("{", "web"),
        ("", "google"),
    ],
)
def test_a_push_token_belongs_to_the_network_that_its_form_names(token: str, audience: str) -> None:
    assert audience_of(Channel.PUSH, token) == audience


@given(st.sampled_from([channel for channel in Channel if channel is not Channel.PUSH]), st.text())
def test_other_channels_have_one_audience(channel: Channel, recipient: str) -> None:
    assert audience_of(channel, recipient) == ""
    assert lane(channel, "") == channel


@given(st.text())
def test_every_token_has_one_of_the_audiences_there_are(token: str) -> None:
    assert audience_of(Channel.PUSH, token) in AUDIENCES[Channel.PUSH]


def test_a_recipient_is_served_by_the_channel_or_by_its_own_audience() -> None:
    assert serves({"email"}, Channel.EMAIL, "ann@example.org")
    assert not serves({"push:apple"}, Channel.EMAIL, "ann@example.org")
    assert serves({"push:apple"}, Channel.PUSH, "ab" * 32)
    assert not serves({"push:apple", "push:web"}, Channel.PUSH, "zz")
    assert serves({"push"}, Channel.PUSH, "zz")


def test_a_lane_is_a_channel_or_one_audience_of_it() -> None:
    assert lanes_of(Channel.EMAIL) == ("email",)
    assert lanes_of(Channel.PUSH) == ("push", "push:apple", "push:google", "push:web")
    assert len(set(LANES)) == len(LANES) == 7
