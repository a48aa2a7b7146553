"""SendGrid's routes, authentication and answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation
from dispatcher_sandbox.magic import TABLE
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.sendgrid import SendGrid
from dispatcher_sandbox.simulator import Intake, Search
from sandbox_mails import AUTHORIZATION, NOTIFICATION, mail, send

NOW_S = 1_800_000_000.0
SENDGRID = SendGrid()


def read(request: Request, **settings: Any) -> Intake | Answer:
    taken = SENDGRID.read(request, Behaviour(**settings), NOW_S)
    assert not isinstance(taken, Search)
    return taken


def intake(request: Request) -> Intake:
    taken = read(request)
    assert isinstance(taken, Intake)
    return taken


def refused(request: Request, **settings: Any) -> tuple[int, list[dict[str, Any]]]:
    answer = read(request, **settings)
    assert isinstance(answer, Answer)
    assert b"Content-Type: application/json\r\n" in answer.headers
    return answer.status, orjson.loads(answer.body)["errors"]


@pytest.mark.parametrize("target", [b"/v3/", b"/v3/mail", b"/v3/mail/send/", b"/v3/mail/sendx", b"/v3/user/profile"])
def test_other_paths_are_not_found(target: bytes) -> None:
    request = send(mail())
    request.target = target

    assert refused(request) == (404, [{"message": "resource not found", "field": None, "help": None}])


def test_a_query_does_not_change_the_path() -> None:
    request = send(mail())
    request.target = b"/v3/mail/send?x=y"

    assert intake(request)


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE", b"HEAD", b"OPTIONS"])
def test_only_post_is_allowed(method: bytes) -> None:
    request = send(mail())
    request.method = method
    answer = read(request)

    assert isinstance(answer, Answer)
    assert answer.status == 405
    assert b"Allow: POST\r\n" in answer.headers


@pytest.mark.parametrize(
    "authorization",
    ["", "SG.key", "Basic SG.key", "bearer SG.key", "Bearer key", "Bearer SG.", "Bearer  SG.key", "Bearer SG.a b"],
)
def test_without_a_key_of_the_right_form_nobody_gets_in(authorization: str) -> None:
    status, errors = refused(send(mail(), authorization=authorization))

    assert status == 401
    assert errors == [
        {"message": "The provided authorization grant is invalid, expired, or revoked", "field": None, "help": None}
    ]


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_body_of_another_type_is_refused(content_type: str) -> None:
    status, errors = refused(send(mail(), content_type=content_type))

    assert (status, errors[0]["message"]) == (415, "Content-Type should be application/json.")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json;x"])
def test_parameters_and_case_of_the_type_do_not_matter(content_type: str) -> None:
    assert intake(send(mail(), content_type=content_type))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a': 1}", b"\xff\xfe", b'{"a":FALSE}', orjson.dumps(mail(custom_args={"user": 1234}))]
)
def test_what_can_not_be_read_is_a_bad_request_without_a_field(body: bytes) -> None:
    assert refused(send(body)) == (400, [{"message": "Bad Request", "field": None, "help": None}])


def test_a_fault_has_message_field_and_help() -> None:
    status, errors = refused(send(mail(subject="")))

    assert status == 400
    assert [set(error) for error in errors] == [{"message", "field", "help"}]
    assert errors[0]["field"] == "subject"
    assert errors[0]["help"] == "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html#message.subject"


def test_all_faults_come_at_once() -> None:
    _, errors = refused(send(mail("nobody", subject="", content=[])))

    assert {error["field"] for error in errors} == {"personalizations.0.to.0.email", "subject", "content"}


def test_a_sender_of_a_domain_that_is_not_verified_is_forbidden() -> None:
    status, errors = refused(send(mail()), sender_domains=["example.net"])

    assert (status, errors[0]["field"], errors[0]["help"]) == (403, "from", None)
    assert isinstance(read(send(mail()), sender_domains=["example.net", "Example.org"]), Intake)


def test_a_mail_is_correlated_by_its_custom_args() -> None:
    assert intake(send(mail(), key="k")) == Intake((Correlation(NOTIFICATION, "acme"),), "k")


def test_own_custom_args_go_over_those_of_the_whole_mail() -> None:
    document = mail(
        custom_args={"notification_id": "root", "organization_id": "acme"},
        personalizations=[
            {"to": [{"email": "a@example.com"}], "custom_args": {"notification_id": "own"}},
            {"to": [{"email": "b@example.com"}]},
            {"to": [{"email": "c@example.com"}], "custom_args": {"organization_id": "other"}},
        ],
    )

    assert intake(send(document)).correlations == (
        Correlation("own", "acme"),
        Correlation("root", "acme"),
        Correlation("root", "other"),
    )


def test_without_custom_args_there_is_no_correlation() -> None:
    assert intake(send(mail(notification_id=None))).correlations == (Correlation(None, None),)


def test_a_magic_recipient_is_found_among_the_ordinary() -> None:
    document = mail()
    document["personalizations"][0]["bcc"] = [{"email": "x@example.com"}, {"email": "soft+1@sandbox.test"}]
    taken = intake(send(document))

    assert (taken.magic, taken.magic_name) == (TABLE["soft"], NOTIFICATION)


@pytest.mark.parametrize(("enable", "validate_only"), [(True, True), (False, False)])
def test_sandbox_mode_is_a_switch(enable: bool, validate_only: bool) -> None:
    assert intake(send(mail(mail_settings={"sandbox_mode": {"enable": enable}}))).validate_only is validate_only


def test_acceptance_is_an_empty_202_with_an_id_of_22_url_safe_characters() -> None:
    message_id, answer = SENDGRID.accepted(2**128 - 1)

    assert (answer.status, answer.body) == (202, b"")
    assert f"X-Message-Id: {message_id}\r\n".encode() in answer.headers
    assert len(message_id) == 22
    assert SENDGRID.replayed(message_id) == answer
    assert SENDGRID.accepted(1)[0] != SENDGRID.accepted(2)[0]


def test_validation_is_an_empty_200() -> None:
    assert SENDGRID.validated()[::2] == (200, b"")


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (400, "", "Bad Request"),
        (400, "address", "Does not contain a valid address."),
        (401, "credits", "Maximum credits exceeded"),
        (403, "sender", "The from address does not match a verified Sender Identity."),
        (429, "", "too many requests"),
        (500, "", "internal server error"),
        (409, "", "conflict"),
        (418, "", "error"),
    ],
)
def test_a_decided_refusal_has_the_form_of_a_found_one(status: int, reason: str, message: str) -> None:
    answer = SENDGRID.refused(status, reason)
    (error,) = orjson.loads(answer.body)["errors"]

    assert answer.status == status
    assert set(error) == {"message", "field", "help"}
    assert error["message"] == message


@pytest.mark.parametrize("status", [413, 502, 503, 504])
def test_what_the_front_server_answers_is_not_json(status: int) -> None:
    answer = SENDGRID.refused(status, "")

    assert answer.status == status
    assert answer.headers == b"Content-Type: text/html\r\n"


def test_rate_headers_are_the_three_of_the_api() -> None:
    assert SENDGRID.rate_headers(Rate(True, 600, 599, 1_800_000_060)) == (
        b"X-RateLimit-Limit: 600\r\nX-RateLimit-Remaining: 599\r\nX-RateLimit-Reset: 1800000060\r\n"
    )


def test_the_rate_is_counted_by_key() -> None:
    assert SENDGRID.account(send(mail())) == AUTHORIZATION.encode()
    assert SENDGRID.account(send(mail(), authorization="")) == b""


def test_a_batch_id_is_handed_out_and_taken_back() -> None:
    request = send(b"")
    request.target = b"/v3/mail/batch"
    answer = read(request)

    assert isinstance(answer, Answer)
    assert answer.status == 201
    assert intake(send(mail(batch_id=orjson.loads(answer.body)["batch_id"])))
