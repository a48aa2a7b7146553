"""SES: what is sent, and what its answers mean. Requests and answers go through the model and the parser of AWS's own SDK."""

from __future__ import annotations

from contextlib import suppress
from email.header import decode_header, make_header
from email.utils import parseaddr
from random import Random
from typing import Any

import botocore.session
import orjson
import pytest
from attrs import evolve
from botocore.parsers import RestJSONParser
from botocore.validate import validate_parameters
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.batching import Batching, Part
from dispatcher.providers.inquiry import Askable
from dispatcher.providers.probing import Probing
from dispatcher.providers.provider import Moment, Unsendable
from dispatcher.providers.ses import BULK_BYTES_MAX, SES, TEMPLATE_DATA_BYTES_MAX, BoundSes, bind
from dispatcher.providers.ses_errors import DAILY_QUOTA_RETRY_S, EXPLANATIONS, LIMIT_RETRY_S, PAUSED_RETRY_S, SUSPENDED_RETRY_S

NOW = 1_700_000_000.0
ID = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
OTHER = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c073990")
SETTINGS = {"region": "eu-central-1", "from_email": "tickets@example.org"}
CREDENTIALS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "hush-hush-hush-hush"}
CONFIG = ProviderConfig("1", OrganizationId("acme"), Channel.EMAIL, "ses", SETTINGS, CREDENTIALS, revision=1)
MOMENT = Moment(NOW, Random(1).randbytes)
PAYLOAD = {"subject": "Your tickets", "text": "Hello", "html": "<p>Hello & welcome</p>"}
DELIVERY = Delivery(
    ID, OrganizationId("acme"), Channel.EMAIL, "ann@example.com", PAYLOAD, attempt=1, attempts_max=8, created_at_s=NOW
)
MODEL = botocore.session.get_session().get_service_model("sesv2")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)
D, S, R, H, M, U = (
    OutcomeClass.DELIVERED,
    OutcomeClass.SOFT,
    OutcomeClass.RATE_LIMITED,
    OutcomeClass.HARD,
    OutcomeClass.MISCONFIGURED,
    OutcomeClass.UNKNOWN,
)


def bound(**settings: Any) -> BoundSes:
    return bind(evolve(CONFIG, settings={**SETTINGS, **settings}), {"http://127.0.0.1:8025"})


def delivery(recipient: str = "ann@example.com", /, id: NotificationId = ID, **payload: Any) -> Delivery:
    return evolve(DELIVERY, id=id, recipient=recipient, payload=payload or PAYLOAD)


def sent(request: HttpRequest, operation: str = "SendEmail") -> dict[str, Any]:
    """The body of a request, which must be one by the SDK's model."""
    body: dict[str, Any] = orjson.loads(request.body)
    model = MODEL.operation_model(operation)
    assert request.target.decode() == model.http["requestUri"]
    assert request.method.decode() == model.http["method"]
    validate_parameters(body, model.input_shape)
    return body


def part(bound: BoundSes, delivery: Delivery) -> Part:
    part = bound.part(delivery, MOMENT)
    assert part is not None
    return part


def batch(bound: BoundSes, *deliveries: Delivery) -> dict[str, Any]:
    return sent(bound.batch_request([part(bound, delivery) for delivery in deliveries], MOMENT), "SendBulkEmail")


def answer(status: int, body: object = b"", **headers: str) -> HttpResponse:
    fields = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return HttpResponse(status, fields, body if isinstance(body, bytes) else orjson.dumps(body))


def tags(given: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Name"]: tag["Value"] for tag in given}


# --- one mail -----------------------------------------------------------------------------------------------


def test_a_mail_is_one_request_in_the_providers_form() -> None:
    request = bound().request(DELIVERY, MOMENT)

    assert request.origin == Origin("https", "email.eu-central-1.amazonaws.com", 443)
    assert sent(request) == {
        "FromEmailAddress": "tickets@example.org",
        "EmailTags": [{"Name": "organization_id", "Value": "acme"}, {"Name": "notification_id", "Value": ID}],
        "Destination": {"ToAddresses": ["ann@example.com"]},
        "Content": {
            "Simple": {
                "Subject": {"Charset": "UTF-8", "Data": "Your tickets"},
                "Body": {
                    "Text": {"Charset": "UTF-8", "Data": "Hello"},
                    "Html": {"Charset": "UTF-8", "Data": "<p>Hello & welcome</p>"},
                },
            }
        },
    }


def test_the_attempt_changes_nothing_and_the_time_only_the_signature() -> None:
    first, second = bound().request(DELIVERY, MOMENT), bound().request(evolve(DELIVERY, attempt=2), MOMENT)
    later = bound().request(DELIVERY, Moment(NOW + 1, Random(2).randbytes))

    assert first == second
    assert (first.body, first.target) == (later.body, later.target)
    assert first.headers != later.headers
    assert b"idempotency-key" not in dict(first.headers)


def test_a_session_token_is_sent_and_signed() -> None:
    config = evolve(CONFIG, credentials={**CREDENTIALS, "session_token": "t0ken"})
    headers = dict(bind(config).request(DELIVERY, MOMENT).headers)

    assert headers[b"x-amz-security-token"] == b"t0ken"
    assert b"x-amz-date;x-amz-security-token," in headers[b"authorization"]


def test_settings_reach_the_mail() -> None:
    one = bound(reply_to="help@example.org", configuration_set="reports", tags={"shop": "north", "kind": "ticket"})
    single, entry = sent(one.request(DELIVERY, MOMENT)), batch(one, DELIVERY)

    for body in (single, entry):
        assert body["ReplyToAddresses"] == ["help@example.org"]
        assert body["ConfigurationSetName"] == "reports"
    wanted = {"shop": "north", "kind": "ticket", "organization_id": "acme", "notification_id": ID}
    assert tags(single["EmailTags"]) == tags(entry["BulkEmailEntries"][0]["ReplacementTags"]) == wanted


@pytest.mark.parametrize("name", ["Tickets", "Ann & Co, Ltd", 'The "Box"', "Zürich", "票"])
def test_the_senders_name_survives_in_ascii(name: str) -> None:
    given = sent(bound(from_name=name).request(DELIVERY, MOMENT))["FromEmailAddress"]
    words, address = parseaddr(given)

    assert given.isascii()
    assert str(make_header(decode_header(words))) == name
    assert address == "tickets@example.org"


def test_an_organization_whose_id_is_no_tag_goes_without_it() -> None:
    config = evolve(CONFIG, organization_id=OrganizationId("acme.shop"))

    assert tags(sent(bind(config).request(DELIVERY, MOMENT))["EmailTags"]) == {"notification_id": ID}


@given(LINES, TEXTS, st.none() | TEXTS, st.sampled_from(["ann@example.com", "ann+x@sub.example.com", "a'b@c"]))
def test_every_payload_survives_the_way_into_json(subject: str, text: str, html: str | None, recipient: str) -> None:
    mail = delivery(recipient, subject=subject, text=text, html=html)
    body, entry = sent(bound().request(mail, MOMENT)), batch(bound(batch_max=50), mail)["BulkEmailEntries"][0]
    simple = body["Content"]["Simple"]
    values = orjson.loads(entry["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"])

    assert body["Destination"] == entry["Destination"] == {"ToAddresses": [recipient]}
    assert simple["Subject"]["Data"] == values["subject"] == subject
    assert simple["Body"]["Text"]["Data"] == values["text"] == text
    assert ("Html" in simple["Body"]) == ("html" in values) == (html is not None)
    if html is not None:
        assert simple["Body"]["Html"]["Data"] == values["html"] == html


@pytest.mark.parametrize(
    ("recipient", "wire"),
    [
        ("ann@exämple.com", "ann@xn--exmple-cua.com"),
        ("ann@straße.de", "ann@xn--strae-oqa.de"),
        ("ann@例え.jp", "ann@xn--r8jz45g.jp"),
    ],
)
def test_a_domain_of_other_characters_is_sent_in_its_ascii_form(recipient: str, wire: str) -> None:
    assert sent(bound().request(delivery(recipient), MOMENT))["Destination"] == {"ToAddresses": [wire]}


@pytest.mark.parametrize(
    ("recipient", "payload", "code"),
    [
        ("ann@example.com", {"text": "x"}, "subject_missing"),
        ("ann@example.com", {"subject": "", "text": "x"}, "subject_missing"),
        ("ann@example.com", {"subject": 1, "text": "x"}, "subject_missing"),
        ("ann@example.com", {"subject": "a\nb", "text": "x"}, "subject_has_line_break"),
        ("ann@example.com", {"subject": "s"}, "content_missing"),
        ("ann@example.com", {"subject": "s", "text": "", "html": ""}, "content_missing"),
        ("ann@example.com", {"subject": "s", "text": 1}, "content_invalid"),
        ("ann@example.com", {"subject": "s", "text": "\ud800"}, "payload_not_unicode"),
        ("ann", {"subject": "s", "text": "x"}, "recipient_invalid"),
        ("ann@example.com,bob@example.com", {"subject": "s", "text": "x"}, "recipient_invalid"),
        ("Ann <ann@example.com>", {"subject": "s", "text": "x"}, "recipient_invalid"),
        ("änn@example.com", {"subject": "s", "text": "x"}, "recipient_not_ascii"),
        ("ann@-ü-.com", {"subject": "s", "text": "x"}, "recipient_invalid"),
    ],
)
def test_what_can_not_be_sent_says_why(recipient: str, payload: dict[str, Any], code: str) -> None:
    for attempt in (bound().request, bound(batch_max=5).part):
        with pytest.raises(Unsendable) as refused:
            attempt(delivery(recipient, **payload), MOMENT)

        assert refused.value.code == code


@given(
    st.text(),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("subject", "text", "html"), st.none() | st.text() | st.integers())),
)
def test_anything_at_all_is_a_valid_request_or_unsendable(recipient: str, payload: dict[str, Any]) -> None:
    with suppress(Unsendable):
        sent(bound().request(delivery(recipient, **(payload or {"x": 1})), MOMENT))


# --- several in one request ---------------------------------------------------------------------------------


def test_a_batch_is_a_template_of_variables_and_everybodys_own_words() -> None:
    ann, bob = DELIVERY, delivery("bob@example.com", OTHER, subject="Yours", text="Hi", html="<b>Hi</b>")
    body = batch(bound(batch_max=10), ann, bob)

    assert body["DefaultContent"]["Template"] == {
        "TemplateContent": {"Subject": "{{subject}}", "Text": "{{text}}", "Html": "{{html}}"},
        "TemplateData": "{}",
    }
    assert [entry["Destination"]["ToAddresses"] for entry in body["BulkEmailEntries"]] == [
        ["ann@example.com"],
        ["bob@example.com"],
    ]
    assert [tags(entry["ReplacementTags"])["notification_id"] for entry in body["BulkEmailEntries"]] == [ID, OTHER]


@pytest.mark.parametrize(
    ("payload", "template"),
    [
        ({"text": "x"}, {"Subject": "{{subject}}", "Text": "{{text}}"}),
        ({"html": "x"}, {"Subject": "{{subject}}", "Html": "{{html}}"}),
        ({"html": "x", "text": ""}, {"Subject": "{{subject}}", "Html": "{{html}}"}),
        ({"html": "x", "text": "y"}, {"Subject": "{{subject}}", "Text": "{{text}}", "Html": "{{html}}"}),
    ],
)
def test_mails_share_a_request_only_with_those_that_have_the_same_parts(
    payload: dict[str, Any], template: dict[str, str]
) -> None:
    one = bound(batch_max=10)

    assert batch(one, delivery(subject="s", **payload))["DefaultContent"]["Template"]["TemplateContent"] == template
    others: list[dict[str, Any]] = [{"text": "x"}, {"html": "x"}, {"text": "x", "html": "y"}]
    keys = {part(one, delivery(subject="s", **other)).key for other in others}
    assert len(keys) == 3


def test_a_mail_too_large_for_a_batch_goes_alone() -> None:
    fits, large = "x" * (TEMPLATE_DATA_BYTES_MAX - 40), "x" * TEMPLATE_DATA_BYTES_MAX

    assert bound(batch_max=2).part(delivery(subject="s", text=fits), MOMENT) is not None
    assert bound(batch_max=2).part(delivery(subject="s", text=large), MOMENT) is None
    assert bound(batch_max=50).part(delivery(subject="s", text="x" * 20_000), MOMENT) is None
    assert bound().request(delivery(subject="s", text=large), MOMENT)


def test_the_fullest_batch_stays_within_the_limit_of_a_request() -> None:
    one = bound(batch_max=50)
    low, high = 1, BULK_BYTES_MAX
    while low < high:  # the longest text that is still a part
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.part(delivery(subject="s", text="x" * middle), MOMENT) else (low, middle - 1)
    request = one.batch_request([part(one, delivery(subject="s", text="x" * low))] * 50, MOMENT)

    assert 0.98 * BULK_BYTES_MAX < len(request.body) <= BULK_BYTES_MAX


def test_batches_are_for_who_asks_for_them() -> None:
    assert bound().batch_max == 1
    assert bound(batch_max=50).batch_max == 50
    assert isinstance(bound(), Batching)
    assert isinstance(bound(), Probing)
    assert not isinstance(bound(), Askable)
    assert (SES.key_retention_s, SES.inquiry_lag_s) == (None, None)


def parts(count: int) -> list[Part]:
    return [part(bound(), DELIVERY)] * count


def entries(*statuses: str) -> HttpResponse:
    results = [
        {"Status": status, "Error": "ann@example.com is wrong", "MessageId": f"m-{n}"} for n, status in enumerate(statuses)
    ]
    return answer(200, {"BulkEmailEntryResults": results})


@pytest.mark.parametrize(
    ("status", "kind", "code", "retry_after_s"),
    [
        ("SUCCESS", D, "accepted", None),
        ("TRANSIENT_FAILURE", S, "provider_failed", None),
        ("FAILED", S, "provider_failed", None),
        ("ACCOUNT_THROTTLED", R, "sending_rate", None),
        ("ACCOUNT_DAILY_QUOTA_EXCEEDED", R, "daily_quota", DAILY_QUOTA_RETRY_S),
        ("MESSAGE_REJECTED", H, "message_rejected", None),
        ("INVALID_PARAMETER", H, "bad_request", None),
        ("INVALID_PARAMETER_VALUE", H, "bad_request", None),
        ("MAIL_FROM_DOMAIN_NOT_VERIFIED", M, "mail_from_not_verified", None),
        ("CONFIGURATION_SET_NOT_FOUND", M, "not_found", None),
        ("CONFIGURATION_SET_DOES_NOT_EXIST", M, "not_found", None),
        ("TEMPLATE_NOT_FOUND", M, "not_found", None),
        ("TEMPLATE_DOES_NOT_EXIST", M, "not_found", None),
        ("INVALID_SENDING_POOL_NAME", M, "not_found", None),
        ("ACCOUNT_SUSPENDED", M, "account_suspended", SUSPENDED_RETRY_S),
        ("ACCOUNT_SENDING_PAUSED", M, "sending_paused", PAUSED_RETRY_S),
        ("CONFIGURATION_SET_SENDING_PAUSED", M, "sending_paused", PAUSED_RETRY_S),
        ("SOMETHING_NEW", S, "entry_failed", None),
    ],
)
def test_an_entry_means_what_its_status_says(status: str, kind: OutcomeClass, code: str, retry_after_s: float | None) -> None:
    before, outcome, after = bound().classify_batch(entries("SUCCESS", status, "FAILED"), parts(3), NOW)

    assert outcome == Outcome(kind, code, "m-1" if kind is D else None, retry_after_s)
    assert before == Outcome(D, "accepted", "m-0")
    assert after == Outcome(S, "provider_failed")


def test_every_status_of_the_sdks_model_has_a_meaning() -> None:
    statuses = MODEL.shape_for("BulkEmailStatus").enum
    outcomes = bound().classify_batch(entries(*statuses), parts(len(statuses)), NOW)

    assert len(statuses) == 14
    assert not [
        status for status, outcome in zip(statuses, outcomes, strict=True) if outcome is None or outcome.code == "entry_failed"
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"<html>",
        {},
        {"BulkEmailEntryResults": None},
        {"BulkEmailEntryResults": []},
        {"BulkEmailEntryResults": [{"Status": "SUCCESS"}]},
        {"BulkEmailEntryResults": [{"Status": "SUCCESS"}] * 3},
        {"BulkEmailEntryResults": [None, 7]},
        {"BulkEmailEntryResults": [{"Status": None}, {"Status": ["SUCCESS"]}]},
    ],
)
def test_an_answer_that_does_not_fit_the_entries_leaves_a_doubt_about_all(body: object) -> None:
    outcomes = bound().classify_batch(answer(200, body), parts(2), NOW)

    assert list(outcomes) == [Outcome(U, "not_understood")] * 2


def test_a_batch_refused_for_one_of_its_entries_is_to_be_halved_and_one_alone_is_the_one() -> None:
    refusal = answer(400, {"message": "ann@example.com"}, x_amzn_errortype="BadRequestException")

    assert bound().classify_batch(refusal, parts(3), NOW) == [None] * 3
    assert bound().classify_batch(refusal, parts(1), NOW) == [Outcome(H, "bad_request")]
    assert bound().classify_batch(answer(413), parts(2), NOW) == [None] * 2


def test_a_batch_refused_for_the_account_is_refused_for_each_entry() -> None:
    for refusal, kind in (
        (answer(429, {"message": "Maximum sending rate exceeded."}, x_amzn_errortype="TooManyRequestsException"), R),
        (answer(403, {"message": "no"}, x_amzn_errortype="AccessDeniedException"), M),
        (answer(503), S),
        (answer(504), U),
    ):
        outcomes = bound().classify_batch(refusal, parts(2), NOW)

        assert [outcome and outcome.kind for outcome in outcomes] == [kind] * 2


# --- answers ------------------------------------------------------------------------------------------------

REFUSALS = [
    ("TooManyRequestsException", 429, "", R, "sending_rate", None),
    ("TooManyRequestsException", 429, "Maximum sending rate exceeded.", R, "sending_rate", None),
    ("TooManyRequestsException", 429, "Daily message quota exceeded.", R, "daily_quota", DAILY_QUOTA_RETRY_S),
    ("ThrottlingException", 400, "Rate exceeded", R, "sending_rate", None),
    ("ThrottlingException", 400, "Maximum sending rate exceeded.", R, "sending_rate", None),
    ("ThrottlingException", 400, "Daily message quota exceeded.", R, "daily_quota", DAILY_QUOTA_RETRY_S),
    ("Throttling", 400, "", R, "sending_rate", None),
    ("ThrottledException", 400, "", R, "sending_rate", None),
    ("RequestThrottledException", 400, "", R, "sending_rate", None),
    ("RequestThrottled", 400, "", R, "sending_rate", None),
    ("RequestLimitExceeded", 400, "", R, "sending_rate", None),
    ("SlowDown", 503, "", R, "sending_rate", None),
    ("BandwidthLimitExceeded", 400, "", R, "sending_rate", None),
    ("PriorRequestNotComplete", 400, "", R, "sending_rate", None),
    ("TransactionInProgressException", 400, "", R, "sending_rate", None),
    ("LimitExceededException", 400, "", R, "limit_exceeded", LIMIT_RETRY_S),
    ("MessageRejected", 400, "Email address is not verified. The following: ann@example.com", M, "identity_not_verified", None),
    ("MessageRejected", 400, "Message contains a virus", H, "message_rejected", None),
    ("MessageRejectedException", 400, "", H, "message_rejected", None),
    ("MailFromDomainNotVerifiedException", 400, "", M, "mail_from_not_verified", None),
    ("SendingPausedException", 400, "", M, "sending_paused", PAUSED_RETRY_S),
    ("AccountSuspendedException", 400, "", M, "account_suspended", SUSPENDED_RETRY_S),
    ("NotFoundException", 404, "", M, "not_found", None),
    ("BadRequestException", 400, "Daily message quota exceeded.", H, "bad_request", None),
    ("ValidationException", 400, "", H, "bad_request", None),
    ("SerializationException", 400, "", H, "bad_request", None),
    ("SignatureDoesNotMatch", 403, "", M, "credentials_refused", None),
    ("InvalidSignatureException", 403, "", M, "credentials_refused", None),
    ("InvalidClientTokenId", 403, "", M, "credentials_refused", None),
    ("UnrecognizedClientException", 403, "", M, "credentials_refused", None),
    ("IncompleteSignature", 403, "", M, "credentials_refused", None),
    ("IncompleteSignatureException", 403, "", M, "credentials_refused", None),
    ("MissingAuthenticationToken", 403, "", M, "credentials_refused", None),
    ("MissingAuthenticationTokenException", 403, "", M, "credentials_refused", None),
    ("InvalidAccessKeyId", 403, "", M, "credentials_refused", None),
    ("NotAuthorized", 400, "", M, "credentials_refused", None),
    ("ExpiredToken", 403, "", M, "session_ended", None),
    ("ExpiredTokenException", 403, "", M, "session_ended", None),
    ("AccessDenied", 403, "", M, "not_permitted", None),
    ("AccessDeniedException", 403, "", M, "not_permitted", None),
    ("OptInRequired", 403, "", M, "not_permitted", None),
    ("RequestExpired", 400, "", M, "clock_wrong", None),
    ("RequestTimeTooSkewed", 403, "", M, "clock_wrong", None),
    ("InternalFailure", 500, "", S, "provider_failed", None),
    ("InternalServerError", 500, "", S, "provider_failed", None),
    ("InternalServerErrorException", 500, "", S, "provider_failed", None),
    ("InternalServiceErrorException", 502, "", S, "provider_failed", None),
    ("ServiceUnavailable", 503, "", S, "provider_failed", None),
    ("ServiceUnavailableException", 504, "", S, "provider_failed", None),
    ("RequestTimeout", 400, "", S, "request_timed_out", None),
    ("RequestTimeoutException", 408, "", S, "request_timed_out", None),
]


def spelled(name: str, text: str, spelling: str) -> HttpResponse:
    """An error in one of the ways in which AWS names it."""
    document = {"message": text}
    match spelling:
        case "header":
            return answer(0, document, x_amzn_errortype=name)
        case "header with a link":
            return answer(0, document, x_amzn_errortype=f"{name}:http://internal.amazon.com/coral/com.amazon/")
        case "__type":
            return answer(0, {"__type": f"com.amazonaws.sesv2#{name}", **document})
        case "code":
            return answer(0, {"code": name, "Message": text})
    raise AssertionError(spelling)


@pytest.mark.parametrize("spelling", ["header", "header with a link", "__type", "code"])
@pytest.mark.parametrize(("name", "status", "text", "kind", "code", "retry_after_s"), REFUSALS)
def test_a_refusal_means_what_its_name_says_and_where_two_share_one_its_text(
    name: str, status: int, text: str, kind: OutcomeClass, code: str, retry_after_s: float | None, spelling: str
) -> None:
    response = spelled(name, text, spelling)._replace(status=status)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    parsed = RestJSONParser().parse(
        {"status_code": status, "headers": headers, "body": response.body}, MODEL.operation_model("SendEmail").output_shape
    )

    assert bound().classify(response, NOW) == Outcome(kind, code, None, retry_after_s)
    assert parsed["Error"]["Code"] == name


def test_every_exception_of_the_sdks_model_has_a_meaning() -> None:
    names = {
        shape.name for operation in ("SendEmail", "SendBulkEmail") for shape in MODEL.operation_model(operation).error_shapes
    }

    assert names <= {name for name, *_ in REFUSALS}


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, H, "bad_request"),
        (401, M, "credentials_refused"),
        (403, M, "not_permitted"),
        (404, M, "not_found"),
        (408, S, "request_timed_out"),
        (413, H, "too_large"),
        (429, R, "sending_rate"),
        (500, S, "provider_failed"),
        (502, U, "http_502"),
        (503, S, "provider_failed"),
        (504, U, "http_504"),
        (301, M, "http_301"),
        (405, M, "http_405"),
        (599, S, "http_599"),
        (202, U, "not_understood"),
        (600, U, "not_understood"),
    ],
)
def test_an_answer_without_a_name_goes_by_its_status(status: int, kind: OutcomeClass, code: str) -> None:
    outcome = bound().classify(answer(status, b"<html>"), NOW)

    assert (outcome.kind, outcome.code) == (kind, code)


def test_an_accepted_mail_has_a_name() -> None:
    assert bound().classify(answer(200, {"MessageId": "0102-abc"}), NOW) == Outcome(D, "accepted", "0102-abc")


@pytest.mark.parametrize("body", [b"", b"ok", {}, {"MessageId": None}, {"MessageId": ""}, {"MessageId": "a b"}, []])
def test_a_success_that_names_no_message_is_a_doubt(body: object) -> None:
    assert bound().classify(answer(200, body), NOW) == Outcome(U, "not_understood")


def test_a_hint_is_heeded_and_lengthens_ours() -> None:
    assert bound().classify(answer(429, retry_after="7"), NOW).retry_after_s == 7
    paused = answer(400, retry_after="9", x_amzn_errortype="SendingPausedException")
    assert bound().classify(paused, NOW).retry_after_s == PAUSED_RETRY_S


@given(
    st.integers(0, 999), st.binary(max_size=80), st.sampled_from(["", "x-amzn-errortype", "retry-after"]), st.text(max_size=20)
)
def test_no_answer_at_all_raises_or_is_repeated(status: int, body: bytes, name: str, value: str) -> None:
    headers = ((name.encode(), value.encode()),) if name else ()
    response = HttpResponse(status, headers, body)
    outcome = bound().classify(response, NOW)

    assert len(outcome.code) <= 64
    assert outcome.code.isascii()
    assert len(bound().classify_batch(response, parts(2), NOW)) == 2
    assert bound().probed(response, NOW).words


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Status", "MessageId", "BulkEmailEntryResults", "SendQuota", "SendingEnabled", "message", "__type", "code"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(st.sampled_from([200, 400]), JSON)
def test_no_json_at_all_raises(status: int, document: Any) -> None:
    response = answer(status, orjson.dumps(document))
    outcomes = [bound().classify(response, NOW), *bound().classify_batch(response, parts(2), NOW)]

    assert all(outcome is None or outcome.code for outcome in outcomes)
    assert bound().probed(response, NOW).words


def test_every_code_is_explained() -> None:
    codes = {code for *_, code, _ in REFUSALS}

    assert codes <= set(EXPLANATIONS)
    assert SES.explanations is EXPLANATIONS
