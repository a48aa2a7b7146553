"""Email through a submission server: the mail that is made, what replies mean, what a configuration must look like."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.io.smtp_wire import check_request
from dispatcher.http_message import Origin
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.batching import Batching
from dispatcher.providers.probing import Probing
from dispatcher.providers.provider import Moment, Unbindable, Unsendable
from dispatcher.providers.smtp import SMTP, BoundSmtp, bind
from dispatcher.providers.smtp_errors import ERRORS, FAULTS, STAGES
from dispatcher.smtp_message import Fault, Login, SmtpReply, SmtpRequest, SmtpResponse, Stage

ID = NotificationId("0192d3a4-7c1e-7f00-8000-000000000001")
ORG = OrganizationId("acme")
ALLOWED = ("smtp://mail.example.org:587", "smtps://mail.example.org:465", "smtp+plain://127.0.0.1:2525")
SETTINGS: Mapping[str, Any] = {"host": "mail.example.org", "from_email": "news@example.org"}
CREDENTIALS: Mapping[str, str] = {"username": "user-canary", "password": "password-canary"}
MOMENT = Moment(1_800_000_000.0, lambda size: bytes(range(size)))
PAYLOAD: Mapping[str, Any] = {"subject": "Hello", "text": "Good day"}
HARD, SOFT, SUPPRESS = OutcomeClass.HARD, OutcomeClass.SOFT, OutcomeClass.SUPPRESS
RATE, CONFIG, UNKNOWN = OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED, OutcomeClass.UNKNOWN


def config(settings: Mapping[str, Any] = SETTINGS, credentials: Mapping[str, str] = CREDENTIALS) -> ProviderConfig:
    return ProviderConfig("config", ORG, Channel.EMAIL, "smtp", settings, credentials, 1)


def bound(**settings: Any) -> BoundSmtp:
    return bind(config({**SETTINGS, **settings}), ALLOWED)


def delivery(payload: Mapping[str, Any] = PAYLOAD, recipient: str = "reader@example.net", id: str = ID) -> Delivery:
    return Delivery(NotificationId(id), ORG, Channel.EMAIL, recipient, payload, 1, 8, 0.0)


def parsed(request: SmtpRequest) -> email.message.EmailMessage:
    assert request.message is not None
    check_request(request)
    mail = email.message_from_bytes(request.message, policy=email.policy.SMTP)
    assert isinstance(mail, email.message.EmailMessage)
    assert not mail.defects
    return mail


def reply(text: str) -> SmtpReply:
    """``550 5.1.1 words`` as a reply."""
    code, _, rest = text.partition(" ")
    enhanced, _, words = rest.partition(" ")
    parts = enhanced.split(".")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        return SmtpReply(int(code), (int(parts[0]), int(parts[1]), int(parts[2])), words.encode())
    return SmtpReply(int(code), None, rest.encode())


def at_recipient(text: str) -> Outcome:
    return bound().classify(SmtpResponse(Stage.RCPT, None, (reply(text),)), 0.0)


def at_message(text: str, message_id: str | None = None) -> Outcome:
    response = SmtpResponse(Stage.MESSAGE, reply(text), (SmtpReply(250, (2, 1, 5)),), message_id=message_id)
    return bound().classify(response, 0.0)


# --- the mail -----------------------------------------------------------------------------------------------------------------


def test_a_request_carries_the_whole_mail() -> None:
    one = bound(from_name="Example News", reply_to="desk@example.org", envelope_from="bounces@example.org")

    request = one.request(delivery({**PAYLOAD, "html": "<p>Good day</p>"}), MOMENT)

    assert request._replace(message=b"") == SmtpRequest(
        Origin("smtp", "mail.example.org", 587),
        Login("user-canary", "password-canary"),
        "bounces@example.org",
        ("reader@example.net",),
        b"",
        False,
        f"<{ID}@example.org>",
    )
    mail = parsed(request)
    assert dict(mail.items()) == {
        "From": "Example News <news@example.org>",
        "To": "reader@example.net",
        "Reply-To": "desk@example.org",
        "Subject": "Hello",
        "Date": "Fri, 15 Jan 2027 08:00:00 -0000",
        "Message-ID": f"<{ID}@example.org>",
        "X-Notification-Id": ID,
        "X-Organization-Id": "acme",
        "MIME-Version": "1.0",
        "Content-Type": 'multipart/alternative; boundary="=000102030405060708090a0b="',
    }
    parts = [(part.get_content_type(), part.get_content().strip()) for part in mail.iter_parts()]
    assert parts == [("text/plain", "Good day"), ("text/html", "<p>Good day</p>")]


def test_the_same_notification_at_the_same_moment_is_the_same_mail() -> None:
    full = delivery({**PAYLOAD, "html": "<p>Good day</p>"})

    assert bound().request(full, MOMENT) == bound().request(full, MOMENT)


def test_what_is_not_ascii_is_encoded() -> None:
    payload = {"subject": "Grüße aus Köln ✓ " * 12, "text": "ü" * 3000 + "\rone\ntwo\r\n.three\n" + "x" * 3000}
    request = bound(from_name="Jürgen, “der” Chef").request(delivery(payload, "leser@bücher.example"), MOMENT)

    mail = parsed(request)
    assert request.message is not None
    assert request.message.isascii()
    assert max(map(len, request.message.split(b"\r\n"))) <= 998
    assert (request.recipients, request.utf8) == (("leser@xn--bcher-kva.example",), False)
    assert mail["Subject"].strip() == payload["subject"].strip()
    assert mail["From"].addresses[0].display_name == "Jürgen, “der” Chef"
    assert mail.get_content().replace("\r\n", "\n") == "ü" * 3000 + "\none\ntwo\n.three\n" + "x" * 3000 + "\n"


def test_an_address_that_can_not_be_ascii_needs_a_server_that_takes_it() -> None:
    request = bound().request(delivery(recipient="jürgen@example.net"), MOMENT)

    assert (request.utf8, request.recipients) == (True, ("jürgen@example.net",))
    assert request.message is not None
    assert "To: jürgen@example.net\r\n".encode() in request.message
    assert bound(batch_max=5).part(delivery(recipient="jürgen@example.net"), MOMENT) is None


@pytest.mark.parametrize(
    ("payload", "recipient", "code"),
    [
        ({"text": "x"}, "a@example.org", "subject_missing"),
        ({"subject": 1, "text": "x"}, "a@example.org", "subject_missing"),
        ({"subject": "x\r\nBcc: c@example.org", "text": "x"}, "a@example.org", "subject_has_line_break"),
        ({"subject": "x\nBcc: c@example.org", "text": "x"}, "a@example.org", "subject_has_line_break"),
        ({"subject": "x\u2028Bcc: c@example.org", "text": "x"}, "a@example.org", "subject_has_line_break"),
        ({"subject": "x"}, "a@example.org", "content_missing"),
        ({"subject": "x", "text": ["x"]}, "a@example.org", "content_invalid"),
        ({"subject": "x", "text": "\0"}, "a@example.org", "content_invalid"),
        ({"subject": "x", "text": "\ud800"}, "a@example.org", "payload_not_unicode"),
        (PAYLOAD, "a@example.org\r\nRCPT TO:<c@example.org>", "recipient_invalid"),
        (PAYLOAD, "a@example.org> SIZE=1 <c@example.org", "recipient_invalid"),
        (PAYLOAD, "a,b@example.org", "recipient_invalid"),
        (PAYLOAD, '"a b"@example.org', "recipient_invalid"),
        (PAYLOAD, "a..b@example.org", "recipient_invalid"),
        (PAYLOAD, "a@exa mple.org", "recipient_invalid"),
        (PAYLOAD, "a@-example.org", "recipient_invalid"),
        (PAYLOAD, "a@\u2028.org", "recipient_invalid"),
        (PAYLOAD, "nobody", "recipient_invalid"),
        (PAYLOAD, "\ud800@example.org", "recipient_invalid"),
    ],
)
def test_what_no_mail_can_be_made_of_is_unsendable(payload: Mapping[str, Any], recipient: str, code: str) -> None:
    with pytest.raises(Unsendable) as caught:
        bound().request(delivery(payload, recipient), MOMENT)

    assert caught.value.code == code


TEXTS = st.text(max_size=40) | st.text("\r\n\0.:=?<>@ aü", max_size=20)


@given(
    payload=st.dictionaries(st.sampled_from(["subject", "text", "html"]), TEXTS | st.none() | st.integers()),
    recipient=st.builds("{}@{}".format, TEXTS, st.just("example.org") | TEXTS) | TEXTS | st.emails(),
)
def test_a_request_is_valid_or_there_is_none(payload: dict[str, Any], recipient: str) -> None:
    try:
        request = bound().request(delivery(payload, recipient), MOMENT)
    except Unsendable:
        return

    check_request(request)
    assert request.message is not None
    head = request.message.partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = [line.partition(b":")[0].decode() for line in head if not line.startswith((b" ", b"\t"))]
    expected = ["From", "To", "Subject", "Date", "Message-ID", "X-Notification-Id", "X-Organization-Id", "MIME-Version"]
    rest = {"Content-Type", "Content-Transfer-Encoding"}
    assert [name for name in names if name not in rest] == expected
    assert len(request.recipients) == 1


# --- what replies mean --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("421 4.3.2 closing", SOFT, "server_trouble"),
        ("421 bye", SOFT, "service_closing"),
        ("421 4.7.0 later", SOFT, "service_closing"),
        ("450 4.2.1 busy", SOFT, "recipient_deferred"),
        ("450 4.7.1 greylisted", SOFT, "deferred"),
        ("450 4.7.0 greylisted", SOFT, "deferred"),
        ("450 busy", SOFT, "mailbox_busy"),
        ("451 4.3.0 trouble", SOFT, "server_trouble"),
        ("451 4.4.1 trouble", SOFT, "routing_trouble"),
        ("451 4.4.2 trouble", SOFT, "routing_trouble"),
        ("451 4.7.1 greylisted", SOFT, "deferred"),
        ("451 trouble", SOFT, "server_trouble"),
        ("454 4.7.0 later", SOFT, "login_deferred"),
        ("452 4.2.2 full", SOFT, "mailbox_full"),
        ("552 5.2.2 full", SOFT, "mailbox_full"),
        ("452 4.5.3 too many", SOFT, "too_many_recipients"),
        ("452 no room", SOFT, "storage_short"),
        ("421 4.7.28 slower", RATE, "rate_limited"),
        ("450 4.7.28 slower", RATE, "rate_limited"),
        ("450 4.7.1 Error: too much mail from 192.0.2.1", RATE, "rate_limited"),
        ("450 4.7.1 Error: too many recipients from 192.0.2.1", RATE, "rate_limited"),
        ("450 4.7.0 rate limit exceeded", RATE, "rate_limited"),
        ("454 Throttling failure: Maximum sending rate exceeded.", RATE, "rate_limited"),
        ("454 4.7.0 Throttling failure: Daily message quota exceeded.", RATE, "daily_quota_exceeded"),
        ("550 5.1.1 nobody", SUPPRESS, "no_such_recipient"),
        ("550 5.1.2 nowhere", SUPPRESS, "no_such_domain"),
        ("550 5.1.3 syntax", SUPPRESS, "recipient_malformed"),
        ("550 5.1.6 moved", SUPPRESS, "recipient_moved"),
        ("550 5.1.10 null MX", SUPPRESS, "no_such_domain"),
        ("553 syntax", SUPPRESS, "recipient_malformed"),
        ("550 5.2.1 disabled", SUPPRESS, "mailbox_disabled"),
        ("550 5.7.1 policy", HARD, "policy_refused"),
        ("554 5.7.1 policy", HARD, "policy_refused"),
        ("550 5.7.25 no reverse name", CONFIG, "sender_unproven"),
        ("550 5.7.26 neither SPF nor DKIM", CONFIG, "sender_unproven"),
        ("550 5.7.27 no such sender", CONFIG, "sender_unproven"),
        ("552 5.3.4 too large", HARD, "too_large"),
        ("552 5.2.3 too large", HARD, "too_large"),
        ("552 no room", HARD, "storage_exceeded"),
        ("530 5.7.0 log in first", CONFIG, "login_refused"),
        ("534 5.7.9 too weak", CONFIG, "login_unsafe"),
        ("535 5.7.8 no", CONFIG, "login_refused"),
        ("538 5.7.11 in the clear", CONFIG, "login_unsafe"),
        *((f"{code} what", CONFIG, "command_refused") for code in (500, 501, 502, 503, 504, 555)),
        ("554 5.5.1 what", CONFIG, "command_refused"),
        ("550 5.5.4 what", CONFIG, "command_refused"),
        ("551 moved", SUPPRESS, "recipient_moved"),
        ("556 null MX", SUPPRESS, "no_such_domain"),
        ("556 5.1.10 null MX", SUPPRESS, "no_such_domain"),
        ("450 4.4.7 too long", SOFT, "routing_trouble"),
        ("554 5.4.6 loop", HARD, "routing_failed"),
        ("554 5.3.0 system", HARD, "system_refused"),
        ("450 4.3.1 system", SOFT, "server_trouble"),
        ("455 unable", SOFT, "smtp_455"),
        ("499 4.9.9 unheard of", SOFT, "smtp_499"),
        ("550 no", HARD, "smtp_550"),
        ("599 5.9.9 unheard of", HARD, "smtp_599"),
        ("450 5.1.1 at odds with itself", SOFT, "mailbox_busy"),
        ("550 4.2.2 at odds with itself", HARD, "smtp_550"),
        ("350 go on", SOFT, "not_passed_on"),
    ],
)
def test_what_a_recipients_reply_means(text: str, kind: OutcomeClass, code: str) -> None:
    outcome = at_recipient(text)

    assert (outcome.kind, outcome.code) == (kind, code)
    if not text.startswith("350"):  # after the message the same holds, of the message
        assert (at_message(text).kind, at_message(text).code) == (kind, code)


def test_waits_come_from_the_table() -> None:
    assert at_recipient("450 4.7.1 greylisted").wait_s == 300.0
    full = at_recipient("452 4.2.2 full")
    assert (full.wait_s, full.attempts_max) == (3600.0, 6)
    assert at_recipient("454 Daily message quota exceeded").retry_after_s == 3600.0


@pytest.mark.parametrize(
    ("stage", "text", "kind", "code"),
    [
        (Stage.GREETING, "554 5.7.1 go away", CONFIG, "session_refused"),
        (Stage.GREETING, "421 4.3.2 busy", SOFT, "server_trouble"),
        (Stage.GREETING, "250 what", SOFT, "not_passed_on"),
        (Stage.HELLO, "550 5.7.1 no", CONFIG, "hello_refused"),
        (Stage.HELLO, "502 what", CONFIG, "command_refused"),
        (Stage.TLS, "454 4.7.0 not now", SOFT, "login_deferred"),
        (Stage.TLS, "554 no", CONFIG, "starttls_refused"),
        (Stage.AUTH, "535 5.7.8 no", CONFIG, "login_refused"),
        (Stage.AUTH, "454 4.7.0 later", SOFT, "login_deferred"),
        (Stage.AUTH, "550 no", CONFIG, "login_refused"),
        (Stage.MAIL, "550 5.1.1 no such sender", CONFIG, "sender_refused"),
        (Stage.MAIL, "553 5.7.1 not owned by user", CONFIG, "sender_refused"),
        (Stage.MAIL, "552 5.3.4 too large", HARD, "too_large"),
        (Stage.MAIL, "452 4.3.1 no room", SOFT, "server_trouble"),
        (Stage.MAIL, "454 Throttling failure: Maximum sending rate exceeded", RATE, "rate_limited"),
        (Stage.DATA, "451 4.3.0 later", SOFT, "server_trouble"),
        (Stage.DATA, "554 5.7.1 no", HARD, "policy_refused"),
        (Stage.MESSAGE, "350 what", UNKNOWN, "reply_not_understood"),
    ],
)
def test_what_a_refusal_means_depends_on_how_far_it_came(stage: Stage, text: str, kind: OutcomeClass, code: str) -> None:
    recipients = (SmtpReply(250),) if stage in (Stage.DATA, Stage.MESSAGE) else ()

    outcome = bound().classify(SmtpResponse(stage, reply(text), recipients), 0.0)

    assert (outcome.kind, outcome.code) == (kind, code)


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_has_its_meaning_and_its_words(fault: Fault) -> None:
    outcome = bound().classify(SmtpResponse(Stage.TLS, None, fault=fault), 0.0)

    assert (outcome.kind, outcome.code) == (FAULTS[fault].kind, fault.value)
    assert SMTP.explanations[outcome.code]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("250 2.0.0 Ok: queued as 4XyZ1234abc", "4XyZ1234abc"),
        ("250 OK id=1q2w3E-0004xy-5Z", "1q2w3E-0004xy-5Z"),
        ("250 2.6.0 <x@y> [InternalId=123456789, Hostname=H] Queued mail for delivery", "123456789"),
        (
            "250 Ok 0102018f3c2b1a00-11112222-3333-4444-5555-666677778888-000000",
            "0102018f3c2b1a00-11112222-3333-4444-5555-666677778888-000000",
        ),
        ("250 2.0.0 48A1bCdE012345 Message accepted for delivery", "48A1bCdE012345"),
        ("250 2.0.0 OK  1700000000 a1b2c3d4e5f6.12 - gsmtp", "a1b2c3d4e5f6.12"),
        ("250 Ok", "<own@example.org>"),
        ("250 queued as <script>", "<own@example.org>"),
    ],
)
def test_the_servers_name_for_a_mail_is_kept_where_it_is_recognized(text: str, name: str) -> None:
    outcome = at_message(text, "<own@example.org>")

    assert (outcome.kind, outcome.code, outcome.provider_message_id) == (OutcomeClass.DELIVERED, "accepted", name)


REPLIES = st.builds(
    SmtpReply,
    st.integers(0, 999),
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 999), st.integers(0, 999)),
    st.binary(max_size=60),
)
RESPONSES = st.builds(
    SmtpResponse,
    st.sampled_from(list(Stage)),
    st.none() | REPLIES,
    st.lists(REPLIES, max_size=4).map(tuple),
    st.none() | st.sampled_from(list(Fault)),
    st.none() | st.text(max_size=20),
)


@given(response=RESPONSES, count=st.integers(1, 4))
def test_no_answer_makes_it_raise(response: SmtpResponse, count: int) -> None:
    one = bound(batch_max=4)
    parts = [one.part(delivery(recipient=f"r{number}@example.org"), MOMENT) for number in range(count)]

    outcome = one.classify(response, 0.0)
    outcomes = one.classify_batch(response, [part for part in parts if part is not None], 0.0)

    assert len(outcome.code) <= 64
    assert outcome.code.isascii()
    assert len(outcomes) == count
    assert one.probed(response, 0.0).words
    if response.stage is not Stage.MESSAGE:  # nothing was taken on, and nobody is in doubt about it
        assert outcome.kind is not OutcomeClass.DELIVERED


# --- several at once ----------------------------------------------------------------------------------------------------------


def parts_of(one: BoundSmtp, count: int) -> list[Any]:
    return [one.part(delivery(recipient=f"r{number}@example.org", id=f"{ID[:-1]}{number}"), MOMENT) for number in range(count)]


def test_equal_content_shares_a_transaction_and_recipients_do_not_learn_of_each_other() -> None:
    one = bound(batch_max=3)
    parts = parts_of(one, 3)
    other = one.part(delivery({"subject": "Other", "text": "x"}), MOMENT)
    assert isinstance(one, Batching)
    assert other is not None
    assert one.batch_max == 3
    assert len({part.key for part in parts}) == 1
    assert other.key != parts[0].key

    request = one.batch_request(parts, MOMENT)

    assert request.recipients == ("r0@example.org", "r1@example.org", "r2@example.org")
    mail = parsed(request)
    assert mail["To"] == "undisclosed-recipients:;"
    assert mail["X-Notification-Id"].replace(" ", "").split(",") == [part.delivery.id for part in parts]
    assert request.message is not None
    assert b"r1@" not in request.message
    assert request.message_id == f"<{parts[0].delivery.id}@example.org>"


def test_a_batch_of_one_says_to_whom_it_goes() -> None:
    one = bound(batch_max=3)

    assert one.batch_request(parts_of(one, 1), MOMENT) == one.request(parts_of(one, 1)[0].delivery, MOMENT)


def test_without_batch_max_everybody_goes_alone() -> None:
    assert bound().batch_max == 1


def test_recipients_of_a_batch_are_answered_for_one_by_one() -> None:
    one = bound(batch_max=4)
    own = tuple(map(reply, ("250 2.1.5 Ok", "550 5.1.1 no", "452 4.5.3 too many", "450 4.7.1 later")))
    response = SmtpResponse(Stage.MESSAGE, reply("250 2.0.0 Ok: queued as 12345"), own)

    outcomes = one.classify_batch(response, parts_of(one, 4), 0.0)

    assert [outcome and outcome.code for outcome in outcomes] == ["accepted", "no_such_recipient", None, "deferred"]
    assert outcomes[0] is not None
    assert outcomes[0].provider_message_id == "12345"


@pytest.mark.parametrize("text", ["452 4.5.3 too many", "552 5.5.3 too many", "452 too many"])
def test_who_was_too_many_goes_again_if_others_were_taken(text: str) -> None:
    one = bound(batch_max=4)
    refused = SmtpResponse(Stage.RCPT, None, (reply(text), reply(text)))

    again = one.classify_batch(
        SmtpResponse(Stage.MESSAGE, reply("250 Ok"), (reply("250 Ok"), reply(text))), parts_of(one, 2), 0.0
    )

    assert again[1] is None
    assert None not in one.classify_batch(refused, parts_of(one, 2), 0.0)


def test_a_batch_refused_for_somebody_is_halved_and_for_its_content_is_not() -> None:
    one = bound(batch_max=4)
    own = (reply("250 Ok"), reply("250 Ok"))

    gone = one.classify_batch(SmtpResponse(Stage.MESSAGE, reply("550 5.1.1 somebody is not here"), own), parts_of(one, 2), 0.0)
    content = one.classify_batch(SmtpResponse(Stage.MESSAGE, reply("554 5.7.1 spam"), own), parts_of(one, 2), 0.0)

    assert gone == [None, None]
    assert [outcome and outcome.code for outcome in content] == ["policy_refused", "policy_refused"]


def test_what_ends_a_batch_before_its_message_ends_it_for_all_who_were_not_refused_before() -> None:
    one = bound(batch_max=4)
    response = SmtpResponse(
        Stage.DATA, reply("421 4.3.0 closing"), (reply("250 Ok"), reply("550 5.1.1 no"), reply("421 closing"))
    )

    outcomes = one.classify_batch(response, parts_of(one, 3), 0.0)

    assert [outcome and outcome.kind for outcome in outcomes] == [SOFT, SUPPRESS, SOFT]


# --- configurations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        ({}, Origin("smtp", "mail.example.org", 587)),
        ({"host": "MAIL.example.org"}, Origin("smtp", "mail.example.org", 587)),
        ({"security": "tls"}, Origin("smtps", "mail.example.org", 465)),
        ({"security": "none", "host": "127.0.0.1", "port": 2525}, Origin("smtp+plain", "127.0.0.1", 2525)),
    ],
)
def test_where_a_configuration_leads(settings: dict[str, Any], origin: Origin) -> None:
    assert bound(**settings).origin == origin


@pytest.mark.parametrize(
    ("settings", "pointer", "code"),
    [
        ({"host": None}, "/settings/host", "setting_missing"),
        ({"host": "mail.example.org:25"}, "/settings/host", "setting_invalid"),
        ({"host": "user@mail.example.org"}, "/settings/host", "setting_invalid"),
        ({"host": "mail.example.org/x"}, "/settings/host", "setting_invalid"),
        ({"host": 1}, "/settings/host", "setting_invalid"),
        ({"host": "169.254.169.254"}, "/settings/host", "host_not_allowed"),
        ({"port": 25}, "/settings/host", "host_not_allowed"),
        ({"security": "tls", "port": 587}, "/settings/host", "host_not_allowed"),
        ({"port": 0}, "/settings/port", "setting_invalid"),
        ({"port": True}, "/settings/port", "setting_invalid"),
        ({"security": "ssl"}, "/settings/security", "setting_invalid"),
        ({"security": ["tls"]}, "/settings/security", "setting_invalid"),
        ({"security": "none"}, "/settings/security", "setting_invalid"),
        ({"security": "none", "host": "127.0.0.1"}, "/settings/host", "host_not_allowed"),
        ({"from_email": None}, "/settings/from_email", "setting_missing"),
        ({"from_email": "News <news@example.org>"}, "/settings/from_email", "setting_invalid"),
        ({"from_email": "nüws@example.org"}, "/settings/from_email", "setting_invalid"),
        ({"from_email": "a@example.org\r\nBcc: x@example.org"}, "/settings/from_email", "setting_invalid"),
        ({"reply_to": "nobody"}, "/settings/reply_to", "setting_invalid"),
        ({"envelope_from": 1}, "/settings/envelope_from", "setting_invalid"),
        ({"from_name": "a\r\nBcc: x@example.org"}, "/settings/from_name", "setting_invalid"),
        ({"from_name": ""}, "/settings/from_name", "setting_invalid"),
        ({"batch_max": 0}, "/settings/batch_max", "setting_invalid"),
        ({"batch_max": 101}, "/settings/batch_max", "setting_invalid"),
        ({"rate_per_s": -1}, "/settings/rate_per_s", "setting_invalid"),
        ({"on_unknown": "ask"}, "/settings/on_unknown", "setting_invalid"),
        ({"base_url": "http://127.0.0.1"}, "/settings", "setting_unknown"),
        ({"key_retention_s": 60}, "/settings", "setting_unknown"),
    ],
)
def test_wrong_settings_are_pointed_at(settings: dict[str, Any], pointer: str, code: str) -> None:
    given = {name: value for name, value in {**SETTINGS, **settings}.items() if value is not None}

    problems = SMTP.settings_problems(given, ALLOWED)

    assert [(problem.pointer, problem.code) for problem in problems] == [(pointer, code)]


@pytest.mark.parametrize(
    ("credentials", "pointers"),
    [
        ({}, []),
        (CREDENTIALS, []),
        ({"username": "x"}, ["/credentials/password"]),
        ({"password": "x"}, ["/credentials/username"]),
        ({"username": "x", "password": "a\nb"}, ["/credentials/password"]),
        ({"username": 1, "password": "\ud800"}, ["/credentials/username", "/credentials/password"]),
        ({"username": "x", "password": "y", "token": "z"}, ["/credentials"]),
    ],
)
def test_wrong_credentials_are_pointed_at(credentials: dict[str, Any], pointers: list[str]) -> None:
    assert [problem.pointer for problem in SMTP.credentials_problems(credentials)] == pointers


def test_a_configuration_whose_server_is_no_longer_allowed_can_not_be_bound() -> None:
    with pytest.raises(Unbindable) as caught:
        bind(config())

    assert caught.value.code == "host_not_allowed"


def test_a_server_that_asks_for_no_login_gets_none() -> None:
    one = bind(config(credentials={}), ALLOWED)

    assert one.request(delivery(), MOMENT).login is None
    assert bound().limits.concurrency_max == 10
    assert bound(concurrency_max=3).limits.concurrency_max == 3


# --- probing, and what is never shown -----------------------------------------------------------------------------------------


def test_a_probe_sends_nothing() -> None:
    one = bound(envelope_from="bounces@example.org")
    request = one.probe(MOMENT)

    assert isinstance(one, Probing)
    assert (request.message, request.recipients, request.sender) == (None, (), "bounces@example.org")
    check_request(request)


@pytest.mark.parametrize(
    ("response", "good", "code"),
    [
        (SmtpResponse(Stage.MAIL, SmtpReply(250, (2, 1, 0))), True, "sender_accepted"),
        (SmtpResponse(Stage.MAIL, SmtpReply(550, (5, 7, 1))), False, "sender_refused"),
        (SmtpResponse(Stage.AUTH, SmtpReply(535, (5, 7, 8))), False, "login_refused"),
        (SmtpResponse(Stage.GREETING, SmtpReply(554, (5, 7, 1))), False, "session_refused"),
        (SmtpResponse(Stage.HELLO, SmtpReply(550)), False, "hello_refused"),
        (SmtpResponse(Stage.TLS, SmtpReply(554)), False, "starttls_refused"),
        (SmtpResponse(Stage.TLS, None, fault=Fault.CERTIFICATE), False, "certificate_invalid"),
        (SmtpResponse(Stage.TLS, None, fault=Fault.NO_STARTTLS), False, "starttls_missing"),
        (SmtpResponse(Stage.AUTH, None, fault=Fault.NO_AUTH), False, "auth_missing"),
    ],
)
def test_a_probe_is_told_in_words(response: SmtpResponse, good: bool, code: str) -> None:
    probed = bound().probed(response, 0.0)

    assert (probed.good, probed.code) == (good, code)
    assert len(probed.words.split()) >= 5


def test_nothing_is_shown_of_what_is_carried() -> None:
    one = bind(config({**SETTINGS, "batch_max": 5}), ALLOWED)
    secret = delivery({"subject": "canary", "text": "canary"}, "canary@example.net")
    part = one.part(secret, MOMENT)
    assert part is not None

    assert "canary" not in f"{one!r} {one.request(secret, MOMENT)!r} {part!r} {part.key!r} {config()!r} {one.probe(MOMENT)!r}"


def test_every_row_has_words_for_a_person() -> None:
    rows = [*ERRORS.rows.values(), *STAGES.values(), *FAULTS.values(), ERRORS.other]

    assert all(len(row.words.split()) >= 5 and row.words.endswith(".") for row in rows)
    assert {row.code for row in rows if row.code != "smtp"} - set(SMTP.explanations) <= {ERRORS.other.code}
