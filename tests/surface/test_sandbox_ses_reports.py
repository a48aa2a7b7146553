"""The sandbox's SES reports, read by what reads the real ones: neither knows anything of the other."""

from __future__ import annotations

import time
from typing import Any

import httpx
import orjson
import pytest

from dispatcher.feedback.feedback import Feedback, FeedbackKind, Fetch, WebhookRequest
from dispatcher.feedback.ses import SES_FEEDBACK
from dispatcher.problems import Problem
from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.callbacks import Callback
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.reporting import Parcel
from dispatcher_sandbox.sandbox import open_sandbox
from dispatcher_sandbox.ses.events import TOPIC_ARN
from dispatcher_sandbox.simulators import SIMULATORS
from http_peer import OK, Peer, peers
from running import until
from ses_mails import KEY_ID, NOTIFICATION, ORIGIN, bulk, entry, mail, send

URL = "http://127.0.0.1:9/webhook"
NOW_S = float(int(time.time()))
"""The sandbox's certificate is valid now."""
SETTINGS = {"region": "eu-central-1", "from_email": "tickets@example.org", "base_url": ORIGIN, "sns_topic_arn": TOPIC_ARN}
K = FeedbackKind


def sandbox(secrets: dict[str, str] | None = None, **settings: Any) -> Exchange:
    """One with a hook whose subscription has left already."""
    exchange = Exchange(SIMULATORS, Ledger(), Behaviour(**settings), 0)
    exchange.reporting.hook("ses", URL, None, {"origin": ORIGIN, **(secrets or {})}, NOW_S)
    (opening,) = leaving(exchange, NOW_S)
    assert opening.events == ()
    return exchange


def leaving(exchange: Exchange, now_s: float) -> list[Parcel]:
    return exchange.reporting.due(exchange.behaviour, now_s)


def sent(exchange: Exchange, document: object) -> None:
    answer = exchange.handle(send(document, NOW_S), NOW_S).answer
    assert answer is not None
    assert answer.status == 200


def called(parcel: Parcel, now_s: float = NOW_S) -> Callback:
    callback = parcel.callback(now_s)
    assert callback is not None
    return callback


def fetched(exchange: Exchange, url: str) -> bytes:
    """What the sandbox serves there."""
    answer = exchange.handle(Request(b"GET", url.removeprefix(ORIGIN).encode(), {b"host": b"127.0.0.1:8025"}, b""), NOW_S).answer
    assert answer is not None
    assert answer.status == 200
    return answer.body


def read(exchange: Exchange, callback: Callback, now_s: float = NOW_S, **settings: Any) -> Any:
    """A call, read with the certificate that it asks for."""
    request = WebhookRequest(callback.method, callback.url, callback.headers, callback.body)
    wanted = SES_FEEDBACK.read(request, {**SETTINGS, **settings}, {}, now_s, {})
    if not (isinstance(wanted, Fetch) and wanted.again):
        return wanted
    return SES_FEEDBACK.read(request, {**SETTINGS, **settings}, {}, now_s, {wanted.url: fetched(exchange, wanted.url)})


def heard(exchange: Exchange) -> list[Feedback]:
    found: list[Feedback] = []
    for parcel in leaving(exchange, NOW_S + 60):
        records = read(exchange, called(parcel))
        assert isinstance(records, list)
        found += records
    return found


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    ("recipient", "kinds"),
    [
        ("somebody@example.com", [K.DELIVERED]),
        ("hard-bounce@sandbox.test", [K.BOUNCED]),
        ("soft-bounce@sandbox.test", [K.SOFT_BOUNCED]),
        ("blocked@sandbox.test", [K.REFUSED]),
        ("dropped@sandbox.test", [K.BOUNCED]),
        ("deferred@sandbox.test", [K.DEFERRED, K.DELIVERED]),
        ("complaint@sandbox.test", [K.DELIVERED, K.COMPLAINED]),
        ("unsubscribe@sandbox.test", [K.DELIVERED, K.UNSUBSCRIBED]),
        ("read@sandbox.test", [K.DELIVERED, K.READ]),
        ("no-news@sandbox.test", []),
        ("success@simulator.amazonses.com", [K.DELIVERED]),
        ("bounce+label@simulator.amazonses.com", [K.BOUNCED]),
        ("ooto@simulator.amazonses.com", [K.SOFT_BOUNCED]),
        ("complaint@simulator.amazonses.com", [K.DELIVERED, K.COMPLAINED]),
        ("suppressionlist@simulator.amazonses.com", [K.BOUNCED]),
    ],
)
def test_a_fate_is_heard_as_what_it_is(recipient: str, kinds: list[FeedbackKind], version: str) -> None:
    exchange = sandbox({"signature_version": version})
    sent(exchange, mail(recipient))
    found = heard(exchange)

    assert [one.kind for one in found] == kinds
    assert {one.recipient for one in found} <= {recipient}
    assert {one.notification_id for one in found} <= {f"{NOTIFICATION}1"}
    assert {one.provider_message_id for one in found} <= {exchange.ledger.recent[-1].message_id}


def test_entries_are_reported_one_by_one_and_refused_ones_never() -> None:
    exchange = sandbox()
    sent(exchange, bulk(entry("a@example.com", 1), entry("bounce@sandbox.test", 2), entry("hard-bounce@sandbox.test", 3)))
    found = heard(exchange)

    assert [(one.notification_id, one.kind) for one in found] == [
        (f"{NOTIFICATION}1", K.DELIVERED),
        (f"{NOTIFICATION}3", K.BOUNCED),
    ]
    assert [str(one.provider_message_id)[-6:] for one in found] == ["000000", "000002"]


def test_notifications_of_an_identity_carry_no_tags_and_are_known_by_the_mails_id() -> None:
    exchange = sandbox({"form": "notifications"})
    sent(exchange, mail("complaint@sandbox.test"))
    delivered, complained = heard(exchange)

    assert (delivered.kind, complained.kind) == (K.DELIVERED, K.COMPLAINED)
    assert delivered.notification_id is None
    assert delivered.provider_message_id == exchange.ledger.recent[-1].message_id


def test_doubles_and_repetitions_are_the_same_report_and_hours_later_a_replay() -> None:
    exchange = sandbox(webhook_duplicate_share=1.0)
    sent(exchange, mail())
    parcels = leaving(exchange, NOW_S + 60)
    repeated = called(parcels[1], NOW_S + 3000)
    event_ids = [one.event_id for parcel in parcels for one in read(exchange, called(parcel))]

    assert len(event_ids) == 2
    assert len(set(event_ids)) == 1
    assert isinstance(read(exchange, repeated, NOW_S + 3000), list)
    assert isinstance(read(exchange, repeated, NOW_S + 4000), Problem)


def test_a_new_hook_is_confirmed_by_a_visit_that_the_ledger_counts() -> None:
    exchange = Exchange(SIMULATORS, Ledger(), Behaviour(), 0)
    shown = exchange.reporting.hook("ses", URL, None, {"origin": ORIGIN}, NOW_S)
    (opening,) = leaving(exchange, NOW_S)
    visit = read(exchange, called(opening))

    assert shown == {"topic_arn": TOPIC_ARN}
    assert isinstance(visit, Fetch)
    assert not visit.again
    assert b"ConfirmSubscriptionResponse" in fetched(exchange, visit.url)
    assert exchange.ledger.webhooks["confirmed"] == 1


@pytest.mark.parametrize(
    "query", ["", "?Action=ConfirmSubscription", "?Action=ConfirmSubscription&Token=guessed", f"?Token={'a' * 64}"]
)
def test_a_visit_without_the_token_confirms_nothing(query: str) -> None:
    exchange = sandbox()
    answer = exchange.handle(Request(b"GET", f"/v2/email/sandbox/confirm{query}".encode(), {}, b""), NOW_S).answer

    assert answer is not None
    assert answer.status in (400, 404)
    assert exchange.ledger.webhooks["confirmed"] == 0


def test_another_topic_another_account_and_another_origin_are_not_believed() -> None:
    exchange = sandbox()
    sent(exchange, mail())
    call = called(leaving(exchange, NOW_S + 60)[-1])

    others: list[dict[str, Any]] = [
        {"sns_topic_arn": TOPIC_ARN + "x"},
        {"account_id": "999999999999"},
        {"base_url": "http://127.0.0.1:1"},
        {"base_url": None},
    ]
    for settings in others:
        assert isinstance(read(exchange, call, **settings), Problem)


def test_a_body_changed_on_its_way_is_not_believed() -> None:
    exchange = sandbox()
    sent(exchange, mail("hard-bounce@sandbox.test"))
    call = called(leaving(exchange, NOW_S + 60)[-1])
    document = orjson.loads(call.body)
    document["Message"] = document["Message"].replace("hard-bounce", "somebody")
    changed = Callback(call.url, call.headers, orjson.dumps(document))

    assert isinstance(read(exchange, call), list)
    assert isinstance(read(exchange, changed), Problem)


@pytest.mark.parametrize(
    "secrets",
    [
        {"origin": ""},
        {"origin": "ftp://x"},
        {"origin": ORIGIN + "/"},
        {"topic_arn": "reports"},
        {"signature_version": "3"},
        {"form": "letters"},
        {"private_key": "x"},
    ],
)
def test_a_wrong_hook_is_refused(secrets: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(secrets))):
        Exchange(SIMULATORS, Ledger(), Behaviour(), 0).reporting.hook("ses", URL, None, {"origin": ORIGIN, **secrets}, NOW_S)


def test_each_access_key_may_have_a_hook_of_its_own() -> None:
    exchange = sandbox()
    exchange.reporting.hook("ses", URL + "/own", KEY_ID, {"origin": ORIGIN, "topic_arn": TOPIC_ARN + "-own"}, NOW_S)
    leaving(exchange, NOW_S)
    sent(exchange, mail())

    assert {called(parcel).url for parcel in leaving(exchange, NOW_S + 60)} == {URL + "/own"}


async def test_over_http_the_handshake_comes_first_and_reports_follow() -> None:
    received: list[bytes] = []

    async def script(peer: Peer) -> None:
        while (call := await peer.request()) is not None:
            received.append(call.body)
            await peer.send(OK)

    async with peers(script) as receiver, open_sandbox() as box, httpx.AsyncClient() as client:
        box.hook("ses", f"http://127.0.0.1:{receiver.origin.port}/webhook", origin=box.url, signature_version="2")
        await until(lambda: len(received) == 1)
        opening = orjson.loads(received[0])
        certificate = await client.get(opening["SigningCertURL"])
        settings = {**SETTINGS, "base_url": box.url}
        call = WebhookRequest("POST", "http://x/webhook", {}, received[0])
        visit = SES_FEEDBACK.read(call, settings, {}, time.time(), {opening["SigningCertURL"]: certificate.content})
        assert isinstance(visit, Fetch)
        confirmed = await client.get(visit.url)
        request = send(mail("hard-bounce@sandbox.test"), time.time(), origin=box.url)
        headers = {name.decode(): value.decode() for name, value in request.headers.items()}
        await client.post(box.url + request.target.decode(), content=request.body, headers=headers)
        await until(lambda: len(received) == 3)
        assert confirmed.status_code == 200
        assert box.ledger.webhooks["confirmed"] == 1
        await until(lambda: box.ledger.webhooks["acknowledged"] == 3)
        assert box.report(f"{NOTIFICATION}1", Fate.COMPLAINED)
        await until(lambda: len(received) == 6)

    kinds = [orjson.loads(orjson.loads(body)["Message"])["eventType"] for body in received[1:]]
    assert sorted(kinds) == ["Bounce", "Complaint", "Delivery", "Send", "Send"]
