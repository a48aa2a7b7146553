from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.contacts import SOFT_CODE, Contact, ContactStatus, address_of, canonical, merged, suppressed_as
from dispatcher.feedback.confirmation import Confirmation, furthest
from dispatcher.feedback.feedback import SOFT_BOUNCE_EXPIRY_S, SOFT_BOUNCES_MAX, FeedbackKind
from dispatcher.model import Channel

DAY_S = 86_400.0
Event = tuple[FeedbackKind, str, float]
events = st.tuples(
    st.sampled_from(FeedbackKind), st.sampled_from(["one", "two"]), st.integers(0, 12).map(lambda day: day * DAY_S)
)


def soft(*days: float) -> list[Event]:
    return [(FeedbackKind.SOFT_BOUNCED, "full", day * DAY_S) for day in days]


@given(st.lists(events, max_size=12), st.randoms(use_true_random=False))
def test_events_in_any_order_and_doubled_give_the_same_contact(heard: list[Event], random: object) -> None:
    again = [*heard, *heard[: len(heard) // 2]]
    random.shuffle(again)  # type: ignore[attr-defined]

    assert merged(Contact(), heard) == merged(Contact(), again)


@given(st.lists(st.tuples(st.sampled_from(FeedbackKind), st.integers(0, 3)), max_size=6))
def test_confirmations_in_any_order_end_in_the_same_state(heard: list[tuple[FeedbackKind, int]]) -> None:
    known = [Confirmation(kind, float(at), "c") for kind, at in heard if kind in _RANKED]
    ends = set()
    for order in list(permutations(known))[:60]:
        end = None
        for one in order:
            end = furthest(end, one)
        ends.add(end)

    assert len(ends) <= 1


_RANKED = [kind for kind in FeedbackKind if kind.value in ("sent", "delivered", "read", "bounced", "soft_bounced", "refused")]


@pytest.mark.parametrize(
    ("one", "other", "end"),
    [
        (FeedbackKind.SENT, FeedbackKind.DELIVERED, FeedbackKind.DELIVERED),
        (FeedbackKind.READ, FeedbackKind.DELIVERED, FeedbackKind.READ),
        (FeedbackKind.DELIVERED, FeedbackKind.BOUNCED, FeedbackKind.BOUNCED),
        (FeedbackKind.SOFT_BOUNCED, FeedbackKind.DELIVERED, FeedbackKind.DELIVERED),
        (FeedbackKind.READ, FeedbackKind.COMPLAINED, FeedbackKind.COMPLAINED),
    ],
)
def test_the_state_that_is_further_on_wins(one: FeedbackKind, other: FeedbackKind, end: FeedbackKind) -> None:
    pair = [Confirmation(one, 2.0, "a"), Confirmation(other, 1.0, "b")]

    assert {furthest(*pair), furthest(*reversed(pair))} == {
        Confirmation(end, 2.0 if end is one else 1.0, "a" if end is one else "b")
    }


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (FeedbackKind.BOUNCED, ContactStatus.BOUNCED),
        (FeedbackKind.INVALID, ContactStatus.INVALID),
        (FeedbackKind.COMPLAINED, ContactStatus.COMPLAINED),
        (FeedbackKind.UNSUBSCRIBED, ContactStatus.UNSUBSCRIBED),
        (FeedbackKind.REFUSED, ContactStatus.ACTIVE),
        (FeedbackKind.DEFERRED, ContactStatus.ACTIVE),
        (FeedbackKind.DELIVERED, ContactStatus.ACTIVE),
    ],
)
def test_each_kind_of_report_has_its_status_until_somebody_resets_it(kind: FeedbackKind, status: ContactStatus) -> None:
    contact = Contact().after(kind, "code", 100.0)

    assert contact.status is status
    assert contact.reset(200.0).status is ContactStatus.ACTIVE
    assert contact.reset(200.0).after(kind, "code", 150.0).status is ContactStatus.ACTIVE  # told late: it happened before
    assert contact.reset(200.0).after(kind, "code", 201.0).status is status


def test_a_reset_counts_against_what_a_fast_clock_has_dated_later() -> None:
    assert Contact().after(FeedbackKind.BOUNCED, "b", 100.5).reset(100.0).status is ContactStatus.ACTIVE


def test_an_opt_in_after_an_opt_out_counts_and_one_before_does_not() -> None:
    out = Contact().after(FeedbackKind.UNSUBSCRIBED, "u", 100.0)

    assert out.after(FeedbackKind.RESUBSCRIBED, "r", 99.0).status is ContactStatus.UNSUBSCRIBED
    assert out.after(FeedbackKind.RESUBSCRIBED, "r", 101.0).status is ContactStatus.ACTIVE


def test_the_worst_that_is_known_wins() -> None:
    contact = merged(
        Contact(), [(FeedbackKind.UNSUBSCRIBED, "u", 3.0), (FeedbackKind.BOUNCED, "b", 2.0), (FeedbackKind.COMPLAINED, "c", 1.0)]
    )

    assert contact.standing == (ContactStatus.COMPLAINED, "c", 1.0)


def test_so_many_soft_bounces_within_the_expiry_are_a_bounce() -> None:
    contact = merged(Contact(), soft(*range(SOFT_BOUNCES_MAX)))

    assert contact.standing == (ContactStatus.BOUNCED, SOFT_CODE, (SOFT_BOUNCES_MAX - 1) * DAY_S)
    assert merged(Contact(), soft(*range(SOFT_BOUNCES_MAX - 1))).status is ContactStatus.ACTIVE


def test_soft_bounces_expire() -> None:
    expiry_days = SOFT_BOUNCE_EXPIRY_S / DAY_S

    assert merged(Contact(), soft(0, 1, 2, 3, expiry_days)).status is ContactStatus.BOUNCED
    assert merged(Contact(), soft(0, 1, 2, 3, expiry_days + 0.01)).status is ContactStatus.ACTIVE


def test_a_delivery_in_between_starts_the_count_anew() -> None:
    delivered = (FeedbackKind.DELIVERED, "ok", 2.5 * DAY_S)

    assert merged(Contact(), [*soft(0, 1, 2, 3, 4), delivered]).status is ContactStatus.ACTIVE
    assert merged(Contact(), [delivered, *soft(3, 3.1, 3.2, 3.3, 3.4)]).status is ContactStatus.BOUNCED


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("token_unregistered", ContactStatus.INVALID),
        ("recipient_opted_out", ContactStatus.UNSUBSCRIBED),
        ("unsubscribed", ContactStatus.UNSUBSCRIBED),
        ("hard_bounce", ContactStatus.BOUNCED),
    ],
)
def test_what_a_provider_refuses_at_sending_says_why_by_its_code(code: str, status: ContactStatus) -> None:
    assert suppressed_as(code) is status


def test_the_case_of_an_email_address_makes_no_difference_and_that_of_a_token_does() -> None:
    assert address_of(Channel.EMAIL, "Ada@Example.ORG") == address_of(Channel.EMAIL, "ada@example.org")
    assert address_of(Channel.PUSH, "TOKEN") != address_of(Channel.PUSH, "token")
    assert canonical(Channel.EMAIL, "ÄDA@example.org") == "Äda@example.org"  # only ASCII: what servers agree on
