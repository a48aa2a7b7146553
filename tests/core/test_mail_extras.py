"""Headers and attachments of a mail: what may be handed in, and how each provider is given it."""

from __future__ import annotations

import email
import email.policy
from base64 import b64decode, b64encode
from random import Random
from typing import Any

import botocore.session
import orjson
import pytest
from botocore.validate import validate_parameters
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.acceptance import AcceptLimits, Item, parse_item
from dispatcher.http_message import HttpRequest
from dispatcher.mail_extras import ATTACHMENTS_MAX, HEADERS_MAX, NO_EXTRAS, extras_faults, extras_of
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.problems import Problem
from dispatcher.providers import sendgrid, ses, smtp
from dispatcher.providers.batching import Batching
from dispatcher.providers.provider import Moment, Unsendable
from dispatcher.smtp_message import SmtpRequest
from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.sendgrid import SendGrid
from dispatcher_sandbox.ses.extras import check_attachments, check_headers
from dispatcher_sandbox.ses.refusals import Refused

ORG = OrganizationId("acme")
MOMENT = Moment(1_700_000_000.0, Random(1).randbytes)
LINK = "https://notify.example.org/v1/unsubscribe/" + "A1_-" * 60
HEADERS = {"List-Unsubscribe": f"<{LINK}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click", "X-Campaign": "spring"}
FILES = [
    {"filename": "report.csv", "content_type": "text/csv", "content": b64encode(b"a,b\r\n1,2\r\n").decode()},
    {"filename": "Übersicht März.pdf", "content_type": "application/pdf", "content": b64encode(bytes(range(256))).decode()},
]
PAYLOAD: dict[str, Any] = {
    "subject": "Report",
    "text": "Attached.",
    "html": "<p>Attached.</p>",
    "headers": HEADERS,
    "attachments": FILES,
}
SENDGRID = sendgrid.bind(
    ProviderConfig("1", ORG, Channel.EMAIL, "sendgrid", {"from_email": "a@example.org", "batch_max": 9}, {"api_key": "SG.x"}, 1)
)
SES = ses.bind(
    ProviderConfig(
        "1",
        ORG,
        Channel.EMAIL,
        "ses",
        {"region": "eu-central-1", "from_email": "a@example.org", "batch_max": 9},
        {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "hush-hush-hush-hush"},
        1,
    )
)
SMTP = smtp.bind(
    ProviderConfig(
        "1", ORG, Channel.EMAIL, "smtp", {"host": "m.example.org", "from_email": "a@example.org", "batch_max": 9}, {}, 1
    ),
    ("smtp://m.example.org:587",),
)
MODEL = botocore.session.get_session().get_service_model("sesv2")


def delivery(number: int = 1, /, **payload: Any) -> Delivery:
    id = NotificationId(f"017f22e2-79b0-7cc3-98c4-{number:012d}")
    return Delivery(id, ORG, Channel.EMAIL, f"reader{number}@example.com", payload or PAYLOAD, 1, 8, 0.0)


def mail(request: SmtpRequest) -> email.message.EmailMessage:
    assert request.message is not None
    parsed = email.message_from_bytes(request.message, policy=email.policy.SMTP)
    assert isinstance(parsed, email.message.EmailMessage)
    assert not parsed.defects
    return parsed


def test_a_payload_without_any_costs_nothing_and_has_none() -> None:
    assert extras_of({"subject": "Hi", "text": "there"}) is NO_EXTRAS


def test_sendgrid_gets_them_in_a_form_that_it_takes() -> None:
    request = SENDGRID.request(delivery(), MOMENT)

    document = orjson.loads(request.body)
    assert document["headers"] == HEADERS
    assert [(each["filename"], each["type"], each["disposition"]) for each in document["attachments"]] == [
        ("report.csv", "text/csv", "attachment"),
        ("Übersicht März.pdf", "application/pdf", "attachment"),
    ]
    assert not isinstance(simulated(request), Answer)  # nothing was found fault with


def simulated(request: HttpRequest) -> object:
    given = Request(request.method, request.target, dict(request.headers), request.body)
    return SendGrid().read(given, Behaviour(), MOMENT.unix_s)


def test_ses_gets_them_in_a_form_that_its_model_knows() -> None:
    document = orjson.loads(SES.request(delivery(), MOMENT).body)

    simple = document["Content"]["Simple"]
    validate_parameters(document, MODEL.operation_model("SendEmail").input_shape)
    assert {each["Name"]: each["Value"] for each in simple["Headers"]} == HEADERS
    assert [(each["FileName"], b64decode(each["RawContent"])) for each in simple["Attachments"]] == [
        ("report.csv", b"a,b\r\n1,2\r\n"),
        ("Übersicht März.pdf", bytes(range(256))),
    ]
    check_headers(simple, "Headers")
    check_attachments(simple)


def test_a_mail_has_them_byte_for_byte_and_a_long_link_stays_readable() -> None:
    request = SMTP.request(delivery(), MOMENT)

    made = mail(request)
    assert request.message is not None
    assert f"List-Unsubscribe: <{LINK}>\r\n".encode() in request.message
    assert {name: made[name] for name in HEADERS} == HEADERS
    files = [(part.get_filename(), part.get_content_type(), part.get_payload(decode=True)) for part in made.iter_attachments()]
    assert files == [
        ("report.csv", "text/csv", b"a,b\r\n1,2\r\n"),
        ("Übersicht März.pdf", "application/pdf", bytes(range(256))),
    ]
    text = made.get_body(("plain",))
    assert text is not None
    assert text.get_content().strip() == "Attached."


@pytest.mark.parametrize("provider", [SENDGRID, SES])
def test_headers_ride_in_a_batch_each_with_its_own_mail(provider: Any) -> None:
    links = [f"<https://notify.example.org/{number}>" for number in range(2)]
    parts = [
        provider.part(delivery(number, subject="Hi", text=f"You {number}", headers={"List-Unsubscribe": link}), MOMENT)
        for number, link in enumerate(links)
    ]

    document = orjson.loads(provider.batch_request(parts, MOMENT).body)

    if provider is SES:
        validate_parameters(document, MODEL.operation_model("SendBulkEmail").input_shape)
        entries = document["BulkEmailEntries"]
        assert [entry["ReplacementHeaders"] for entry in entries] == [
            [{"Name": "List-Unsubscribe", "Value": link}] for link in links
        ]
    else:
        assert [block["headers"] for block in document["personalizations"]] == [{"List-Unsubscribe": link} for link in links]


@pytest.mark.parametrize("provider", [SENDGRID, SES])
def test_a_mail_with_attachments_goes_alone(provider: Batching) -> None:
    assert provider.part(delivery(subject="Hi", text="See", attachments=FILES), MOMENT) is None


def test_over_smtp_only_mails_with_the_same_extras_share_a_transaction() -> None:
    one = SMTP.part(delivery(1), MOMENT)
    same = SMTP.part(delivery(2), MOMENT)
    other = SMTP.part(delivery(3, **(PAYLOAD | {"headers": {"X-Campaign": "autumn"}})), MOMENT)

    assert one is not None
    assert same is not None
    assert other is not None
    assert one.key == same.key
    assert one.key != other.key


FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"headers": []}, ["/headers"]),
    ({"headers": {}}, ["/headers"]),
    ({"headers": {f"X-{n}": "a" for n in range(HEADERS_MAX + 1)}}, ["/headers"]),
    ({"headers": {"X-A": "1", "x-a": "2"}}, ["/headers"]),
    ({"headers": {"Bcc": "victim@example.com"}}, ["/headers"]),
    ({"headers": {"Subject": "other"}}, ["/headers"]),
    ({"headers": {"Content-Type": "text/html"}}, ["/headers"]),
    ({"headers": {"X-SMTPAPI": "{}"}}, ["/headers"]),
    ({"headers": {"X-Notification-Id": "other"}}, ["/headers"]),
    ({"headers": {"X-A\r\nBcc": "victim@example.com"}}, ["/headers"]),
    ({"headers": {"X-A": "1\r\nBcc: victim@example.com"}}, ["/headers/X-A"]),
    ({"headers": {"X-A": "ü"}}, ["/headers/X-A"]),
    ({"headers": {"X-A": 1}}, ["/headers/X-A"]),
    ({"attachments": {}}, ["/attachments"]),
    ({"attachments": []}, ["/attachments"]),
    ({"attachments": FILES[:1] * (ATTACHMENTS_MAX + 1)}, ["/attachments"]),
    ({"attachments": ["x"]}, ["/attachments/0"]),
    ({"attachments": [{**FILES[0], "path": "/etc/passwd"}]}, ["/attachments/0"]),
    ({"attachments": [{**FILES[0], "filename": "../a"}]}, ["/attachments/0/filename"]),
    ({"attachments": [{**FILES[0], "filename": ".."}]}, ["/attachments/0/filename"]),
    ({"attachments": [{**FILES[0], "filename": 'a"\r\nX: y'}]}, ["/attachments/0/filename"]),
    ({"attachments": [FILES[0], {**FILES[0], "content_type": "text/csv; charset=x"}]}, ["/attachments/1/content_type"]),
    ({"attachments": [{**FILES[0], "content_type": "multipart/mixed"}]}, ["/attachments/0/content_type"]),
    ({"attachments": [{**FILES[0], "content": "not base64!"}]}, ["/attachments/0/content"]),
    ({"attachments": [{**FILES[0], "content": ""}]}, ["/attachments/0/content"]),
    ({"headers": {"To": "x"}, "attachments": [{**FILES[0], "content": 5}]}, ["/headers", "/attachments/0/content"]),
]


@pytest.mark.parametrize(("extras", "pointers"), FAULTS)
def test_what_is_wrong_is_refused_at_accept_with_a_pointer_to_each(extras: dict[str, Any], pointers: list[str]) -> None:
    content = {"subject": "Hi", "text": "there", **extras}
    item = parse_item({"channel": "email", "recipient": "a@example.org", "content": content}, AcceptLimits(10, 1 << 20))

    assert isinstance(item, Problem)
    assert [problem.pointer for problem in (item.errors or (item,))] == ["/content" + pointer for pointer in pointers]
    for provider in (SENDGRID, SES, SMTP):
        with pytest.raises(Unsendable):
            provider.request(delivery(**content), MOMENT)


def test_good_ones_are_accepted_and_kept_as_they_came() -> None:
    content = {"subject": "Hi", "text": "there", "headers": HEADERS, "attachments": FILES}
    item = parse_item({"channel": "email", "recipient": "a@example.org", "content": content}, AcceptLimits(10, 1 << 20))

    assert isinstance(item, Item)
    assert item.content == content
    assert "report.csv" not in repr(item)


def test_another_channel_has_none() -> None:
    item = parse_item(
        {"channel": "sms", "recipient": "+15551234567", "content": {"text": "Hi", "headers": HEADERS}}, AcceptLimits(10, 1 << 20)
    )

    assert isinstance(item, Problem)
    assert item.code == "field_unknown"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON, JSON)
def test_whatever_is_handed_in_is_either_faulty_or_makes_a_mail_that_says_who_sent_it(headers: Any, attachments: Any) -> None:
    payload = {"subject": "Hi", "text": "there", "headers": headers, "attachments": attachments}
    if extras_faults(payload):
        assert extras_of(payload) is None
    else:
        made = mail(SMTP.request(delivery(**payload), MOMENT))
        assert (made["From"], made["To"], made["Bcc"]) == ("a@example.org", "reader1@example.com", None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        [{"Name": "X", "Value": "a\nb"}],
        [{"Name": "X:", "Value": "a"}],
        [{"Name": "X", "Value": "a"}] * 16,
    ],
)
def test_the_sandbox_refuses_headers_that_ses_would(headers: Any) -> None:
    with pytest.raises(Refused):
        check_headers({"Headers": headers}, "Headers")


@pytest.mark.parametrize(
    "attachments",
    [
        {},
        [{"RawContent": "AA=="}],
        [{"FileName": "a", "RawContent": "!"}],
        [{"FileName": "a", "RawContent": "AA==", "ContentDisposition": "attachment"}],
    ],
)
def test_the_sandbox_refuses_attachments_that_ses_would(attachments: Any) -> None:
    with pytest.raises(Refused):
        check_attachments({"Attachments": attachments})
