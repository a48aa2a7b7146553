"""Our provider and aioapns, both as clients of the simulated APNs: real HTTP/2, real TLS, tokens that are verified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from aioapns import APNs, NotificationRequest, PushType
from aioapns.common import NotificationResult
from aioapns.connection import APNsProductionClientProtocol
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from actors.io.h2 import H2Limits, H2Pool, open_h2_pool
from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent
from apple_keys import KEY_ID, TEAM_ID, apple_credentials, p8
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.apns import BoundApns, bind
from dispatcher.providers.provider import Moment
from dispatcher_sandbox.apns import device_token
from dispatcher_sandbox.certificates import authority
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox

TOPIC = "org.example.tickets"
DEVICE = "ab" * 32
ID = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")


def public_key(name: str = "") -> str:
    private = load_pem_private_key(p8(name).encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


KEYS = {f"{TEAM_ID}.{KEY_ID}": public_key()}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        sandbox.change(apns_keys=KEYS, apns_topics=(TOPIC,))
        yield sandbox


@asynccontextmanager
async def connected(sandbox: Sandbox, **limits: Any) -> AsyncIterator[tuple[H2Pool, BoundApns]]:
    """Our transport and provider."""
    async with open_h2_pool(limits=H2Limits(**limits), tls_context=authority().client_context()) as pool:
        yield pool, provider(sandbox)


def provider(sandbox: Sandbox, key: str = "", **settings: Any) -> BoundApns:
    given = {"topic": TOPIC, "base_url": sandbox.urls["apns"], **settings}
    credentials = {**apple_credentials(), "private_key": p8(key)}
    config = ProviderConfig("1", OrganizationId("acme"), Channel.PUSH, "apns", given, credentials, revision=1)
    return bind(config, {sandbox.urls["apns"]})


def delivery(trick: str = "", number: int = 0) -> Delivery:
    return Delivery(
        NotificationId(f"{ID[:-6]}{number:06x}"),
        OrganizationId("acme"),
        Channel.PUSH,
        device_token(trick) if trick else DEVICE,
        {"title": "Doors", "text": "They open at seven.", "data": {"seat": "B7"}},
        attempt=1,
        attempts_max=8,
        created_at_s=time.time(),
    )


async def send(pool: H2Pool, bound: BoundApns, one: Delivery) -> Outcome:
    """What becomes of one attempt, as a channel would see it."""
    try:
        response = await pool.exchange(bound.request(one, Moment(time.time(), Random(1).randbytes)), Deadlines())
    except ExchangeFailed as failure:
        return Outcome(OutcomeClass.SOFT if isinstance(failure, NotSent) else OutcomeClass.UNKNOWN, failure.code)
    return bound.classify(response, time.time())


async def send_all(pool: H2Pool, bound: BoundApns, deliveries: list[Delivery]) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}

    async def one(number: int) -> None:
        outcomes[number] = await send(pool, bound, deliveries[number])

    async with trio.open_nursery() as nursery:
        for number in range(len(deliveries)):
            nursery.start_soon(one, number)
    return [outcomes[number] for number in range(len(deliveries))]


# --- our provider -----------------------------------------------------------------------------------------------------------


async def test_a_notification_arrives_once_under_its_own_id(sandbox: Sandbox) -> None:
    async with connected(sandbox) as (pool, bound):
        outcome = await send(pool, bound, delivery())

    assert outcome == Outcome(OutcomeClass.DELIVERED, "accepted", delivery().id)
    assert sandbox.ledger.effects(delivery().id) == 1


async def test_what_apple_refuses_has_its_class(sandbox: Sandbox) -> None:
    expected = {
        "bad": (OutcomeClass.SUPPRESS, "bad_device_token"),
        "topic": (OutcomeClass.SUPPRESS, "device_token_not_for_topic"),
        "unregistered": (OutcomeClass.SUPPRESS, "unregistered"),
        "soft": (OutcomeClass.SOFT, "shutdown"),
        "stale": (OutcomeClass.SOFT, "provider_token_expired"),
        "rate-limited": (OutcomeClass.RATE_LIMITED, "too_many_for_device"),
        "updates": (OutcomeClass.RATE_LIMITED, "too_many_token_updates"),
        "forbidden": (OutcomeClass.MISCONFIGURED, "provider_token_invalid"),
        "drop": (OutcomeClass.UNKNOWN, "stream_reset"),
        "close": (OutcomeClass.UNKNOWN, "stream_reset"),
        "delivered": (OutcomeClass.DELIVERED, "accepted"),
    }
    async with connected(sandbox) as (pool, bound):
        outcomes = await send_all(pool, bound, [delivery(trick, number) for number, trick in enumerate(expected)])

    assert dict(zip(expected, [(outcome.kind, outcome.code) for outcome in outcomes], strict=True)) == expected
    assert outcomes[2].since_unix_s == 1_600_000_000.0
    assert sandbox.ledger.accepted == 2  # the one that was dropped took effect


@pytest.mark.parametrize(
    ("key", "settings", "good", "word"),
    [
        ("", {}, True, "accepts"),
        ("", {"push_type": "background"}, True, "accepts"),
        ("other", {}, False, "private_key"),
        ("", {"topic": "org.example.other"}, False, "topic"),
    ],
)
async def test_a_probe_says_what_is_wrong(sandbox: Sandbox, key: str, settings: dict[str, str], good: bool, word: str) -> None:
    bound = provider(sandbox, key, **settings)
    async with connected(sandbox) as (pool, _):
        response = await pool.exchange(bound.probe(Moment(time.time(), Random(1).randbytes)), Deadlines())

    probed = bound.probed(response, time.time())
    assert probed.good is good
    assert word in probed.words
    assert sandbox.ledger.accepted == 0


async def test_one_stream_until_the_first_acceptance_and_one_again_after_each_refusal(sandbox: Sandbox) -> None:
    sandbox.change(streams_max=50, streams_until_accepted=1, streams_after_refusal=1)
    mixed = [delivery("bad" if number % 4 == 0 else "", number) for number in range(60)]
    async with connected(sandbox, connections_per_account_max=1) as (pool, bound):
        outcomes = await send_all(pool, bound, mixed)
        again = [one for one, outcome in zip(mixed, outcomes, strict=True) if outcome.code == "stream_refused"]
        while again:  # those that met a limit we had not heard of yet were not looked at, and may go again
            outcomes = await send_all(pool, bound, again)
            again = [one for one, outcome in zip(again, outcomes, strict=True) if outcome.code == "stream_refused"]

        assert pool.statistics().opened_total == 1
    assert [sandbox.ledger.effects(one.id) for one in mixed] == [0 if number % 4 == 0 else 1 for number in range(60)]


async def test_connections_that_go_away_lose_nothing_and_double_nothing(sandbox: Sandbox) -> None:
    sandbox.change(streams_until_accepted=None, goaway_after=7)
    waiting = [delivery("", number) for number in range(50)]
    connections = 0
    async with connected(sandbox, connections_per_account_max=1) as (pool, bound):
        while waiting:
            outcomes = await send_all(pool, bound, waiting)
            assert {outcome.code for outcome in outcomes} <= {"accepted", "going_away"}
            waiting = [one for one, outcome in zip(waiting, outcomes, strict=True) if outcome.code != "accepted"]
        connections = pool.statistics().opened_total

    assert [sandbox.ledger.effects(delivery("", number).id) for number in range(50)] == [1] * 50
    assert connections >= 50 // 7


@pytest.mark.parametrize("outage", ["close", "unavailable"])
async def test_an_outage(sandbox: Sandbox, outage: str) -> None:
    sandbox.change(outage=outage)
    async with connected(sandbox) as (pool, bound):
        outcome = await send(pool, bound, delivery())

    expected = (OutcomeClass.SOFT, "service_unavailable") if outage == "unavailable" else (OutcomeClass.UNKNOWN, "closed")
    assert (outcome.kind, outcome.code) == expected
    assert sandbox.ledger.accepted == 0


async def test_a_silent_one_ends_with_our_deadline_and_late_answers_delay_nobody_else(sandbox: Sandbox) -> None:
    sandbox.change(streams_until_accepted=None)
    async with connected(sandbox) as (pool, bound), trio.open_nursery() as nursery:
        moment = Moment(time.time(), Random(1).randbytes)
        ended: list[str] = []

        async def call(trick: str, number: int) -> None:
            try:
                await pool.exchange(bound.request(delivery(trick, number), moment), Deadlines(read_s=0.5))
            except MaybeSent as failure:
                ended.append(failure.code)
            else:
                ended.append(trick)

        for number, trick in enumerate(("silent", "slow-20", "delivered")):
            nursery.start_soon(call, trick, number)

    assert ended == ["delivered", "timeout_read", "timeout_read"]


async def test_another_account_has_a_connection_of_its_own(sandbox: Sandbox) -> None:
    sandbox.change(apns_keys={**KEYS, "TEAMOTHERS.KEYOTHERS0": public_key("other")})
    config = {"team_id": "TEAMOTHERS", "key_id": "KEYOTHERS0", "private_key": p8("other")}
    other = bind(
        ProviderConfig(
            "2",
            OrganizationId("other"),
            Channel.PUSH,
            "apns",
            {"topic": TOPIC, "base_url": sandbox.urls["apns"]},
            config,
            revision=1,
        ),
        {sandbox.urls["apns"]},
    )
    async with connected(sandbox) as (pool, bound):
        outcomes = [await send(pool, one, evolve(delivery(), attempt=2)) for one in (bound, other, bound, other)]

        assert {outcome.code for outcome in outcomes} == {"accepted"}
        assert pool.statistics().opened_total == 2


# --- aioapns ----------------------------------------------------------------------------------------------------------------


def aioapns(sandbox: Sandbox, key: str, sends: list[NotificationRequest]) -> Callable[[], list[NotificationResult]]:
    """A whole life of that client, to be run in a thread of its own."""
    address = urlsplit(sandbox.urls["apns"])

    class Protocol(APNsProductionClientProtocol):
        APNS_SERVER = address.hostname or ""
        APNS_PORT = address.port or 0

    async def life() -> list[NotificationResult]:
        # It reads the key from a text as well as from a file.
        client = APNs(
            key=p8(key),
            key_id=KEY_ID,
            team_id=TEAM_ID,
            topic=TOPIC,
            max_connections=1,
            ssl_context=authority().client_context(),
            err_func=_ignore,
        )
        client.pool.protocol_class = Protocol
        try:
            return list(await asyncio.gather(*(client.send_notification(one) for one in sends)))
        finally:
            client.pool.close()
            await asyncio.sleep(0.05)

    return lambda: asyncio.run(life())


async def _ignore(_request: NotificationRequest, _result: NotificationResult) -> None:
    pass


def notification(trick: str = "", **fields: Any) -> NotificationRequest:
    message = {"aps": {"alert": {"body": "Doors"}}, "seat": "B7"}
    device = device_token(trick) if trick else DEVICE
    return NotificationRequest(device, message, push_type=PushType.ALERT, **fields)


async def test_aioapns_is_taken_and_understands_the_refusals(sandbox: Sandbox) -> None:
    sends = [
        notification(priority=10, time_to_live=60, collapse_key="doors"),
        notification("bad"),
        notification("unregistered"),
        notification("", priority=7),
        *[notification() for _ in range(10)],
    ]
    results = await trio.to_thread.run_sync(aioapns(sandbox, "", sends))

    assert [(result.status, result.description) for result in results[:4]] == [
        ("200", None),
        ("400", "BadDeviceToken"),
        ("410", "Unregistered"),
        ("400", "BadPriority"),
    ]
    assert results[2].timestamp == 1_600_000_000_000
    assert {result.status for result in results[4:]} == {"200"}
    assert [sandbox.ledger.effects(one.notification_id) for one in sends] == [1, 0, 0, 0, *[1] * 10]


async def test_aioapns_with_a_wrong_key_is_refused(sandbox: Sandbox) -> None:
    (result,) = await trio.to_thread.run_sync(aioapns(sandbox, "other", [notification()]))

    assert (result.status, result.description) == ("403", "InvalidProviderToken")
    assert sandbox.ledger.accepted == 0
