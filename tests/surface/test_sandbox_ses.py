"""The sandbox's SES: signatures as AWS's own SDK makes them, rules, and an answer for each entry."""

from __future__ import annotations

from typing import Any

import botocore.session
import orjson
import pytest
from botocore.parsers import RestJSONParser

from dispatcher_sandbox.behaviour import Behaviour, Outage
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.ses import Mail, mails_of
from dispatcher_sandbox.simulators import SIMULATORS
from ses_mails import NOTIFICATION, bulk, entry, mail, send, signed

NOW_S = 1_800_000_000.0
MODEL = botocore.session.get_session().get_service_model("sesv2")
OTHER_SECRET = "another-secret"


def sandbox(**settings: Any) -> Exchange:
    return Exchange(SIMULATORS, Ledger(), Behaviour(**settings), 0)


def answered(exchange: Exchange, request: Request) -> Answer:
    answer = exchange.handle(request, NOW_S).answer
    assert answer is not None
    return answer


def parsed(answer: Answer, operation: str = "SendEmail") -> dict[str, Any]:
    """An answer as AWS's own SDK reads it."""
    headers = dict(line.split(": ", 1) for line in answer.headers.decode().split("\r\n") if line)
    response = {
        "status_code": answer.status,
        "headers": {name.lower(): value for name, value in headers.items()},
        "body": answer.body,
    }
    document: dict[str, Any] = RestJSONParser().parse(response, MODEL.operation_model(operation).output_shape)
    return document


def refused(document: object, exchange: Exchange | None = None, **how: Any) -> tuple[int, str]:
    answer = answered(exchange or sandbox(), send(document, NOW_S, **how))
    return answer.status, parsed(answer)["Error"]["Code"]


def statuses(exchange: Exchange, *entries: dict[str, Any]) -> list[str]:
    document = parsed(answered(exchange, send(bulk(*entries), NOW_S)), "SendBulkEmail")
    return [result["Status"] for result in document["BulkEmailEntryResults"]]


# --- signatures ---------------------------------------------------------------------------------------------


def test_a_mail_that_the_sdk_has_signed_is_accepted_and_correlated() -> None:
    exchange = sandbox()
    document = parsed(answered(exchange, send(mail(), NOW_S)))

    assert document["MessageId"].endswith("-000000")
    assert exchange.ledger.recent[-1].message_id == document["MessageId"]
    assert exchange.ledger.effects(f"{NOTIFICATION}1") == 1
    assert exchange.ledger.organizations["acme"] == 1
    assert mails_of(exchange.ledger.recent[-1].body) == [Mail(("somebody@example.com",), "Yours", "See you there.", "")]


def test_temporary_credentials_are_signed_with_their_token_until_it_ends() -> None:
    assert answered(sandbox(), send(mail(), NOW_S, token="fresh")).status == 200
    assert refused(mail(), token="expired-yesterday") == (403, "ExpiredTokenException")


@pytest.mark.parametrize("skew_s", [-301, 301])
def test_a_signature_of_another_time_is_refused(skew_s: float) -> None:
    answer = answered(sandbox(), send(mail(), NOW_S + skew_s))

    assert (answer.status, parsed(answer)["Error"]["Code"]) == (403, "SignatureDoesNotMatch")
    assert answered(sandbox(), send(mail(), NOW_S + skew_s * 0.99)).status == 200


def test_only_registered_keys_get_in_where_there_are_any() -> None:
    exchange = sandbox(aws_keys={"AKIAOTHER": OTHER_SECRET})

    assert refused(mail(), exchange) == (403, "UnrecognizedClientException")
    assert refused(mail(), exchange, key_id="AKIAOTHER") == (403, "SignatureDoesNotMatch")
    assert answered(exchange, send(mail(), NOW_S, key_id="AKIAOTHER", secret=OTHER_SECRET)).status == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda request: request.headers.pop(b"authorization"), "MissingAuthenticationTokenException"),
        (lambda request: request.headers.update({b"authorization": b"Bearer x"}), "IncompleteSignatureException"),
        (lambda request: request.headers.pop(b"x-amz-date"), "IncompleteSignatureException"),
        (lambda request: request.headers.update({b"x-amz-date": b"20270115T080001Z"}), "SignatureDoesNotMatch"),
        (lambda request: request.headers.update({b"host": b"email.us-east-1.amazonaws.com"}), "SignatureDoesNotMatch"),
        (lambda request: request.headers.update({b"content-type": b"text/plain"}), "SignatureDoesNotMatch"),
        (lambda request: request.headers.update({b"x-amz-security-token": b"slipped in"}), "SignatureDoesNotMatch"),
        (lambda request: setattr(request, "body", request.body + b" "), "SignatureDoesNotMatch"),
        (lambda request: setattr(request, "target", request.target + b"?x=1"), "SignatureDoesNotMatch"),
    ],
)
def test_whatever_was_changed_on_the_way_shows(change: Any, code: str) -> None:
    request = send(mail(), NOW_S)
    change(request)
    answer = answered(sandbox(), request)

    assert (answer.status, parsed(answer)["Error"]["Code"]) == (403, code)


def test_a_signature_for_another_service_is_refused() -> None:
    assert refused(mail(), service="sns") == (403, "SignatureDoesNotMatch")


# --- rules --------------------------------------------------------------------------------------------------

SIMPLE = {"Subject": {"Data": "s"}, "Body": {"Text": {"Data": "t"}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"FromEmailAddress": ...},
        {"FromEmailAddress": "nobody"},
        {"FromEmailAddress": "Zürich <zürich@example.org>"},
        {"Destination": ...},
        {"Destination": {}},
        {"Destination": {"ToAddresses": ["a@b.example"] * 51}},
        {"Destination": {"ToAddresses": ["änn@example.com"]}},
        {"Destination": {"ToAddresses": ["ann@exämple.com"]}},
        {"Destination": {"ToAddresses": ["a@example.com,b@example.com"]}},
        {"ReplyToAddresses": ["nobody"]},
        {"ConfigurationSetName": "not a name"},
        {"EmailTags": [{"Name": "a b", "Value": "c"}]},
        {"EmailTags": [{"Name": "a", "Value": "ü"}]},
        {"EmailTags": [{"Name": "a", "Value": ""}]},
        {"EmailTags": [{"Name": "a"}]},
        {"EmailTags": [{"Name": "a", "Value": "1"}, {"Name": "a", "Value": "2"}]},
        {"EmailTags": [{"Name": f"n{n}", "Value": "1"} for n in range(51)]},
        {"Content": ...},
        {"Content": {}},
        {"Content": {"Simple": SIMPLE, "Raw": {"Data": ""}}},
        {"Content": {"Simple": {"Body": SIMPLE["Body"]}}},
        {"Content": {"Simple": {"Subject": SIMPLE["Subject"], "Body": {}}}},
        {"Content": {"Simple": {"Subject": {}, "Body": SIMPLE["Body"]}}},
    ],
)
def test_a_mail_with_a_fault_is_a_bad_request(fields: dict[str, Any]) -> None:
    assert refused(mail(**fields)) == (400, "BadRequestException")


@pytest.mark.parametrize("document", [b"", b"[]", b"{", mail(Destination=[]), mail(EmailTags={}), mail(FromEmailAddress=1)])
def test_what_is_no_such_document_is_not_read(document: object) -> None:
    assert refused(document) == (400, "SerializationException")


def template(**content: Any) -> dict[str, Any]:
    return {"DefaultContent": {"Template": {"TemplateContent": {"Subject": "{{subject}}", "Text": "{{text}}", **content}}}}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"DefaultContent": ...}, "BadRequestException"),
        ({"DefaultContent": {"Template": {}}}, "BadRequestException"),
        ({"DefaultContent": {"Template": {"TemplateName": "stored"}}}, "NotFoundException"),
        (template(Text=None), "BadRequestException"),
        (template(Subject=None), "BadRequestException"),
        (template(Text="{{{text}}}"), "BadRequestException"),
        (template(Text="{{#if text}}x{{/if}}"), "BadRequestException"),
        (template(Text="{{user.text}}"), "BadRequestException"),
        (template(Text="{{my_text}}"), "BadRequestException"),
        ({"BulkEmailEntries": ...}, "BadRequestException"),
        ({"BulkEmailEntries": []}, "BadRequestException"),
        ({"BulkEmailEntries": [entry("a@example.com")] * 51}, "BadRequestException"),
        ({"BulkEmailEntries": [{}]}, "BadRequestException"),
        ({"BulkEmailEntries": [entry("a@example.com", text="x" * 262_144)]}, "BadRequestException"),
        ({"BulkEmailEntries": [entry("a@example.com", text="x" * 250_000)] * 5}, "BadRequestException"),
        (
            {"BulkEmailEntries": [{**entry("a@b.c"), "ReplacementTags": [{"Name": "!", "Value": ""}]}]},
            "BadRequestException",
        ),
    ],
)
def test_a_bulk_request_with_a_fault_is_refused_whole(fields: dict[str, Any], code: str) -> None:
    exchange = sandbox()

    assert refused(bulk(entry("a@example.com"), **fields), exchange)[1] == code
    assert exchange.ledger.accepted == 0


def test_everybody_gets_their_own_words_as_they_are() -> None:
    exchange = sandbox()
    words = {"text": '<b>& "x" {{subject}} {{{y}}} \\', "subject": "Ünïcode & <more>"}
    answered(exchange, send(bulk(entry("a@example.com", 1), entry("b@example.com", 2, **words)), NOW_S))

    assert mails_of(exchange.ledger.recent[-1].body) == [
        Mail(("a@example.com",), "Yours", "Hello 1", ""),
        Mail(("b@example.com",), words["subject"], words["text"], ""),
    ]


# --- entries ------------------------------------------------------------------------------------------------


def test_each_entry_has_its_own_result_and_only_the_good_ones_an_effect() -> None:
    exchange = sandbox()
    recipients = [
        "somebody@example.com", "bounce@sandbox.test", "soft-1@sandbox.test", "credits@sandbox.test", "rate-limited@sandbox.test",
        "forbidden@sandbox.test", "unauthorized@sandbox.test", "status-500@sandbox.test", "ünknown@example.com",
    ]  # fmt: skip
    entries = [entry(to, number) for number, to in enumerate(recipients)]

    assert statuses(exchange, *entries) == [
        "SUCCESS", "INVALID_PARAMETER", "TRANSIENT_FAILURE", "ACCOUNT_DAILY_QUOTA_EXCEEDED", "ACCOUNT_THROTTLED",
        "MAIL_FROM_DOMAIN_NOT_VERIFIED", "ACCOUNT_SENDING_PAUSED", "FAILED", "INVALID_PARAMETER",
    ]  # fmt: skip
    assert dict(exchange.ledger.notifications.items()) == {f"{NOTIFICATION}0": 1}
    assert (exchange.ledger.accepted, exchange.ledger.messages) == (1, 1)
    assert exchange.ledger.refused == {400: 2, 503: 1, 401: 2, 429: 1, 403: 1, 500: 1}
    assert statuses(exchange, entries[2], entries[4]) == ["SUCCESS", "SUCCESS"]


def test_entries_are_numbered_in_their_ids() -> None:
    exchange = sandbox()
    document = parsed(answered(exchange, send(bulk(entry("a@b.example", 1), entry("c@d.example", 2)), NOW_S)), "SendBulkEmail")
    first, second = (result["MessageId"] for result in document["BulkEmailEntryResults"])

    assert (first[:-6], first[-6:], second[-6:]) == (second[:-6], "000000", "000001")


def test_a_request_all_of_whose_entries_are_refused_has_no_effect() -> None:
    exchange = sandbox()

    assert statuses(exchange, entry("bounce@sandbox.test")) == ["INVALID_PARAMETER"]
    assert exchange.ledger.accepted == 0


def test_a_value_that_is_missing_refuses_its_entry() -> None:
    bad = entry("a@example.com")
    bad["ReplacementEmailContent"] = {}

    assert statuses(sandbox(), bad, entry("b@example.com")) == ["INVALID_PARAMETER", "SUCCESS"]


@pytest.mark.parametrize("trick", ["drop", "close", "silent"])
def test_what_happens_to_a_connection_happens_to_the_whole_request(trick: str) -> None:
    exchange = sandbox()
    request = send(bulk(entry("a@example.com", 1), entry(f"{trick}@sandbox.test", 2), entry("bounce@sandbox.test", 3)), NOW_S)

    assert exchange.handle(request, NOW_S).answer is None
    assert exchange.ledger.messages == (2 if trick == "drop" else 0)


# --- the account --------------------------------------------------------------------------------------------


def account(exchange: Exchange, **how: Any) -> Answer:
    return answered(exchange, signed("/v2/email/account", b"", NOW_S, method="GET", **how))


def test_the_account_says_what_it_may() -> None:
    good = parsed(account(sandbox()), "GetAccount")
    bad = parsed(account(sandbox(ses_sending=False, ses_production=False)), "GetAccount")

    assert (good["SendingEnabled"], good["ProductionAccessEnabled"], good["SendQuota"]["MaxSendRate"]) == (True, True, 14)
    assert (bad["SendingEnabled"], bad["ProductionAccessEnabled"], bad["SendQuota"]["Max24HourSend"]) == (False, False, 200)
    assert account(sandbox(), secret="no").status == 403


def test_an_account_that_may_not_send_sends_nothing() -> None:
    assert refused(mail(), sandbox(ses_sending=False)) == (400, "SendingPausedException")
    assert refused(bulk(entry("a@b.example")), sandbox(ses_sending=False)) == (400, "SendingPausedException")


def test_only_verified_domains_may_send_and_outside_production_only_they_may_receive() -> None:
    assert refused(mail(), sandbox(sender_domains=("example.com",))) == (400, "MessageRejected")
    assert answered(sandbox(sender_domains=("example.org",)), send(mail(), NOW_S)).status == 200
    confined = sandbox(sender_domains=("example.org",), ses_production=False)
    assert refused(mail(), confined) == (400, "MessageRejected")
    assert refused(bulk(entry("a@b.example")), confined) == (400, "MessageRejected")
    assert answered(confined, send(mail("a@example.org"), NOW_S)).status == 200


# --- behaviour ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipient", "status", "code"),
    [
        ("bounce@sandbox.test", 400, "BadRequestException"),
        ("soft@sandbox.test", 503, "ServiceUnavailable"),
        ("rate-limited@sandbox.test", 429, "TooManyRequestsException"),
        ("unauthorized@sandbox.test", 403, "UnrecognizedClientException"),
        ("credits@sandbox.test", 429, "TooManyRequestsException"),
        ("forbidden@sandbox.test", 400, "MessageRejected"),
        ("status-500@sandbox.test", 500, "InternalFailure"),
        ("status-404@sandbox.test", 404, "NotFoundException"),
        ("status-418@sandbox.test", 418, "InternalFailure"),
    ],
)
def test_a_magic_recipient_is_refused_in_the_words_of_ses(recipient: str, status: int, code: str) -> None:
    assert refused(mail(recipient)) == (status, code)


@pytest.mark.parametrize("recipient", ["too-large@sandbox.test", "status-502@sandbox.test", "status-504@sandbox.test"])
def test_what_never_reaches_ses_is_answered_by_a_page(recipient: str) -> None:
    answer = answered(sandbox(), send(mail(recipient), NOW_S))

    assert answer.status in (413, 502, 504)
    assert answer.body.startswith(b"<html>")


def test_outage_rate_limit_and_shares_are_those_of_every_provider() -> None:
    limited = sandbox(rate_limit_per_s=1.0)

    assert refused(mail(), sandbox(outage=Outage.UNAVAILABLE)) == (503, "ServiceUnavailable")
    assert refused(mail(), sandbox(error_mix={500: 1.0})) == (500, "InternalFailure")
    assert answered(limited, send(mail(), NOW_S)).status == 200
    assert refused(mail(), limited) == (429, "TooManyRequestsException")
    assert answered(limited, send(mail(), NOW_S, key_id="AKIAANOTHER")).status == 200


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/v2/email/identities", "GET", 404), ("/v2/email/outbound-emails", "GET", 405)]
)
def test_other_operations_are_not_known(path: str, method: str, status: int) -> None:
    assert answered(sandbox(), signed(path, b"", NOW_S, method=method)).status == status


@pytest.mark.parametrize("keys", [[], {"a": 1}, {"": "x"}, {"a": ""}, "x"])
def test_keys_are_texts_by_texts(keys: Any) -> None:
    with pytest.raises(ValueError, match="aws_keys"):
        Behaviour(aws_keys=keys)


def test_a_listing_and_a_replay_are_worded_although_ses_has_neither() -> None:
    ses = next(simulator for simulator in SIMULATORS if simulator.name == "ses")

    assert ses.listing(()).status == 404
    assert ses.validated().status == 200
    assert orjson.loads(ses.replayed("x").body) == {"MessageId": "x"}
