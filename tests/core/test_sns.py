"""SNS's envelopes: who is believed, and what is fetched."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.feedback.feedback import Fetch, WebhookReply
from dispatcher.feedback.sns import Published, opened
from dispatcher.http_message import Origin
from dispatcher.problems import Problem
from sns_world import (
    CERTIFICATE_URL,
    CONFIRM_URL,
    MESSAGE_ID,
    NOW,
    TOPIC,
    certificate,
    certificate_of_a_curve,
    envelope,
    good,
    resigned,
)

SANDBOX = Origin("http", "127.0.0.1", 8025)
HOUR = 3600.0


def read(
    document: object, *, pem: bytes | None = None, topics: tuple[str, ...] = (TOPIC,), extra: Origin | None = None
) -> Published | WebhookReply | Fetch | Problem:
    """What is made of an envelope when everything that could be fetched is there."""
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    urls = [document.get("SigningCertURL")] if isinstance(document, dict) else []
    return opened(body, NOW, {url: pem or good() for url in urls if isinstance(url, str)}, topics, extra)


def code(document: object, **how: Any) -> str:
    found = read(document, **how)
    assert isinstance(found, Problem)
    assert found.status == 403
    return found.code


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("fields", [{}, {"Subject": "Amazon SES"}, {"Message": "zwei\nZeilen: ünï & <b>"}, {"Message": ""}])
def test_a_message_that_is_signed_in_either_way_is_opened(version: str, fields: dict[str, Any]) -> None:
    made = envelope(version=version, **fields)

    assert read(made) == Published(MESSAGE_ID, TOPIC, NOW, made["Message"])


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("field", ["Message", "MessageId", "Subject", "Timestamp", "Type", "Signature", "SignatureVersion"])
def test_whatever_is_changed_after_signing_shows(field: str, version: str) -> None:
    other = "2" if version == "1" else "1"
    changes = {"Timestamp": "2023-11-14T22:13:19.000Z", "Type": "SubscriptionConfirmation", "SignatureVersion": other}
    made = envelope(version=version, Subject="s")
    changed = made | {"SubscribeURL": CONFIRM_URL, "Token": "t", field: changes.get(field, "AAAA")}

    assert code(changed) == "signature_invalid"


def test_a_subject_that_is_slipped_in_or_taken_out_shows() -> None:
    assert code(envelope() | {"Subject": "s"}) == "signature_invalid"
    with_subject = envelope(Subject="s")
    del with_subject["Subject"]
    assert code(with_subject) == "signature_invalid"


def test_what_is_not_signed_may_change() -> None:
    assert isinstance(read(envelope() | {"UnsubscribeURL": "https://anywhere.example"}), Published)


@pytest.mark.parametrize("version", ["", "0", "3", "01"])
def test_a_signature_of_another_version_is_not_believed(version: str) -> None:
    assert code(envelope() | {"SignatureVersion": version}) == "signature_version_unknown"


@pytest.mark.parametrize("signature", ["", "!", "=", "AAAA", "ü"])
def test_a_signature_that_is_none_is_not_believed(signature: str) -> None:
    assert code(envelope() | {"Signature": signature}) == "signature_invalid"


# --- certificates -------------------------------------------------------------------------------------------


def test_a_certificate_that_is_not_there_is_fetched_first() -> None:
    assert opened(orjson.dumps(envelope()), NOW, {}, (TOPIC,)) == Fetch(CERTIFICATE_URL, again=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-ac565b8b1a6c5d002d285f9598aa1d9b.pem",
        "https://sns.us-gov-west-1.amazonaws.com/x.pem",
        "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService.pem",
    ],
)
def test_certificates_come_from_sns(url: str) -> None:
    assert isinstance(read(envelope(SigningCertURL=url)), Published)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://sns.us-east-1.amazonaws.com/x.pem",
        "https://sns.us-east-1.amazonaws.com/x.crt",
        "https://sns.us-east-1.amazonaws.com.evil.example/x.pem",
        "https://sns.us-east-1.amazonaws.com@evil.example/x.pem",
        "https://sns.us-east-1.amazonaws.com:8443/x.pem",
        "https://evil.example/sns.us-east-1.amazonaws.com/x.pem",
        "https://evil.example\\sns.us-east-1.amazonaws.com/x.pem",
        "https://sns.evil.s3.amazonaws.com/x.pem",
        "https://sns.xx.amazonaws.com/x.pem",
        "https://sns.s3-us-west-2.amazonaws.com/x.pem",
        "https://sns.s3-website-us-west-2.amazonaws.com/x.pem",
        "https://sns.s3-accelerate.amazonaws.com/x.pem",
        "https://xsns.us-east-1.amazonaws.com/x.pem",
        "https://sns.us-east-1.amazonaws.com/?x.pem",
        "https://sns.us-east-1.amazonaws.com/x#.pem",
        "https://sns.us-east-1.amazonaws.com/x.pem\n",
        "https://snsxus-east-1.amazonaws.com/x.pem",
        "https://sns.us-east-1xamazonaws.com/x.pem",
        "https://sns.us-east-1.amazonaws.com/" + "x" * 300 + ".pem",
        "http://127.0.0.1:8025/x.pem",
    ],
)
def test_certificates_come_from_nowhere_else(url: str) -> None:
    made = envelope(SigningCertURL=url)

    assert code(made) == "certificate_url_refused"
    assert isinstance(opened(orjson.dumps(made), NOW, {}, (TOPIC,)), Problem)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8025/x.pem", "http://127.0.0.1:8025/deep/er/x.pem"])
def test_an_origin_that_was_allowed_may_stand_for_sns(url: str) -> None:
    assert isinstance(read(envelope(SigningCertURL=url), extra=SANDBOX), Published)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8026/x.pem",
        "https://127.0.0.1:8025/x.pem",
        "http://127.0.0.1:8025@evil.example/x.pem",
        "http://127.0.0.1:8025/x.crt",
        "http://127.0.0.1:8025/x#.pem",
    ],
)
def test_it_stands_for_sns_as_it_is_and_nothing_like_it(url: str) -> None:
    assert code(envelope(SigningCertURL=url), extra=SANDBOX) == "certificate_url_refused"


def test_a_certificate_counts_only_while_it_is_valid() -> None:
    assert code(envelope(), pem=certificate(NOW + 1, NOW + 9)) == "certificate_expired"
    assert code(envelope(), pem=certificate(NOW - 9, NOW - 1)) == "certificate_expired"


def test_what_is_no_certificate_with_a_key_of_rsa_proves_nothing() -> None:
    for pem in (b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", certificate_of_a_curve()):
        assert code(envelope(), pem=pem) == "certificate_invalid"


# --- topics and times ---------------------------------------------------------------------------------------


def test_only_topics_of_the_configuration_are_believed_and_nothing_is_fetched_for_others() -> None:
    other = envelope(TopicArn=TOPIC.replace("123456789012", "999999999999"))

    assert code(other) == "topic_refused"
    assert isinstance(opened(orjson.dumps(other), NOW, {}, (TOPIC,)), Problem)
    assert code(envelope(), topics=()) == "webhook_not_set_up"
    assert isinstance(read(other, topics=(TOPIC, other["TopicArn"])), Published)


@pytest.mark.parametrize("age_s", [-299, 0, HOUR, HOUR + 299])
def test_repetitions_of_an_hour_are_heard(age_s: float) -> None:
    assert isinstance(read(envelope(at_s=NOW - age_s)), Published)


@pytest.mark.parametrize("age_s", [-301, HOUR + 301, 86_400])
def test_what_is_older_or_of_the_future_is_a_replay(age_s: float) -> None:
    assert code(envelope(at_s=NOW - age_s)) == "signature_too_old"


@pytest.mark.parametrize(
    "timestamp", ["", "now", "2023-11-14", "2023-11-14T22:13:20", "2023-13-14T22:13:20Z", "2023-11-14T22:13:20+00:00"]
)
def test_a_time_is_written_in_one_way(timestamp: str) -> None:
    assert code(envelope(Timestamp=timestamp)) == "signature_too_old"


# --- subscriptions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_subscription_is_confirmed_by_a_visit(version: str) -> None:
    assert read(envelope(kind="SubscriptionConfirmation", version=version)) == Fetch(CONFIRM_URL, again=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://sns.s3-us-west-2.amazonaws.com/?Action=ConfirmSubscription",
        "https://sns.eu-central-1.amazonaws.com.evil.example/?Action=ConfirmSubscription",
        "https://sns.eu-central-1.amazonaws.com@evil.example/",
        "https://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "https://sns.eu-central-1.amazonaws.com/?a\r\nb",
        "http://127.0.0.1:8025/confirm?x",
    ],
)
def test_a_visit_goes_to_sns_alone(url: str) -> None:
    assert code(envelope(kind="SubscriptionConfirmation", SubscribeURL=url)) == "confirmation_url_refused"


def test_a_visit_may_go_where_certificates_may_come_from() -> None:
    made = envelope(kind="SubscriptionConfirmation", SubscribeURL="http://127.0.0.1:8025/confirm?Token=1&x=%20")

    assert read(made, extra=SANDBOX) == Fetch("http://127.0.0.1:8025/confirm?Token=1&x=%20", again=False)
    broken = envelope(kind="SubscriptionConfirmation", SubscribeURL="http://127.0.0.1:8025/confirm?Token=1#\n")
    assert code(broken, extra=SANDBOX) == "confirmation_url_refused"


def test_the_token_and_the_visit_are_signed() -> None:
    made = envelope(kind="SubscriptionConfirmation")

    for changed in ({"Token": "other"}, {"SubscribeURL": CONFIRM_URL + "&x"}):
        assert code(made | changed) == "signature_invalid"


def test_the_end_of_a_subscription_is_taken_note_of_and_not_undone() -> None:
    assert read(envelope(kind="UnsubscribeConfirmation")) == WebhookReply(200, "sns_unsubscribed")
    assert code(envelope(kind="UnsubscribeConfirmation") | {"Token": "other"}) == "signature_invalid"


# --- anything -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", ["Type", "MessageId", "TopicArn", "Message", "Timestamp", "SignatureVersion", "Signature", "SigningCertURL"]
)
def test_every_field_must_be_there_and_a_text(field: str) -> None:
    made = envelope()
    without = {name: value for name, value in made.items() if name != field}

    assert code(without) == "body_invalid"
    assert code(made | {field: 1}) == "body_invalid"


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b"{", b"\xff"])
def test_what_is_no_envelope_is_refused(body: bytes) -> None:
    assert code(body) == "body_invalid"


def test_a_message_without_a_proper_id_is_refused() -> None:
    assert code(envelope(MessageId="a b")) == "body_invalid"


CONFIRMATION = envelope(kind="SubscriptionConfirmation")


@given(st.dictionaries(st.sampled_from(sorted(CONFIRMATION)), st.text(max_size=30) | st.none()))
def test_nothing_raises(changes: dict[str, Any]) -> None:
    found = read(CONFIRMATION | changes, extra=SANDBOX)

    assert isinstance(found, Problem) or changes.items() <= CONFIRMATION.items()


def test_a_signature_of_another_message_is_none() -> None:
    one, other = envelope(Message="a"), envelope(Message="b")

    assert code(other | {"Signature": one["Signature"]}) == "signature_invalid"
    assert isinstance(read(resigned(one | {"Message": "b"})), Published)


def test_a_message_that_another_key_has_signed_is_not_believed() -> None:
    assert code(envelope(), pem=certificate(private=rsa.generate_private_key(65_537, 2048))) == "signature_invalid"
