"""What a configuration of SES must look like, and what its account says when it is tried out."""

from __future__ import annotations

from typing import Any

import botocore.session
import orjson
import pytest
from attrs import evolve
from botocore.validate import validate_parameters

from dispatcher.http_message import HttpResponse, Origin
from dispatcher.model import Channel, OrganizationId, ProviderConfig
from dispatcher.providers.probing import Probed
from dispatcher.providers.provider import Limits, Moment, Unbindable
from dispatcher.providers.ses import BoundSes, bind
from dispatcher.providers.ses_settings import credentials_problems, settings_problems

NOW = 1_700_000_000.0
MOMENT = Moment(NOW, bytes)
SETTINGS: dict[str, Any] = {"region": "eu-central-1", "from_email": "tickets@example.org"}
CREDENTIALS: dict[str, Any] = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "hush-hush-hush-hush"}
CONFIG = ProviderConfig("1", OrganizationId("acme"), Channel.EMAIL, "ses", SETTINGS, CREDENTIALS, revision=1)
EXTRA = {"http://127.0.0.1:8025"}
TOPIC = "arn:aws:sns:eu-central-1:123456789012:ses-reports"
FULL = {
    **SETTINGS,
    "from_name": "Zürich & Co",
    "reply_to": "help@example.org",
    "configuration_set": "reports_1",
    "tags": {"shop": "north"},
    "batch_max": 50,
    "sns_topic_arn": [TOPIC, TOPIC.replace("aws:", "aws-us-gov:", 1)],
    "account_id": "123456789012",
    "rate_per_s": 14,
    "burst": 14,
    "concurrency_max": 4,
    "quota": 50_000,
    "quota_window_h": 24,
    "on_unknown": "hold",
}


def bound(**settings: Any) -> BoundSes:
    return bind(evolve(CONFIG, settings={**SETTINGS, **settings}), EXTRA)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        FULL,
        {**SETTINGS, "sns_topic_arn": TOPIC},
        {**SETTINGS, "tags": {}, "batch_max": 1},
        {**SETTINGS, "reply_to": None, "batch_max": None},
    ],
)
def test_good_settings_have_no_problem_and_bind(settings: dict[str, Any]) -> None:
    assert settings_problems(settings) == []
    assert bind(evolve(CONFIG, settings=settings)).limits.concurrency_max


WRONG: list[tuple[str, Any]] = [
    ("region", None),
    ("region", ""),
    ("region", "Frankfurt"),
    ("region", "eu-central-1.evil.example/"),
    ("region", "eu-central-1\n"),
    ("region", 1),
    ("from_email", None),
    ("from_email", "Ann <ann@example.org>"),
    ("from_email", "ann@exämple.org"),
    ("from_email", "änn@example.org"),
    ("from_email", "a@b@c"),
    ("from_email", "ann@example.org\r\nbcc: x@y.z"),
    ("reply_to", "ann"),
    ("from_name", ""),
    ("from_name", "two\nlines"),
    ("from_name", "x" * 129),
    ("from_name", 1),
    ("configuration_set", "not a name"),
    ("configuration_set", "x" * 65),
    ("account_id", "12345"),
    ("account_id", 123456789012),
    ("tags", []),
    ("tags", {"a b": "c"}),
    ("tags", {"a": "ü"}),
    ("tags", {"a": ""}),
    ("tags", {"a": 1}),
    ("tags", {"notification_id": "mine"}),
    ("tags", {"organization_id": "mine"}),
    ("tags", {f"n{number}": "x" for number in range(21)}),
    ("batch_max", 0),
    ("batch_max", 51),
    ("batch_max", True),
    ("batch_max", "50"),
    ("sns_topic_arn", []),
    ("sns_topic_arn", "ses-reports"),
    ("sns_topic_arn", TOPIC + "\n"),
    ("sns_topic_arn", [TOPIC, 1]),
    ("sns_topic_arn", [TOPIC] * 11),
    ("rate_per_s", 0),
    ("on_unknown", "ask"),
    ("base_url", "https://email.us-east-1.amazonaws.com"),
    ("base_url", "https://evil.example"),
    ("base_url", "http://127.0.0.1:8025"),
    ("key_retention_s", 60),
    ("nonsense", 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_pointed_at_and_not_repeated(name: str, value: Any) -> None:
    problems = settings_problems({**SETTINGS, name: value})

    assert [problem.pointer for problem in problems] == [
        "/settings" if name in ("nonsense", "key_retention_s") else f"/settings/{name}"
    ]
    assert not [problem for problem in problems if isinstance(value, str) and len(value) > 5 and value in problem.detail]
    with pytest.raises(Unbindable):
        bind(evolve(CONFIG, settings={**SETTINGS, name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("access_key_id", None),
        ("access_key_id", "short"),
        ("access_key_id", "AKIA IOSFODNN7EXAMPLE"),
        ("access_key_id", 1),
        ("secret_access_key", None),
        ("secret_access_key", "short"),
        ("secret_access_key", "hush hush hush hush"),
        ("secret_access_key", "hüsh-hush-hush-hush"),
        ("session_token", ""),
        ("session_token", "two\nlines"),
        ("session_token", "x" * 8193),
        ("api_key", "SG.x"),
    ],
)
def test_a_wrong_credential_is_pointed_at_and_not_repeated(name: str, value: Any) -> None:
    problems = credentials_problems({**CREDENTIALS, name: value})

    assert [problem.pointer for problem in problems] == ["/credentials" if name == "api_key" else f"/credentials/{name}"]
    assert not [problem for problem in problems if isinstance(value, str) and len(value) > 5 and value in problem.detail]


def test_several_faults_are_told_at_once() -> None:
    assert len(settings_problems({"batch_max": 0, "tags": 1, "rate_per_s": -1})) == 5
    assert len(credentials_problems({})) == 2


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "email.us-east-1.amazonaws.com"),
        ("us-gov-west-1", "email.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "email.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_the_region_leads_to_its_host(region: str, host: str) -> None:
    assert bound(region=region).origin == Origin("https", host, 443)


def test_a_base_url_leads_to_the_hosts_of_the_region_and_to_what_was_allowed() -> None:
    fips, elsewhere = "https://email-fips.eu-central-1.amazonaws.com", "http://127.0.0.1:8025/gateway"

    assert str(bound(base_url=fips).origin) == fips + ":443"
    moved = bound(base_url=elsewhere)
    assert moved.origin == Origin("http", "127.0.0.1", 8025)
    assert moved.probe(MOMENT).target == b"/gateway/v2/email/account"


def test_limits_are_taken_from_the_settings() -> None:
    assert bound(rate_per_s=5, burst=7, concurrency_max=3).limits == Limits(5.0, 7, 3)
    assert bound(quota=1000, quota_window_h=1).limits[3:] == (1000, 1)


def test_nothing_shows_a_credential() -> None:
    assert repr(bound()) == "<BoundSes https://email.eu-central-1.amazonaws.com:443>"
    assert "hush" not in repr(bound().probe(MOMENT))


# --- trying it out ------------------------------------------------------------------------------------------

ACCOUNT: dict[str, Any] = {
    "SendingEnabled": True,
    "ProductionAccessEnabled": True,
    "EnforcementStatus": "HEALTHY",
    "SendQuota": {"MaxSendRate": 14.0, "Max24HourSend": 50_000.0, "SentLast24Hours": 12.0},
}


def probed(status: int = 200, error: str = "", body: bytes | None = None, **account: Any) -> Probed:
    document = {"message": "User ann@example.org is not authorized"} if error else {**ACCOUNT, **account}
    headers = ((b"x-amzn-errortype", error.encode()),) if error else ()
    return bound().probed(HttpResponse(status, headers, orjson.dumps(document) if body is None else body), NOW)


def test_the_account_is_asked_by_a_signed_request_without_effect() -> None:
    request = bound().probe(MOMENT)
    operation = botocore.session.get_session().get_service_model("sesv2").operation_model("GetAccount")
    headers = dict(request.headers)

    validate_parameters(ACCOUNT, operation.output_shape)
    assert (request.method.decode(), request.target.decode()) == (operation.http["method"], operation.http["requestUri"])
    assert b"SignedHeaders=accept;host;x-amz-date," in headers[b"authorization"]
    assert request.body == b""


def test_an_account_that_may_send_says_how_much() -> None:
    assert probed() == Probed(True, "ready", "The account may send in eu-central-1: 14 mails a second and 50000 in 24 hours.")
    assert probed(SendQuota=None) == Probed(True, "ready", "The account may send in eu-central-1.")
    assert probed(EnforcementStatus="PROBATION").good
    assert "under review" in probed(EnforcementStatus="PROBATION").words
    assert probed(SendQuota={"MaxSendRate": 1, "Max24HourSend": -1, "SentLast24Hours": 5}).good


@pytest.mark.parametrize(
    ("account", "code", "word"),
    [
        ({"SendingEnabled": False}, "sending_paused", "switched off"),
        ({"ProductionAccessEnabled": False}, "account_in_sandbox", "production access"),
        ({"EnforcementStatus": "SHUTDOWN"}, "account_suspended", "support case"),
        ({"SendQuota": {"MaxSendRate": 1, "Max24HourSend": 200, "SentLast24Hours": 200}}, "daily_quota", "used up"),
        ({"SendingEnabled": None}, "not_understood", "base_url"),
        ({"ProductionAccessEnabled": "yes"}, "not_understood", "base_url"),
    ],
)
def test_an_account_that_may_not_send_says_why_and_where(account: dict[str, Any], code: str, word: str) -> None:
    found = probed(**account)

    assert (found.good, found.code) == (False, code)
    assert word in found.words
    assert "eu-central-1" in found.words or code == "not_understood"


@pytest.mark.parametrize(
    ("status", "error", "code", "word"),
    [
        (403, "SignatureDoesNotMatch", "credentials_refused", "made for eu-central-1"),
        (403, "UnrecognizedClientException", "credentials_refused", "region"),
        (403, "ExpiredTokenException", "session_ended", "session token"),
        (403, "AccessDeniedException", "probe_not_permitted", "ses:GetAccount"),
        (429, "TooManyRequestsException", "sending_rate", "rate_per_s"),
        (404, "UnknownOperationException", "not_found", "region"),
        (503, "", "provider_failed", "by itself"),
        (301, "", "http_301", "base_url"),
    ],
)
def test_a_refusal_says_what_to_do_in_our_words(status: int, error: str, code: str, word: str) -> None:
    found = probed(status, error)

    assert (found.good, found.code) == (False, code)
    assert word in found.words
    assert "ann@" not in found.words


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"{}", b'{"SendingEnabled":1}'])
def test_what_is_no_account_is_not_understood(body: bytes) -> None:
    assert probed(body=body).code == "not_understood"
