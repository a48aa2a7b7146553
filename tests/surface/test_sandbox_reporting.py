from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import orjson
import pytest
import trio
from sendgrid.helpers.eventwebhook import EventWebhook

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.callbacks import Callback
from dispatcher_sandbox.control import Control
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.reporting import Parcel, Reporting
from dispatcher_sandbox.sandbox import open_sandbox
from dispatcher_sandbox.simulators import SIMULATORS
from http_peer import OK, Peer, peers
from running import until
from sandbox_mails import KEY, NOTIFICATION, mail, send

URL = "http://127.0.0.1:9/webhook"
CAPTURED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


def sandbox(**settings: Any) -> Exchange:
    exchange = Exchange(SIMULATORS, Ledger(), Behaviour(**settings), 0)
    exchange.reporting.hook("sendgrid", URL, None, {}, 0.0)
    return exchange


def leaving(exchange: Exchange, now_s: float) -> list[Parcel]:
    return exchange.reporting.due(exchange.behaviour, now_s)


def called(parcel: Parcel, now_s: float = 1000.0) -> Callback:
    callback = parcel.callback(now_s)
    assert callback is not None
    return callback


def names(parcels: list[Parcel]) -> list[str]:
    return [event["event"] for parcel in parcels for event in parcel.events]


@pytest.mark.parametrize(
    ("recipient", "events"),
    [
        ("hard-bounce@sandbox.test", ["processed", "bounce"]),
        ("soft-bounce@sandbox.test", ["processed", "deferred", "bounce"]),
        ("blocked@sandbox.test", ["processed", "bounce"]),
        ("dropped@sandbox.test", ["dropped"]),
        ("deferred@sandbox.test", ["processed", "deferred", "delivered"]),
        ("complaint@sandbox.test", ["processed", "delivered", "spamreport"]),
        ("unsubscribe@sandbox.test", ["processed", "delivered", "unsubscribe"]),
        ("read@sandbox.test", ["processed", "delivered", "open"]),
        ("no-news@sandbox.test", []),
        ("delivered@sandbox.test", ["processed", "delivered"]),
        ("somebody@example.com", ["processed", "delivered"]),
    ],
)
def test_a_magic_recipient_decides_what_is_reported_after_the_message_was_accepted(recipient: str, events: list[str]) -> None:
    exchange = sandbox()

    reply = exchange.handle(send(mail(recipient)), 5.0)

    assert reply.answer is not None
    assert reply.answer.status == 202
    assert names(leaving(exchange, 5.0)) == events


def test_nothing_is_reported_without_a_hook_or_of_a_message_that_took_no_effect() -> None:
    exchange = sandbox()
    exchange.handle(send(mail("bounce@sandbox.test")), 5.0)
    exchange.reporting.unhook("sendgrid")
    exchange.handle(send(mail()), 5.0)

    assert leaving(exchange, 1e9) == []


def test_an_accounts_own_hook_wins_over_the_general_one() -> None:
    exchange = sandbox()
    exchange.reporting.hook("sendgrid", "http://127.0.0.1:9/own", KEY, {}, 0.0)

    exchange.handle(send(mail()), 5.0)
    exchange.handle(send(mail(), authorization="Bearer SG.another"), 5.0)

    assert [parcel.hook.url for parcel in leaving(exchange, 5.0)] == ["http://127.0.0.1:9/own", URL]


def test_fates_come_in_the_shares_asked_for_and_the_ledger_knows_them() -> None:
    exchange = sandbox(fate_mix={"bounced": 0.25, "complained": 0.25})

    for number in range(400):
        exchange.handle(send(mail(notification_id=str(number))), 5.0)

    fates = Counter(exchange.ledger.fates.values())
    assert sum(fates.values()) == 400
    assert 60 < fates["bounced"] < 140
    assert 60 < fates["complained"] < 140
    assert exchange.ledger.summary()["fates"] == dict(sorted(fates.items()))


def test_delay_and_lateness_put_events_off_and_early_holds_the_answer_back() -> None:
    exchange = sandbox(webhook_delay_s=2.0, webhook_early_s=3.0)
    reply = exchange.handle(send(mail("late-30@sandbox.test")), 5.0)

    assert reply.delay_s == 3.0
    assert leaving(exchange, 36.9) == []
    assert names(leaving(exchange, 37.0)) == ["processed", "delivered"]


def test_doubled_and_shuffled_events_are_the_same_events() -> None:
    exchange = sandbox(webhook_delay_s=2.0, webhook_duplicate_share=1.0, webhook_shuffle=True, webhook_events_max=1)
    for number in range(20):
        exchange.handle(send(mail(notification_id=str(number))), 5.0)

    parcels = leaving(exchange, 20.0)

    ids = Counter(event["sg_event_id"] for parcel in parcels for event in parcel.events)
    assert len(parcels) == 80
    assert len(ids) == 40
    assert set(ids.values()) == {2}
    assert [parcel.events[0]["notification_id"] for parcel in parcels] != sorted(str(number // 4) for number in range(80))


def test_events_of_one_hook_share_a_call_up_to_the_limit() -> None:
    exchange = sandbox(webhook_events_max=3)
    for _ in range(2):
        exchange.handle(send(mail()), 5.0)

    assert [len(parcel.events) for parcel in leaving(exchange, 5.0)] == [3, 1]


def test_what_is_not_acknowledged_is_repeated_with_growing_gaps_and_given_up() -> None:
    exchange = sandbox(webhook_attempts_max=3)
    exchange.handle(send(mail()), 0.0)
    now_s, gaps = 0.0, []

    while parcels := leaving(exchange, now_s):
        exchange.reporting.answered(parcels[0], False, exchange.behaviour, now_s)
        due_s = exchange.reporting.next_due_s()
        if due_s is not None:
            gaps.append(due_s - now_s)
            now_s = due_s

    assert len(gaps) == 2
    assert 0.1 <= gaps[0] <= 0.2 <= gaps[1] <= 0.4
    counts = exchange.ledger.webhooks
    assert (counts["sent"], counts["retried"], counts["failed"], counts["acknowledged"]) == (3, 2, 1, 0)


def test_what_does_not_fit_is_lost_and_counted() -> None:
    reporting = Reporting(SIMULATORS, ledger := Ledger(), 0, pending_max=1)
    reporting.hook("sendgrid", URL, None, {}, 0.0)

    reporting.accepted("sendgrid", send(mail()), "m", Behaviour(), 0.0)

    assert (reporting.pending, ledger.webhooks["lost"]) == (1, 1)


def test_sendgrids_own_helper_verifies_what_is_signed_and_nothing_else() -> None:
    exchange = sandbox()
    shown = exchange.reporting.hook("sendgrid", URL, None, {}, 0.0)
    exchange.handle(send(mail("hard-bounce@sandbox.test")), 5.0)
    callback = called(leaving(exchange, 5.0)[0])
    helper = EventWebhook()
    key = helper.convert_public_key_to_ecdsa(shown["public_key"])
    signature = callback.headers["X-Twilio-Email-Event-Webhook-Signature"]
    timestamp = callback.headers["X-Twilio-Email-Event-Webhook-Timestamp"]

    assert helper.verify_signature(callback.body.decode(), signature, timestamp, key)
    assert not helper.verify_signature(callback.body.decode() + " ", signature, timestamp, key)
    assert not helper.verify_signature(callback.body.decode(), signature, "999", key)


def test_an_event_carries_custom_arguments_at_its_top_level_and_the_requests_message_id() -> None:
    exchange = sandbox()
    reply = exchange.handle(send(mail("hard-bounce@sandbox.test")), 5.0)
    bounce = orjson.loads(called(leaving(exchange, 5.0)[0]).body)[1]

    assert reply.answer is not None
    assert bounce["notification_id"] == NOTIFICATION
    assert bounce["sg_message_id"].startswith(reply.answer.headers.decode().split("X-Message-Id: ")[1].strip() + ".")
    assert (bounce["event"], bounce["type"], bounce["status"], bounce["email"], bounce["timestamp"]) == (
        "bounce", "bounce", "5.1.1", "hard-bounce@sandbox.test", 6,
    )  # fmt: skip


def test_more_can_be_reported_of_a_message_later() -> None:
    exchange = sandbox()
    exchange.handle(send(mail()), 5.0)
    leaving(exchange, 5.0)

    assert exchange.reporting.again(NOTIFICATION, Fate.COMPLAINED, exchange.behaviour, 9.0)
    assert not exchange.reporting.again("unknown", Fate.COMPLAINED, exchange.behaviour, 9.0)
    assert "spamreport" in names(leaving(exchange, 9.0))


def ask(exchange: Exchange, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    request = Request(method.encode(), f"/_sandbox{path}".encode(), {}, b"" if body is None else orjson.dumps(body))
    answer = Control(exchange, dict, {}, b"", lambda: 5.0).answer(request)
    return answer.status, orjson.loads(answer.body) if answer.body else None


def test_hooks_are_set_shown_without_secrets_and_removed_over_the_control_api() -> None:
    exchange = sandbox()
    exchange.reporting.unhook("sendgrid")

    status, shown = ask(exchange, "PUT", "/webhooks/sendgrid", {"url": URL, "account": KEY})
    assert (status, list(shown)) == (200, ["public_key"])
    exchange.handle(send(mail()), 5.0)
    assert ask(exchange, "POST", "/webhooks/sendgrid/reports", {"notification_id": NOTIFICATION, "fate": "read"}) == (204, None)
    document = ask(exchange, "GET", "/webhooks")[1]
    assert document["hooks"] == [{"provider": "sendgrid", "url": URL, "account": KEY}]
    assert (document["pending"], document["events"]) == (5, 5)
    assert ask(exchange, "DELETE", "/webhooks/sendgrid") == (204, None)
    assert ask(exchange, "GET", "/webhooks")[1]["hooks"] == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/webhooks/nobody", {"url": URL}, 404),
        ("/webhooks/sendgrid", {}, 422),
        ("/webhooks/sendgrid", {"url": "ftp://x"}, 422),
        ("/webhooks/sendgrid", {"url": URL, "account": 1}, 422),
        ("/webhooks/sendgrid", {"url": URL, "secrets": {"private_key": "no"}}, 422),
        ("/webhooks/sendgrid", {"url": URL, "secrets": {"other": "no"}}, 422),
    ],
)
def test_a_wrong_hook_is_refused(path: str, body: Any, status: int) -> None:
    assert ask(sandbox(), "PUT", path, body)[0] == status


@pytest.mark.parametrize(
    "settings", [{"fate_mix": {"no": 0.1}}, {"fate_mix": {"bounced": 0.6, "read": 0.6}}, {"webhook_events_max": 1.5}]
)
def test_wrong_settings_of_reports_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Behaviour(**settings)


def test_chance_has_the_same_say_about_requests_with_and_without_hooks() -> None:
    with_hook, without = sandbox(error_mix={503: 0.5}), sandbox(error_mix={503: 0.5})
    without.reporting.unhook("sendgrid")

    for exchange in (with_hook, without):
        for number in range(50):
            exchange.handle(send(mail(notification_id=str(number))), 5.0)

    assert dict(with_hook.ledger.notifications.items()) == dict(without.ledger.notifications.items())


def test_a_behaviour_with_fates_reads_back_from_its_document() -> None:
    behaviour = Behaviour(fate_mix={"read": 0.5})

    assert Behaviour(**behaviour.document()) == attrs.evolve(behaviour)


async def test_calls_are_made_over_http_until_they_are_acknowledged() -> None:
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        while (received := await peer.request()) is not None:
            bodies.append(received.body)
            await peer.send(CAPTURED if len(bodies) == 1 else OK)

    async with peers(script) as receiver, open_sandbox() as box:
        box.hook("sendgrid", f"http://127.0.0.1:{receiver.origin.port}/webhook")
        body = orjson.dumps(mail())
        async with await trio.open_tcp_stream("127.0.0.1", int(box.url.rpartition(":")[2])) as stream:
            await stream.send_all(
                b"POST /v3/mail/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SG.a\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            await until(lambda: box.ledger.webhooks["acknowledged"] == 1)

    assert bodies[0] == bodies[1]
    assert [event["event"] for event in orjson.loads(bodies[1])] == ["processed", "delivered"]
    assert box.reports_pending == 0
