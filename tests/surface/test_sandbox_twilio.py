"""The simulated Twilio: its own SDK is the client, and its own validator looks at what is reported."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from attrs import evolve
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from dispatcher.feedback.feedback import Feedback, FeedbackKind, WebhookRequest
from dispatcher.feedback.twilio import TWILIO_FEEDBACK
from dispatcher.model import Channel
from dispatcher.outcome import OutcomeClass, RateScope
from dispatcher.problems import Problem
from dispatcher_sandbox.callbacks import Callback
from dispatcher_sandbox.control import Control
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.magic_phone import TABLE, magic_phone
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.twilio.reports import UNSEEN
from sandbox_phones import MAGIC, NOW, Wire, answered, calls, handed, sandbox, sdk
from twilio_world import (
    ACCOUNT,
    CONTENT,
    CREDENTIALS,
    DELIVERY,
    ID,
    KEY,
    MOMENT,
    NUMBER,
    SERVICE,
    SETTINGS,
    TEMPLATE,
    TOKEN,
    sms,
    whatsapp,
)

SENDER = "+15005550006"
HOOK = "https://dispatcher.example/hooks/7"
CALLBACK = f"{HOOK}?organization_id=acme&notification_id={ID}"

NO_SECRET = b"Basic " + b64encode(f"{ACCOUNT}:".encode())


def refused(exchange: Exchange, **fields: Any) -> TwilioRestException:
    """What the SDK raises for a message with these fields."""
    given = {
        name: value for name, value in {"to": NUMBER, "from_": SENDER, "body": "Hello", **fields}.items() if value is not ...
    }
    with pytest.raises(TwilioRestException) as raised:
        sdk(exchange).messages.create(**given)
    return raised.value


def reported(exchange: Exchange, token: str = TOKEN) -> list[Feedback]:
    """What the dispatcher reads from the calls that are made now; all of them are rightly signed, as the SDK sees it."""
    found: list[Feedback] = []
    for call in calls(exchange):
        headers = {name.lower(): value for name, value in call.headers.items()}
        fields = dict(parse_qsl(call.body.decode(), keep_blank_values=True))
        assert RequestValidator(token).validate(call.url, fields, headers["x-twilio-signature"])
        request = WebhookRequest("POST", call.url, headers, call.body)
        read = TWILIO_FEEDBACK.read(request, SETTINGS, {**CREDENTIALS, "auth_token": token}, NOW, {})
        assert not isinstance(read, Problem)
        found += read
    return found


# --- by Twilio's own client ---------------------------------------------------------------------------------


def test_the_sdk_sends_a_text() -> None:
    exchange = sandbox()
    message = sdk(exchange).messages.create(
        to=NUMBER, from_=SENDER, body="Grüße & mehr", status_callback=CALLBACK, validity_period=60, smart_encoded=True
    )

    assert message.sid is not None
    assert (message.sid[:2], len(message.sid), message.status) == ("SM", 34, "queued")
    assert (message.to, message.from_, message.body, message.error_code) == (NUMBER, SENDER, "Grüße & mehr", None)
    assert message.date_created is not None
    assert message.date_created.timestamp() == NOW
    assert exchange.ledger.effects(ID) == 1
    assert dict(exchange.ledger.organizations.items()) == {"acme": 1}
    assert exchange.ledger.recent[-1].message_id == message.sid


def test_the_sdk_sends_through_a_service_and_on_whatsapp() -> None:
    exchange = sandbox()
    through = sdk(exchange, KEY, "secret").messages.create(to=NUMBER, messaging_service_sid=SERVICE, body="Hello")
    template = sdk(exchange).messages.create(
        to=f"whatsapp:{NUMBER}", from_=f"whatsapp:{SENDER}", content_sid=CONTENT, content_variables='{"1": "Ann"}'
    )

    assert (through.status, through.from_, through.messaging_service_sid) == ("accepted", None, SERVICE)
    assert template.to == f"whatsapp:{NUMBER}"
    assert exchange.ledger.accepted == 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": ""}, 21604),
        ({"to": "12"}, 21211),
        ({"to": f"rcs:{NUMBER}"}, 21211),
        ({"from_": ...}, 21603),
        ({"from_": "+12"}, 21212),
        ({"from_": ..., "messaging_service_sid": "MG1"}, 21705),
        ({"to": f"whatsapp:{NUMBER}"}, 21910),
        ({"from_": f"whatsapp:{SENDER}"}, 21910),
        ({"to": f"whatsapp:{NUMBER}", "from_": "whatsapp:Acme"}, 21212),
        ({"body": ...}, 21619),
        ({"body": "x" * 1601}, 21617),
        ({"media_url": [f"https://a.example/{n}" for n in range(11)]}, 21623),
        ({"content_sid": "HX1"}, 21655),
        ({"content_variables": "{}"}, 21654),
        ({"content_sid": CONTENT, "content_variables": "[]"}, 21656),
        ({"content_sid": CONTENT, "content_variables": '{"1": 1}'}, 21656),
        ({"content_sid": CONTENT, "content_variables": "{"}, 21656),
        ({"status_callback": "https://a_b.example"}, 21609),
        ({"status_callback": "nonsense"}, 21609),
        ({"status_callback": "https://[::1/"}, 21609),
        ({"status_callback": "https://a.example/" + "x" * 4000}, 21609),
        ({"validity_period": 0}, 20001),
        ({"validity_period": 36_001}, 20001),
        ({"smart_encoded": "maybe"}, 20001),
    ],
)
def test_a_rule_that_is_broken_is_told_in_twilios_words(fields: dict[str, Any], code: int) -> None:
    exchange = sandbox()
    error = refused(exchange, **fields)

    assert (error.code, error.status) == (code, 400)
    assert exchange.ledger.accepted == 0


@pytest.mark.parametrize("user", ["AC" + "0" * 32, "SK1", ""])
def test_only_the_account_and_its_keys_are_let_in(user: str) -> None:
    client = Client(user, "secret", ACCOUNT, http_client=Wire(sandbox()), environment={"none": ""})
    with pytest.raises(TwilioRestException) as raised:
        client.messages.create(to=NUMBER, from_=SENDER, body="x")

    assert (raised.value.code, raised.value.status) == (20003, 401)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        (b"POST", b"/2010-04-01/Accounts/AC1/Messages.json", {}, 404, 20404),
        (b"POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json".encode(), {b"authorization": b""}, 401, 20003),
        (b"POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json".encode(), {b"authorization": b"Basic ?"}, 401, 20003),
        (b"POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json".encode(), {b"authorization": NO_SECRET}, 401, 20003),
        (b"GET", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json".encode(), {}, 405, 20004),
        (b"POST", f"/2010-04-01/Accounts/{ACCOUNT}.json".encode(), {}, 405, 20004),
        (b"POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json".encode(), {b"content-type": b"application/json"}, 400, 20001),
    ],
)
def test_what_is_no_message_is_refused(method: bytes, path: bytes, headers: dict[bytes, bytes], status: int, code: int) -> None:
    right = dict(sms().request(DELIVERY, MOMENT).headers)
    answer = sandbox().handle(Request(method, path, {**right, **headers}, b"\xff=1"), NOW).answer

    assert answer is not None
    document = orjson.loads(answer.body)
    assert (answer.status, document["status"], document["code"]) == (status, status, code)
    assert document["more_info"].endswith(str(code))


def test_the_sdk_and_the_probe_find_the_account_active() -> None:
    exchange = sandbox()
    key = {"account_sid": ACCOUNT, "api_key_sid": KEY, "api_key_secret": "hush"}

    assert sdk(exchange).api.accounts(ACCOUNT).fetch().status == "active"
    for bound in (sms(), sms(key)):
        assert bound.probed(answered(exchange, bound.probe(MOMENT)), NOW).good


def test_a_busy_account_is_told_so() -> None:
    exchange = sandbox(rate_limit_per_s=1)
    sdk(exchange).messages.create(to=NUMBER, from_=SENDER, body="1")

    assert (refused(exchange).code, refused(exchange).status) == (20429, 429)


# --- by the dispatcher --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digits", "kind"),
    [
        ("0000", OutcomeClass.DELIVERED),
        ("0001", OutcomeClass.SUPPRESS),
        ("0002", OutcomeClass.HARD),
        ("0003", OutcomeClass.HARD),
        ("0004", OutcomeClass.SUPPRESS),
        ("0009", OutcomeClass.SUPPRESS),
        ("0020", OutcomeClass.SOFT),
        ("0021", OutcomeClass.SOFT),
        ("0022", OutcomeClass.RATE_LIMITED),
        ("0023", OutcomeClass.MISCONFIGURED),
        ("0024", OutcomeClass.MISCONFIGURED),
        ("0029", OutcomeClass.DELIVERED),
        ("0030", OutcomeClass.RATE_LIMITED),
        ("0031", OutcomeClass.HARD),
        ("0032", OutcomeClass.HARD),
        ("0033", OutcomeClass.MISCONFIGURED),
        ("0034", OutcomeClass.RATE_LIMITED),
        ("4711", OutcomeClass.DELIVERED),
    ],
)
@pytest.mark.parametrize("channel", [Channel.SMS, Channel.WHATSAPP])
def test_a_magic_number_ends_an_attempt_in_its_way(digits: str, kind: OutcomeClass, channel: Channel) -> None:
    bound = sms() if channel is Channel.SMS else whatsapp()
    request = bound.request(evolve(DELIVERY, recipient=MAGIC + digits), MOMENT)
    outcome = bound.classify(answered(sandbox(), request), NOW)

    assert outcome.kind is kind
    assert (outcome.scope is RateScope.RECIPIENT) == (digits == "0030")
    assert (outcome.provider_message_id is not None) == (kind is OutcomeClass.DELIVERED)


@pytest.mark.parametrize("digits", ["0025", "0026", "0027", "0028"])
def test_a_magic_number_may_get_no_answer(digits: str) -> None:
    request = sms().request(evolve(DELIVERY, recipient=MAGIC + digits), MOMENT)

    assert handed(sandbox(), request).answer is None


@pytest.mark.parametrize(("digits", "times"), [("0020", 2), ("0022", 1), ("0030", 1)])
def test_some_tricks_are_played_for_a_while_only(digits: str, times: int) -> None:
    exchange, bound = sandbox(), sms()
    request = bound.request(evolve(DELIVERY, recipient=MAGIC + digits), MOMENT)
    kinds = [bound.classify(answered(exchange, request), NOW).kind for _ in range(times + 1)]

    assert [kind is OutcomeClass.DELIVERED for kind in kinds] == [False] * times + [True]


def test_magic_can_be_switched_off() -> None:
    request = sms().request(evolve(DELIVERY, recipient=MAGIC + "0001"), MOMENT)

    assert answered(sandbox(magic_recipients=False), request).status == 201


def test_a_template_of_ours_is_one_that_twilio_takes() -> None:
    bound = whatsapp(content_sids={"order_update": {"en_US": CONTENT}}, messaging_service_sid=SERVICE, from_number=None)
    request = bound.request(evolve(DELIVERY, channel=Channel.WHATSAPP, payload={"template": TEMPLATE}), MOMENT)

    assert answered(sandbox(), request).status == 201


def test_without_a_callback_the_key_names_the_notification() -> None:
    exchange = sandbox(honour_idempotency_keys=True)
    first, again = (answered(exchange, sms().request(DELIVERY, MOMENT)) for _ in range(2))

    assert exchange.ledger.effects(ID) == 1
    assert exchange.ledger.replayed == 1
    assert orjson.loads(first.body)["sid"] == orjson.loads(again.body)["sid"]


def test_the_table_can_be_asked_for() -> None:
    answer = Control(sandbox(), dict, {}, b"").answer(Request(b"GET", b"/_sandbox/magic", {}, b""))

    text = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()

    assert orjson.loads(answer.body)["+15005550001"] == TABLE["0001"].explanation
    assert [digits for digits, row in TABLE.items() if f"| `{MAGIC}{digits}` | {row.explanation} |" not in text] == []
    assert magic_phone(NUMBER) is None


# --- reports ------------------------------------------------------------------------------------------------


def sent(exchange: Exchange, channel: Channel = Channel.SMS, number: str = NUMBER, **settings: Any) -> None:
    bound = (sms if channel is Channel.SMS else whatsapp)(status_callback_url=HOOK, **settings)
    answered(exchange, bound.request(evolve(DELIVERY, recipient=number), MOMENT))


@pytest.mark.parametrize(
    ("digits", "on_sms", "on_whatsapp"),
    [
        ("0000", "sent delivered", "sent delivered"),
        ("0010", "sent soft_bounced", "sent soft_bounced"),
        ("0011", "sent invalid", "invalid"),
        ("0012", "sent invalid", "invalid"),
        ("0013", "sent refused", "refused"),
        ("0014", "unsubscribed refused", "unsubscribed refused"),
        ("0015", "sent delivered", "sent delivered read"),
        ("0016", "sent delivered unsubscribed", "sent delivered unsubscribed"),
        ("0017", "", ""),
        ("0019", "sent delivered unsubscribed", "sent delivered unsubscribed"),
        ("4711", "sent delivered", "sent delivered"),
    ],
)
def test_what_becomes_of_a_message_is_reported_to_its_callback(digits: str, on_sms: str, on_whatsapp: str) -> None:
    for channel, kinds in ((Channel.SMS, on_sms), (Channel.WHATSAPP, on_whatsapp)):
        exchange = sandbox()
        sent(exchange, channel, MAGIC + digits)
        found = reported(exchange)

        assert [str(one.kind) for one in found] == kinds.split()
        assert {one.recipient for one in found} <= {MAGIC + digits}
        assert len({one.event_id for one in found}) == len(found)
        assert all((one.notification_id == ID) == (one.code != "stop_received") for one in found)


def test_the_late_number_is_reported_late() -> None:
    exchange = sandbox()
    sent(exchange, number=MAGIC + "0018")

    assert calls(exchange, NOW + 4) == []
    assert len(calls(exchange, NOW + 5)) == 2


def test_whoever_says_stop_is_refused_from_then_on() -> None:
    exchange = sandbox()
    sent(exchange)
    assert exchange.reporting.again(ID, Fate.UNSUBSCRIBED, exchange.behaviour, NOW)
    stop = [one for one in reported(exchange) if one.kind is FeedbackKind.UNSUBSCRIBED]

    assert [(one.recipient, one.code) for one in stop] == [(NUMBER, "stop_received")]
    assert refused(exchange).code == 21610
    assert sdk(exchange).messages.create(to=NUMBER, from_="+15005550077", body="x").sid
    assert sdk(exchange).messages.create(to="+15551230001", from_=SENDER, body="x").sid
    assert sdk(sandbox()).messages.create(to=NUMBER, from_=SENDER, body="x").sid  # another sandbox knows nothing of it


def test_an_answer_goes_to_the_address_without_our_ids() -> None:
    exchange = sandbox()
    sent(exchange, number=MAGIC + "0016")
    *states, stop = calls(exchange)

    assert stop.url == HOOK
    assert all(f"notification_id={ID}" in call.url and "#" not in call.url for call in states)


def test_an_account_seen_with_keys_only_signs_with_a_word() -> None:
    exchange = sandbox()
    key = {"account_sid": ACCOUNT, "api_key_sid": KEY, "api_key_secret": "hush"}
    request = sms(key, status_callback_url=HOOK).request(DELIVERY, MOMENT)
    answered(exchange, request)

    assert len(reported(exchange, UNSEEN)) == 2
    sent(exchange)
    answered(exchange, request)
    assert len(reported(exchange, TOKEN)) == 4


def test_a_hook_serves_who_names_none() -> None:
    exchange = sandbox()
    exchange.reporting.hook("twilio", HOOK, None, {"auth_token": "own"}, NOW)
    answered(exchange, sms().request(DELIVERY, MOMENT))

    assert len(reported(exchange, "own")) == 2
    with pytest.raises(ValueError, match="auth_token"):
        exchange.reporting.hook("twilio", HOOK, None, {"token": "own"}, NOW)


def test_a_repetition_is_signed_alike() -> None:
    """Twilio signs no time, so there is nothing else to tell it by than the ids."""
    exchange = sandbox()
    sent(exchange)
    parcel, _ = exchange.reporting.due(exchange.behaviour, NOW)
    first, again = parcel.callback(NOW), parcel.callback(NOW + 60)

    assert isinstance(first, Callback)
    assert first == again
