from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.feedback.feedback import Feedback, FeedbackKind, WebhookReply, WebhookRequest
from dispatcher.feedback.meta import META_FEEDBACK
from dispatcher.problems import Problem
from dispatcher.providers.meta_errors import ERRORS
from dispatcher.providers.meta_whatsapp import META_WHATSAPP
from meta_world import ACCOUNT_ID, CREDENTIALS, PHONE_NUMBER_ID, SETTINGS
from twilio_world import ID, NOW, NUMBER

URL = "https://dispatcher.example/hooks/7"
WAMID = "wamid.HBgLMTU1NTEyMzAwMDAVAgARGBI5QTNDQTVCM0Q0Q0Q2RTY3RTcA"
STATUS: dict[str, Any] = {
    "id": WAMID,
    "status": "delivered",
    "timestamp": "1700000123",
    "recipient_id": NUMBER[1:],
    "conversation": {"id": "c", "origin": {"type": "utility"}},
    "pricing": {"billable": True, "pricing_model": "PMP", "category": "utility"},
    "biz_opaque_callback_data": f"organization_id=acme&notification_id={ID}",
}
MESSAGE: dict[str, Any] = {"from": NUMBER[1:], "id": WAMID, "timestamp": "1700000123", "type": "text", "text": {"body": "Stop"}}
PREFERENCE: dict[str, Any] = {
    "wa_id": NUMBER[1:],
    "detail": "User requested to stop marketing messages",
    "category": "marketing_messages",
    "value": "stop",
    "timestamp": 1700000123,
}


def document(field: str = "messages", number: str = PHONE_NUMBER_ID, account: str = ACCOUNT_ID, **value: Any) -> dict[str, Any]:
    metadata = {"display_phone_number": "15005550006", "phone_number_id": number}
    change = {"field": field, "value": {"messaging_product": "whatsapp", "metadata": metadata, **value}}
    return {"object": "whatsapp_business_account", "entry": [{"id": account, "changes": [change]}]}


def signed(body: bytes, secret: str = CREDENTIALS["app_secret"]) -> WebhookRequest:
    mac = hmac.new(secret.encode(), body, sha256).hexdigest()
    return WebhookRequest("POST", URL, {"content-type": "application/json", "x-hub-signature-256": f"sha256={mac}"}, body)


def read(request: WebhookRequest, settings: dict[str, str] | None = None) -> Any:
    return META_FEEDBACK.read(request, settings or SETTINGS, CREDENTIALS, NOW, {})


def told(document: dict[str, Any], **settings: str) -> Sequence[Feedback]:
    # Escaped as Meta writes it: what is signed are these bytes, not what they mean.
    found = read(signed(json.dumps(document).encode()), {**SETTINGS, **settings})
    assert isinstance(found, list)
    return found


def one(**fields: Any) -> Feedback:
    """What one status with these fields tells."""
    (found,) = told(document(statuses=[{**STATUS, **fields}]))
    return found


def code(found: Any) -> str:
    assert isinstance(found, Problem)
    assert found.status in (401, 403)
    return found.code


# --- signatures ---------------------------------------------------------------------------------------------


def test_what_is_signed_are_the_raw_bytes() -> None:
    body = json.dumps(document(statuses=[STATUS], note="größer")).encode()
    request = signed(body)

    assert b"\\u" in body
    assert len(read(request)) == 1
    for other in (body + b" ", orjson.dumps(orjson.loads(body)), b""):
        assert code(read(WebhookRequest("POST", URL, request.headers, other))) == "webhook_signature_wrong"


@given(st.binary(), st.binary(), st.text())
def test_only_the_apps_secret_fits(body: bytes, other: bytes, given: str) -> None:
    request = signed(body)

    assert not isinstance(read(request), Problem)
    assert body == other or isinstance(read(WebhookRequest("POST", URL, request.headers, other)), Problem)
    assert isinstance(read(WebhookRequest("POST", URL, {"x-hub-signature-256": given}, body)), Problem)
    assert code(read(signed(body, "other"))) == "webhook_signature_wrong"


def test_a_report_without_a_signature_is_refused() -> None:
    assert code(read(WebhookRequest("POST", URL, {}, b"{}"))) == "webhook_signature_missing"
    assert code(META_FEEDBACK.read(signed(b"{}"), SETTINGS, {"access_token": "x"}, NOW, {})) == "webhook_secret_missing"


# --- the challenge ------------------------------------------------------------------------------------------


def challenge(query: str, **credentials: str) -> Any:
    request = WebhookRequest("GET", f"{URL}?{query}", {}, b"")
    return META_FEEDBACK.read(request, SETTINGS, credentials or CREDENTIALS, NOW, {})


def test_a_challenge_is_echoed_to_who_knows_the_token() -> None:
    reply = challenge("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=hush-verify")

    assert reply == WebhookReply(200, "webhook_verified", b"1158201444")
    assert b"1158201444" not in repr(reply).encode()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong",
        "hub.mode=subscribe&hub.challenge=1",
        "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=hush-verify",
        "hub.mode=subscribe&hub.verify_token=hush-verify",
        "hub.mode=subscribe&hub.challenge=%3Cscript%3E&hub.verify_token=hush-verify",
        "&".join(["a=b"] * 200),
    ],
)
def test_nobody_else_gets_an_echo(query: str) -> None:
    assert code(challenge(query)) == "webhook_challenge_wrong"
    assert code(challenge(query, access_token="x")) == "webhook_secret_missing"


# --- statuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("sent", FeedbackKind.SENT),
        ("delivered", FeedbackKind.DELIVERED),
        ("read", FeedbackKind.READ),
        ("played", FeedbackKind.READ),
    ],
)
def test_a_status_tells_of_its_message(state: str, kind: FeedbackKind) -> None:
    assert one(status=state) == Feedback(f"{WAMID}:{state}", kind, state, 1_700_000_123.0, ID, WAMID, NUMBER)


@pytest.mark.parametrize("number", sorted(ERRORS.rows))
def test_every_code_of_the_table_tells_something(number: int) -> None:
    kind = FeedbackKind.INVALID if number == 131026 else FeedbackKind.REFUSED
    error = {"code": number, "title": "x", "message": f"to {NUMBER}", "error_data": {"details": NUMBER}, "href": "…"}
    found, *more = told(document(statuses=[{**STATUS, "status": "failed", "errors": [error]}]))

    assert (found.kind, found.code, found.topic) == (kind, ERRORS.rows[number].code, None)
    assert [(one.kind, one.recipient, one.topic) for one in more] == (
        [(FeedbackKind.UNSUBSCRIBED, NUMBER, "marketing")] if number == 131050 else []
    )


@pytest.mark.parametrize("errors", [None, [], [{}], "x", [{"code": "131026"}], [{"code": 5_000_000}], [7]])
def test_a_failure_nobody_knows_is_never_held_against_the_recipient(errors: object) -> None:
    found = one(status="failed", errors=errors)

    assert (found.kind, found.code) == (FeedbackKind.REFUSED, "failed")


@pytest.mark.parametrize("fields", [{"status": "deleted"}, {"status": ["sent"]}, {"id": None}, {"id": ""}, {"id": "x" * 999}])
def test_other_statuses_tell_nothing(fields: dict[str, Any]) -> None:
    assert told(document(statuses=[{**STATUS, **fields}])) == []


@pytest.mark.parametrize("fields", [{"timestamp": None}, {"timestamp": "soon"}, {"timestamp": True}, {"timestamp": "9" * 5000}])
def test_without_a_time_of_metas_ours_will_do(fields: dict[str, Any]) -> None:
    assert one(**fields).at_unix_s == NOW


@pytest.mark.parametrize("data", [None, 7, "acme", "notification_id=1", "&" * 200])
def test_without_our_data_the_messages_id_is_what_is_known(data: object) -> None:
    found = one(biz_opaque_callback_data=data)

    assert (found.notification_id, found.provider_message_id) == (None, WAMID)


def test_one_call_may_carry_many() -> None:
    many = document(statuses=[STATUS, {**STATUS, "status": "read"}])
    many["entry"] += document(messages=[MESSAGE])["entry"]

    assert [found.kind for found in told(many)] == [FeedbackKind.DELIVERED, FeedbackKind.READ, FeedbackKind.UNSUBSCRIBED]


def test_what_is_about_another_number_or_account_is_passed_over() -> None:
    assert told(document(statuses=[STATUS], number="7")) == []
    assert told(document(statuses=[STATUS], account="7"), business_account_id=ACCOUNT_ID) == []
    assert len(told(document(statuses=[STATUS]), business_account_id=ACCOUNT_ID)) == 1
    assert told({**document(statuses=[STATUS]), "object": "page"}) == []
    assert told(document("account_update", statuses=[STATUS])) == []


# --- what people say ----------------------------------------------------------------------------------------


def said(**fields: Any) -> Sequence[Feedback]:
    return told(document(messages=[{**MESSAGE, **fields}]))


def test_a_word_opts_out_and_in() -> None:
    event_id = f"{WAMID}:received"
    stop = Feedback(event_id, FeedbackKind.UNSUBSCRIBED, "stop_received", 1_700_000_123.0, recipient=NUMBER)
    start = Feedback(event_id, FeedbackKind.RESUBSCRIBED, "start_received", 1_700_000_123.0, recipient=NUMBER)

    assert said() == said(text=None, type="button", button={"text": "stop", "payload": "p"}) == [stop]
    assert said(text={"body": "start"}) == [start]


@pytest.mark.parametrize("text", [{"body": "please stop"}, {"body": 7}, "stop", None])
def test_other_words_mean_nothing(text: object) -> None:
    assert said(text=text) == []


@pytest.mark.parametrize("fields", [{"from": "Ann"}, {"from": None}, {"id": None}])
def test_nobody_is_opted_out_without_a_number(fields: dict[str, Any]) -> None:
    assert said(**fields) == []


def preferred(**fields: Any) -> Sequence[Feedback]:
    return told(document("user_preferences", user_preferences=[{**PREFERENCE, **fields}]))


def test_marketing_can_be_stopped_in_the_app_without_stopping_the_rest() -> None:
    (stopped,), (again,), (resumed,) = preferred(), preferred(), preferred(value="resume")

    assert (stopped.kind, stopped.recipient, stopped.topic) == (FeedbackKind.UNSUBSCRIBED, NUMBER, "marketing")
    assert (resumed.kind, resumed.topic) == (FeedbackKind.RESUBSCRIBED, "marketing")
    assert stopped.event_id == again.event_id != resumed.event_id
    assert NUMBER[1:] not in stopped.event_id


@pytest.mark.parametrize("fields", [{"value": "maybe"}, {"value": []}, {"category": "other"}, {"wa_id": None}])
def test_other_preferences_mean_nothing(fields: dict[str, Any]) -> None:
    assert preferred(**fields) == []


# --- anything else ------------------------------------------------------------------------------------------

NAMES = ["object", "entry", "id", "changes", "field", "value", "metadata", "phone_number_id", "statuses", "messages", "status"]
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.sampled_from(["messages", PHONE_NUMBER_ID, "failed"])
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES), inner), max_leaves=20)
STATUSES = st.dictionaries(st.sampled_from([*STATUS, "errors"]), DOCUMENTS)


@given(DOCUMENTS | STATUSES.map(lambda status: document(statuses=[status], messages=[status])))
def test_whatever_is_signed_is_read(value: Any) -> None:
    found = read(signed(orjson.dumps(value)))

    assert all(len(one.event_id.encode("ascii")) <= 200 for one in found)


@given(st.text(), st.dictionaries(st.text(), st.text()), st.binary())
def test_whatever_comes_is_refused(url: str, headers: dict[str, str], body: bytes) -> None:
    assert isinstance(read(WebhookRequest("GET", url, headers, body)), Problem)
    assert isinstance(read(WebhookRequest("POST", url, headers, body)), Problem)


def test_the_provider_reads_its_reports() -> None:
    assert META_WHATSAPP.feedback is META_FEEDBACK


def test_nothing_shows_who_it_is_about() -> None:
    assert NUMBER not in repr([one(), said(), preferred(), signed(orjson.dumps(STATUS))])
