"""What SES's reports become: every row of its tables, both forms, several recipients."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.feedback.feedback import Feedback, FeedbackKind, Fetch, WebhookRequest
from dispatcher.feedback.ses import SES_FEEDBACK
from dispatcher.problems import Problem
from dispatcher.providers.ses import SES
from sns_world import CERTIFICATE_URL, MESSAGE_ID, NOW, TOPIC, envelope, good, time

ID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
SETTINGS: dict[str, Any] = {"region": "eu-central-1", "from_email": "tickets@example.org", "sns_topic_arn": TOPIC}
MAIL: dict[str, Any] = {
    "timestamp": time(NOW - 60),
    "messageId": "0107-mail-000000",
    "source": "Tickets <tickets@example.org>",
    "sendingAccountId": "123456789012",
    "destination": ["ann@example.com"],
    "tags": {"notification_id": [ID], "organization_id": ["acme"], "ses:operation": ["SendEmail"]},
}
K = FeedbackKind


def call(document: object) -> WebhookRequest:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    headers = {"content-type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "Notification"}
    return WebhookRequest("POST", "https://dispatcher.example/hook", headers, body)


def read(report: object, settings: dict[str, Any] | None = None, **fields: Any) -> Any:
    return SES_FEEDBACK.read(call(envelope(report, **fields)), settings or SETTINGS, {}, NOW, {CERTIFICATE_URL: good()})


def heard(report: object, **fields: Any) -> list[Feedback]:
    found = read(report, **fields)
    assert isinstance(found, list)
    return found


def people(*addresses: str) -> list[dict[str, str]]:
    return [{"emailAddress": address, "status": "5.1.1"} for address in addresses]


def event(kind: str, told: dict[str, Any], *, mail: dict[str, Any] | None = None, name: str = "") -> dict[str, Any]:
    return {"eventType": kind, "mail": mail or MAIL, name or kind.lower(): {"timestamp": time(NOW - 5), **told}}


def bounce(bounce_type: object, sub_type: object, *addresses: str, **told: Any) -> dict[str, Any]:
    given = {"bounceType": bounce_type, "bounceSubType": sub_type, "feedbackId": "0107-bounce-000000", **told}
    return event("Bounce", {**given, "bouncedRecipients": people(*(addresses or ("ann@example.com",)))})


def meaning(report: object) -> list[tuple[FeedbackKind, str, str | None]]:
    return [(one.kind, one.code, one.topic) for one in heard(report)]


@pytest.mark.parametrize("form", ["eventType", "notificationType"])
def test_a_report_says_when_what_became_of_which_mail_of_whom(form: str) -> None:
    report = bounce("Permanent", "General")
    report[form] = report.pop("eventType")
    (one,) = heard(report)

    assert one.kind is K.BOUNCED
    assert (one.at_unix_s, one.notification_id, one.provider_message_id) == (NOW - 5, ID, "0107-mail-000000")
    assert one.recipient == "ann@example.com"
    assert one.event_id.startswith("0107-bounce-000000/")
    assert "ann" not in repr(one)
    assert "ann" not in one.event_id


@pytest.mark.parametrize(
    ("bounce_type", "sub_type", "kind", "code"),
    [
        ("Permanent", "General", K.BOUNCED, "bounced"),
        ("Permanent", "NoEmail", K.BOUNCED, "no_such_mailbox"),
        ("Permanent", "Suppressed", K.BOUNCED, "suppressed_by_ses"),
        ("Permanent", "OnAccountSuppressionList", K.BOUNCED, "on_suppression_list"),
        ("Permanent", "UnsubscribedRecipient", K.UNSUBSCRIBED, "unsubscribed"),
        ("Permanent", "SomethingNew", K.BOUNCED, "bounced"),
        ("Transient", "General", K.SOFT_BOUNCED, "not_delivered"),
        ("Transient", "MailboxFull", K.SOFT_BOUNCED, "mailbox_full"),
        ("Transient", "MessageTooLarge", K.REFUSED, "message_too_large"),
        ("Transient", "ContentRejected", K.REFUSED, "content_rejected"),
        ("Transient", "AttachmentRejected", K.REFUSED, "attachment_rejected"),
        ("Transient", "SomethingNew", K.SOFT_BOUNCED, "not_delivered"),
        ("Transient", None, K.SOFT_BOUNCED, "not_delivered"),
        ("Undetermined", "Undetermined", K.SOFT_BOUNCED, "undetermined"),
        ("SomethingNew", "General", K.SOFT_BOUNCED, "undetermined"),
        (None, None, K.SOFT_BOUNCED, "undetermined"),
    ],
)
def test_a_bounce_means_what_its_types_say(bounce_type: object, sub_type: object, kind: FeedbackKind, code: str) -> None:
    assert meaning(bounce(bounce_type, sub_type)) == [(kind, code, None)]


@pytest.mark.parametrize(
    ("feedback_type", "sub_type", "found"),
    [
        ("abuse", None, [(K.COMPLAINED, "complaint_abuse", None)]),
        ("auth-failure", None, [(K.COMPLAINED, "complaint_auth_failure", None)]),
        ("fraud", None, [(K.COMPLAINED, "complaint_fraud", None)]),
        ("other", None, [(K.COMPLAINED, "complaint_other", None)]),
        ("virus", None, [(K.COMPLAINED, "complaint_virus", None)]),
        ("something-new", None, [(K.COMPLAINED, "complaint", None)]),
        (None, None, [(K.COMPLAINED, "complaint", None)]),
        (None, "OnAccountSuppressionList", [(K.COMPLAINED, "on_suppression_list", None)]),
        ("not-spam", None, []),
    ],
)
def test_a_complaint_is_one_unless_it_is_the_opposite(feedback_type: object, sub_type: object, found: list[Any]) -> None:
    told = {
        "complaintFeedbackType": feedback_type,
        "complaintSubType": sub_type,
        "complainedRecipients": people("ann@example.com"),
    }

    assert meaning(event("Complaint", told)) == found


@pytest.mark.parametrize(
    ("report", "found"),
    [
        (event("Delivery", {"recipients": ["ann@example.com"]}), [(K.DELIVERED, "delivered", None)]),
        (
            event("DeliveryDelay", {"delayedRecipients": people("a@b.c")}, name="deliveryDelay"),
            [(K.DEFERRED, "delayed", None)],
        ),
        (event("Reject", {"reason": "Bad content"}), [(K.REFUSED, "rejected", None)]),
        (event("Rendering Failure", {"errorMessage": "x"}, name="failure"), [(K.REFUSED, "rendering_failed", None)]),
        (event("Open", {"userAgent": "x"}), [(K.READ, "opened", None)]),
        (event("Click", {"link": "x"}), [(K.READ, "clicked", None)]),
        (event("Send", {}), []),
        (event("Something New", {}), []),
        (event("Subscription", {"newTopicPreferences": {"unsubscribeAll": True}}), [(K.UNSUBSCRIBED, "unsubscribed", None)]),
        (
            event(
                "Subscription",
                {"newTopicPreferences": {"unsubscribeAll": False}, "oldTopicPreferences": {"unsubscribeAll": True}},
            ),
            [(K.RESUBSCRIBED, "resubscribed", None)],
        ),
        (
            event(
                "Subscription",
                {
                    "newTopicPreferences": {
                        "unsubscribeAll": False,
                        "topicSubscriptionStatus": [
                            {"topicName": "news", "subscriptionStatus": "OptOut"},
                            {"topicName": "offers", "subscriptionStatus": "OptIn"},
                            {"topicName": "odd", "subscriptionStatus": "Maybe"},
                            None,
                        ],
                    }
                },
            ),
            [(K.UNSUBSCRIBED, "unsubscribed", "news"), (K.RESUBSCRIBED, "resubscribed", "offers")],
        ),
        (event("Subscription", {}), []),
    ],
)
def test_every_other_event_means_one_thing(report: dict[str, Any], found: list[Any]) -> None:
    assert meaning(report) == found


def test_a_report_about_several_is_one_record_for_each() -> None:
    found = heard(bounce("Permanent", "General", "ann@example.com", "Bob <bob@example.com>", "ann@example.com"))

    assert [one.recipient for one in found] == ["ann@example.com", "bob@example.com"]
    assert len({one.event_id for one in found}) == 2


def test_an_event_about_the_mail_is_about_all_it_went_to() -> None:
    found = heard(event("Reject", {}, mail={**MAIL, "destination": ["ann@example.com", "bob@example.com"]}))

    assert [one.recipient for one in found] == ["ann@example.com", "bob@example.com"]


def test_repetitions_have_the_id_of_the_first_and_other_reports_another() -> None:
    delivery = event("Delivery", {"recipients": ["ann@example.com"]})
    first, again = heard(delivery), heard(delivery)
    other = heard(delivery, MessageId="another")
    published_twice = [heard(bounce("Permanent", "General"), MessageId=name) for name in ("one", "two")]

    assert first == again
    assert first[0].event_id.startswith(f"{MESSAGE_ID}/")
    assert first[0].event_id != other[0].event_id
    assert published_twice[0] == published_twice[1]  # one bounce, published in both forms


def test_several_wishes_of_one_event_have_ids_of_their_own() -> None:
    statuses = [{"topicName": name, "subscriptionStatus": "OptOut"} for name in ("a", "b", "c")]
    found = heard(event("Subscription", {"newTopicPreferences": {"topicSubscriptionStatus": statuses}}))

    assert len({one.event_id for one in found}) == 3


@pytest.mark.parametrize("tags", [None, {}, {"notification_id": []}, {"notification_id": ["x"]}, {"notification_id": ID}, [ID]])
def test_a_mail_that_is_not_ours_still_tells_of_its_address(tags: object) -> None:
    (one,) = heard(bounce("Permanent", "General") | {"mail": {**MAIL, "tags": tags}})

    assert (one.notification_id, one.recipient, one.provider_message_id) == (None, "ann@example.com", "0107-mail-000000")


def test_without_a_time_of_its_own_an_event_has_that_of_the_mail_or_of_the_message() -> None:
    no_time = event("Reject", {"timestamp": None})
    nowhere = event("Reject", {"timestamp": "never"}, mail={**MAIL, "timestamp": 7})

    assert heard(no_time)[0].at_unix_s == NOW - 60
    assert heard(nowhere)[0].at_unix_s == NOW


# --- whose it is --------------------------------------------------------------------------------------------


def test_mails_of_another_account_are_not_ours() -> None:
    other = {**MAIL, "sendingAccountId": "999999999999"}
    found = read(bounce("Permanent", "General") | {"mail": other})

    assert isinstance(found, Problem)
    assert (found.status, found.code) == (403, "account_refused")
    assert len(read(bounce("Permanent", "General") | {"mail": other}, {**SETTINGS, "account_id": "999999999999"})) == 1
    assert isinstance(read(bounce("Permanent", "General"), {**SETTINGS, "account_id": "999999999999"}), Problem)


def test_without_a_topic_in_the_settings_nothing_is_believed() -> None:
    found = read(bounce("Permanent", "General"), {"region": "eu-central-1"})

    assert isinstance(found, Problem)
    assert found.code == "webhook_not_set_up"


def test_several_topics_may_report() -> None:
    assert len(read(bounce("Permanent", "General"), {**SETTINGS, "sns_topic_arn": [TOPIC + "-2", TOPIC]})) == 1


SANDBOX_CERTIFICATE = "http://127.0.0.1:8025/certificate.pem"


@pytest.mark.parametrize(
    ("base_url", "believed"),
    [
        ("http://127.0.0.1:8025", True),
        ("http://127.0.0.1:8025/deeper", True),
        ("http://127.0.0.1:8026", False),
        ("https://email.eu-central-1.amazonaws.com", False),
        (None, False),
        (7, False),
    ],
)
def test_a_certificate_may_lie_where_mails_are_sent_to_if_that_is_not_amazon(base_url: object, believed: bool) -> None:
    request = call(envelope(bounce("Permanent", "General"), SigningCertURL=SANDBOX_CERTIFICATE))
    settings = {**SETTINGS, "base_url": base_url}

    assert (SES_FEEDBACK.read(request, settings, {}, NOW, {}) == Fetch(SANDBOX_CERTIFICATE, again=True)) is believed


def test_amazons_own_hosts_hold_certificates_in_their_own_way_only() -> None:
    url = "https://email.eu-central-1.amazonaws.com/x.pem"
    request = call(envelope(bounce("Permanent", "General"), SigningCertURL=url))
    settings = {**SETTINGS, "base_url": "https://email.eu-central-1.amazonaws.com"}

    assert isinstance(SES_FEEDBACK.read(request, settings, {}, NOW, {url: good()}), Problem)


# --- anything -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
MAILS, BOUNCES = ("tags", "destination", "messageId", "timestamp"), ("bounceType", "bouncedRecipients", "feedbackId")
BROKEN = st.fixed_dictionaries(
    {"eventType": st.sampled_from(["Bounce", "Complaint", "Delivery", "Subscription", "Open", "Reject"]) | JSON},
    optional={
        "mail": st.fixed_dictionaries({}, optional=dict.fromkeys(MAILS, JSON)) | JSON,
        "bounce": st.fixed_dictionaries({}, optional=dict.fromkeys(BOUNCES, JSON)) | JSON,
        "complaint": JSON,
        "delivery": st.fixed_dictionaries({"recipients": JSON}),
        "subscription": st.fixed_dictionaries({"newTopicPreferences": JSON}),
    },
)


@given(BROKEN | JSON)
def test_nothing_authentic_raises(report: object) -> None:
    for one in heard(report):
        assert one.event_id.isascii()
        assert len(one.event_id) <= 200
        assert one.recipient


@given(st.binary(max_size=40))
def test_no_body_raises(body: bytes) -> None:
    assert isinstance(SES_FEEDBACK.read(call(body), SETTINGS, {}, NOW, {}), Problem)


def test_the_provider_names_its_source() -> None:
    assert SES.feedback is SES_FEEDBACK
