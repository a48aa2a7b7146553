"""Several mails in one request: everybody's own words, and everybody's own outcome."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.batching import Batching, Part
from dispatcher.providers.probing import Probing
from dispatcher.providers.provider import Moment, Unsendable
from dispatcher.providers.sendgrid import BoundSendGrid, bind, settings_problems
from dispatcher.providers.sendgrid_batch import PERSONALIZATION_BYTES_MAX, SUBSTITUTED_BYTES_MAX
from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.sendgrid import SendGrid
from dispatcher_sandbox.sendgrid.letters import letters_of
from dispatcher_sandbox.simulator import Intake

NOW = 1_700_000_000.0
ORG = OrganizationId("acme")
SETTINGS = {"from_email": "tickets@example.org", "batch_max": 100}
CONFIG = ProviderConfig("1", ORG, Channel.EMAIL, "sendgrid", SETTINGS, {"api_key": "SG.hush"}, revision=1)
MOMENT = Moment(NOW, Random(1).randbytes)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)


def bound(**settings: Any) -> BoundSendGrid:
    return bind(evolve(CONFIG, settings={**SETTINGS, **settings}))


def delivery(number: int, **payload: Any) -> Delivery:
    id = NotificationId(f"017f22e2-79b0-7cc3-98c4-{number:012d}")
    payload = {"subject": f"Subject {number}", "text": "See you", **payload}
    return Delivery(id, ORG, Channel.EMAIL, f"reader{number}@example.com", payload, 1, 8, NOW)


def part(delivery: Delivery) -> Part:
    found = bound().part(delivery, MOMENT)
    assert found is not None
    return found


def parts(*texts: str) -> list[Part]:
    return [part(delivery(number, text=text)) for number, text in enumerate(texts)]


def document(request: HttpRequest) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(request.body)
    return body


def outcomes(status: int, together: Sequence[Part], *fields: str | None) -> list[tuple[str, str] | None]:
    body = orjson.dumps({"errors": [{"message": "reader1@example.com is wrong", "field": field} for field in fields]})
    found = bound().classify_batch(HttpResponse(status, (), body), together, NOW)
    return [None if outcome is None else (outcome.kind.value, outcome.code) for outcome in found]


# --- the request ------------------------------------------------------------------------------------------------------------


def test_it_can_take_several_and_be_tried_out() -> None:
    assert isinstance(bound(), Batching)
    assert isinstance(bound(), Probing)
    assert (bound().batch_max, bound(batch_max=None).batch_max, bound(batch_max=1).batch_max) == (100, 1, 1)


def test_mails_of_one_content_ride_together_as_they_are() -> None:
    request = bound(categories=["tickets"]).batch_request(parts("Hello", "Hello"), MOMENT)

    assert request.target == b"/v3/mail/send"
    assert document(request) == {
        "personalizations": [
            {
                "custom_args": {"organization_id": "acme", "notification_id": delivery(number).id},
                "to": [{"email": f"reader{number}@example.com"}],
                "subject": f"Subject {number}",
            }
            for number in range(2)
        ],
        "from": {"email": "tickets@example.org"},
        "categories": ["tickets"],
        "content": [{"type": "text/plain", "value": "Hello"}],
    }


def test_a_batch_has_the_key_of_no_notification() -> None:
    names = [name for name, _ in bound().batch_request(parts("a", "b"), MOMENT).headers]

    assert b"authorization" in names
    assert b"idempotency-key" not in names


def test_the_tags_of_two_requests_differ() -> None:
    together = parts("a", "b")
    first, second = (document(bound().batch_request(together, MOMENT))["content"][0]["value"] for _ in range(2))

    assert first != second
    assert len(first) > 32


@given(st.lists(st.tuples(LINES, TEXTS, TEXTS), min_size=2, max_size=5), st.booleans(), st.booleans())
def test_every_recipient_gets_exactly_their_own_words(contents: list[tuple[str, str, str]], text: bool, html: bool) -> None:
    deliveries = []
    for number, (subject, words, markup) in enumerate(contents):
        payload = {"subject": subject, "text": words if text or not html else None, "html": markup if html else None}
        deliveries.append(delivery(number, **payload))
    together = [part(each) for each in deliveries]
    request = bound().batch_request(together, MOMENT)
    taken = SendGrid().read(Request(request.method, request.target, dict(request.headers), request.body), Behaviour(), NOW)

    assert len({each.key for each in together}) == 1
    assert isinstance(taken, Intake)
    assert [found.notification_id for found in taken.correlations] == [each.id for each in deliveries]
    for each, letter in zip(deliveries, letters_of(request.body), strict=True):
        expected = {"text/plain": each.payload["text"], "text/html": each.payload["html"]}
        assert (letter.to, letter.notification_id, letter.subject) == ((each.recipient,), each.id, each.payload["subject"])
        assert letter.content == {kind: value for kind, value in expected.items() if value is not None}


def test_what_is_too_long_to_be_substituted_rides_with_its_equals_only() -> None:
    long, other = "x" * (SUBSTITUTED_BYTES_MAX + 1), "y" * (SUBSTITUTED_BYTES_MAX + 1)
    first, second, third, short = parts(long, long, other, "short")

    assert first.key == second.key
    assert len({first.key, third.key, short.key}) == 3
    assert [letter.content for letter in letters_of(bound().batch_request([first, second], MOMENT).body)] == [
        {"text/plain": long},
        {"text/plain": long},
    ]


def test_substitutions_stay_below_the_limit() -> None:
    most = "x" * SUBSTITUTED_BYTES_MAX
    while part(delivery(0, text=most)).key != part(delivery(1, text="short")).key:
        most = most[:-1]
    blocks = document(bound().batch_request(parts(most, "short"), MOMENT))["personalizations"]

    assert SUBSTITUTED_BYTES_MAX - 100 < len(orjson.dumps(blocks[0]["substitutions"])) <= 10_000


def test_mails_with_and_without_html_do_not_ride_together() -> None:
    keys = {part(delivery(0)).key, part(delivery(1, html="<p>")).key, part(delivery(2, text=None, html="<p>")).key}

    assert len(keys) == 3


def test_a_mail_with_a_very_long_subject_goes_alone() -> None:
    assert bound().part(delivery(0, subject="x" * PERSONALIZATION_BYTES_MAX), MOMENT) is None


@pytest.mark.parametrize(
    "payload", [{"subject": ""}, {"subject": "a\nb"}, {"text": None}, {"text": 7}, {"text": "\ud800"}, {"subject": "\ud800"}]
)
def test_what_can_not_be_sent_alone_can_not_be_a_part(payload: dict[str, Any]) -> None:
    with pytest.raises(Unsendable) as alone:
        bound().request(delivery(0, **payload), MOMENT)
    with pytest.raises(Unsendable) as together:
        bound().part(delivery(0, **payload), MOMENT)

    assert alone.value.code == together.value.code


def test_no_repr_of_a_part_shows_anything_of_a_person() -> None:
    assert "reader" not in repr(part(delivery(7)))


# --- the answer -------------------------------------------------------------------------------------------------------------


def test_all_that_ride_together_have_the_providers_id_of_their_request() -> None:
    found = bound().classify_batch(HttpResponse(202, ((b"x-message-id", b"m-1"),), b""), parts("a", "b"), NOW)

    assert found == [Outcome(OutcomeClass.DELIVERED, "accepted", "m-1")] * 2


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "misconfigured"), (403, "misconfigured"), (429, "rate_limited"), (503, "soft"), (504, "unknown")]
)
def test_what_is_not_the_fault_of_one_is_the_outcome_of_all(status: int, kind: str) -> None:
    assert [found and found[0] for found in outcomes(status, parts("a", "b", "c"))] == [kind] * 3


def test_those_that_a_refusal_names_are_refused_and_nothing_was_done_with_the_others() -> None:
    found = outcomes(
        400, parts("a", "b", "c", "d"), "personalizations.1.to.0.email", "personalizations.3.subject", "personalizations.1.to"
    )

    assert found == [None, ("hard", "recipient_refused"), None, ("hard", "subject_refused")]


def test_a_refused_setting_is_refused_for_all() -> None:
    assert outcomes(400, parts("a", "b"), "from.email") == [("misconfigured", "sender_refused")] * 2


def test_refused_content_is_refused_for_all_that_have_it() -> None:
    assert outcomes(400, parts("a", "a"), "content.0.value") == [("hard", "content_refused")] * 2


@pytest.mark.parametrize(
    "fields",
    [(), (None,), ("personalizations",), ("personalizations.7.to",), ("content.0.value",), ("subject",), ("other",)],
)
def test_when_it_is_not_told_whose_fault_it_is_nobody_has_an_outcome(fields: tuple[str | None, ...]) -> None:
    assert outcomes(400, parts("a", "b"), *fields) == [None, None]


def test_what_is_refused_for_its_substitutions_is_tried_without_any() -> None:
    assert outcomes(400, parts("a", "b"), "personalizations.0.to", "personalizations.1.substitutions") == [None, None]


def test_what_is_too_large_together_may_not_be_alone() -> None:
    assert outcomes(413, parts("a", "b")) == [None, None]
    assert outcomes(413, parts("a")) == [("hard", "too_large")]
    assert outcomes(400, parts("a")) == [("hard", "http_400")]


@given(
    st.integers(0, 1000),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.text() | st.sampled_from(["personalizations.1.to", "personalizations.99999999", "from"]),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["errors", "field"]), inner),
    ).map(orjson.dumps),
    st.integers(1, 4),
)
def test_whatever_comes_back_everybody_has_an_outcome_or_is_told_apart(status: int, body: bytes, count: int) -> None:
    found = bound().classify_batch(HttpResponse(status, (), body), parts(*["a"] * count), NOW)

    assert len(found) == count
    assert count > 1 or None not in found


# --- settings ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"batch_max": 1}, {"batch_max": 1000}, {"batch_max": None}, {"batch_max": 1, "key_retention_s": 60}]
)
def test_batches_that_can_be_had(settings: dict[str, Any]) -> None:
    assert settings_problems({"from_email": "a@example.org", **settings}) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_max": 0},
        {"batch_max": 1001},
        {"batch_max": 2.5},
        {"batch_max": True},
        {"batch_max": "many"},
        {"batch_max": 2, "key_retention_s": 60},
    ],
)
def test_batches_that_can_not_be_had_are_pointed_at(settings: dict[str, Any]) -> None:
    problems = settings_problems({"from_email": "a@example.org", **settings})

    assert [problem.pointer for problem in problems] == ["/settings/batch_max"]


# --- trying it out ----------------------------------------------------------------------------------------------------------


def probed(status: int, field: str | None = None) -> tuple[bool, str]:
    body = orjson.dumps({"errors": [{"message": "tickets@example.org is wrong", "field": field}]})
    found = bound().probed(HttpResponse(status, (), body), NOW)
    assert "tickets@" not in found.words
    assert found.words
    return found.good, found.code


def test_a_trial_mail_is_checked_by_the_provider_and_never_sent() -> None:
    request = bound().probe(MOMENT)
    taken = SendGrid().read(Request(request.method, request.target, dict(request.headers), request.body), Behaviour(), NOW)

    assert isinstance(taken, Intake)
    assert taken.validate_only


def test_what_the_trial_shows_is_said_in_words() -> None:
    assert probed(200) == (True, "validated")
    assert probed(202) == (True, "accepted")
    assert probed(401) == (False, "key_refused")
    assert probed(400, "from.email") == (False, "sender_refused")
    assert probed(429) == (False, "http_429")
    assert probed(500) == (False, "http_500")
    assert probed(418) == (False, "http_418")
