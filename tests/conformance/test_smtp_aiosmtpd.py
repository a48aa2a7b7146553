"""Our SMTP transport against a server that is not ours: aiosmtpd, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
from aiosmtpd.smtp import SMTP, AuthResult

from actors.io.http import Deadlines
from actors.io.smtp import SmtpPool, open_smtp_pool
from dispatcher.http_message import Origin
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import OutcomeClass
from dispatcher.providers.provider import Moment
from dispatcher.providers.smtp import BoundSmtp, bind
from dispatcher.smtp_message import Fault, Login, SmtpRequest, SmtpResponse, Stage
from house import Tls

DEADLINES = Deadlines()
LOGIN = Login("user", "right")
MESSAGE = b"Subject: x\r\n\r\n.\r\n..two\r\nplain\r\n"


class Handler:
    """Takes mail, refuses addresses that begin with ``no``, and mail that says so."""

    def __init__(self, *, pipelining: bool) -> None:
        self.taken: list[tuple[str, list[str], bytes, list[str]]] = []
        self._pipelining = pipelining

    async def handle_EHLO(self, _server: Any, session: Any, _envelope: Any, hostname: str, lines: list[str]) -> list[str]:  # noqa: N802
        session.host_name = hostname
        return [*lines[:-1], "250-PIPELINING", "250-ENHANCEDSTATUSCODES", lines[-1]] if self._pipelining else lines

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if address.startswith("no"):
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if b"refuse me" in envelope.original_content:
            return "554 5.7.1 Refused"
        self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content, envelope.mail_options))
        return "250 2.0.0 Ok: queued as 4ABC1234"


def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    good = (data.login, data.password) == (b"user", b"right")
    return AuthResult(success=good, handled=good)


async def end(server: asyncio.AbstractServer) -> None:
    """Close it, and whatever sessions there still are."""
    server.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


@contextmanager
def serving(tls: Tls, security: str, *, pipelining: bool, login: bool) -> Iterator[tuple[Handler, Origin]]:
    """One server on a free port, with a loop and a thread of its own."""
    handler = Handler(pipelining=pipelining)
    options: dict[str, Any] = {"enable_SMTPUTF8": True, "data_size_limit": 100_000}
    if login:
        options |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": True}
    if security == "smtp":
        options |= {"tls_context": tls.server_context(), "require_starttls": True}
    context = tls.server_context() if security == "smtps" else None
    loop = asyncio.new_event_loop()
    listening = loop.create_server(lambda: SMTP(handler, loop=loop, **options), "127.0.0.1", 0, ssl=context)
    server = loop.run_until_complete(listening)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield handler, Origin(security, "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(end(server))
        loop.close()


@asynccontextmanager
async def connected(
    tls: Tls, security: str, *, pipelining: bool = True, login: bool = True
) -> AsyncIterator[tuple[SmtpPool, Handler, Origin]]:
    with serving(tls, security, pipelining=pipelining, login=login) as (handler, origin):
        async with open_smtp_pool(tls_context=tls.client_context()) as pool:
            yield pool, handler, origin


def request(origin: Origin, *recipients: str, login: Login | None = LOGIN, message: bytes | None = MESSAGE) -> SmtpRequest:
    return SmtpRequest(origin, login, "news@example.org", recipients or ("a@example.org",), message)


def codes(response: SmtpResponse) -> list[int]:
    return [reply.code for reply in response.recipients]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("security", ["smtp", "smtps"])
async def test_mails_arrive_whole_over_one_session(tls: Tls, security: str, pipelining: bool) -> None:
    login = LOGIN if security == "smtp" else None  # it offers AUTH behind STARTTLS only
    async with connected(tls, security, pipelining=pipelining, login=login is not None) as (pool, handler, origin):
        for number in range(5):
            response = await pool.exchange(request(origin, f"r{number}@example.org", login=login), DEADLINES)
            assert (response.stage, response.reply and response.reply.enhanced) == (Stage.MESSAGE, (2, 0, 0))
        assert pool.statistics().opened_total == 1

    assert [taken[1] for taken in handler.taken] == [[f"r{number}@example.org"] for number in range(5)]
    assert {taken[2] for taken in handler.taken} == {MESSAGE}


@pytest.mark.parametrize("pipelining", [True, False])
async def test_some_all_or_none_of_the_recipients(tls: Tls, pipelining: bool) -> None:
    async with connected(tls, "smtp", pipelining=pipelining) as (pool, handler, origin):
        some = await pool.exchange(request(origin, "a@example.org", "no@example.org", "c@example.org"), DEADLINES)
        none = await pool.exchange(request(origin, "no@example.org", "nobody@example.org"), DEADLINES)
        all_of = await pool.exchange(request(origin, "a@example.org"), DEADLINES)
        assert pool.statistics().opened_total == 1

    assert (some.stage, codes(some)) == (Stage.MESSAGE, [250, 550, 250])
    assert (none.stage, codes(none)) == (Stage.RCPT, [550, 550])
    assert (all_of.stage, codes(all_of)) == (Stage.MESSAGE, [250])
    assert [taken[1] for taken in handler.taken] == [["a@example.org", "c@example.org"], ["a@example.org"]]


async def test_a_refused_message_leaves_the_session_usable(tls: Tls) -> None:
    async with connected(tls, "smtp") as (pool, handler, origin):
        refused = await pool.exchange(request(origin, message=b"Subject: x\r\n\r\nrefuse me\r\n"), DEADLINES)
        await pool.exchange(request(origin), DEADLINES)
        assert pool.statistics().opened_total == 1

    assert (refused.stage, refused.reply and refused.reply.code) == (Stage.MESSAGE, 554)
    assert len(handler.taken) == 1


async def test_a_wrong_login_is_refused_before_anything_else(tls: Tls) -> None:
    async with connected(tls, "smtp") as (pool, handler, origin):
        response = await pool.exchange(request(origin, login=Login("user", "wrong")), DEADLINES)
        without = await pool.exchange(request(origin, login=None), DEADLINES)

    assert (response.stage, response.reply and response.reply.code) == (Stage.AUTH, 535)
    assert (without.stage, without.reply and without.reply.code) == (Stage.MAIL, 530)
    assert handler.taken == []


async def test_a_certificate_of_somebody_else_is_refused(tls: Tls) -> None:
    with serving(tls, "smtps", pipelining=True, login=False) as (handler, origin):
        async with open_smtp_pool() as pool:
            response = await pool.exchange(request(origin), DEADLINES)

    assert (response.stage, response.fault) == (Stage.TLS, Fault.CERTIFICATE)
    assert handler.taken == []


async def test_what_is_too_large_is_not_sent(tls: Tls) -> None:
    async with connected(tls, "smtp") as (pool, handler, origin):
        response = await pool.exchange(request(origin, message=b"x" * 200_000 + b"\r\n"), DEADLINES)

    assert (response.fault, handler.taken) == (Fault.TOO_LARGE, [])


async def test_addresses_beyond_ascii(tls: Tls) -> None:
    utf8 = request(Origin("smtp", "", 0), "jürgen@example.org")._replace(message="Subject: ü\r\n\r\nü\r\n".encode(), utf8=True)
    async with connected(tls, "smtp") as (pool, handler, origin):
        response = await pool.exchange(utf8._replace(origin=origin), DEADLINES)

    assert response.stage is Stage.MESSAGE
    assert handler.taken[0][1] == ["jürgen@example.org"]
    assert {"SMTPUTF8", "BODY=8BITMIME"} <= set(handler.taken[0][3])


async def test_many_at_once(tls: Tls) -> None:
    async with connected(tls, "smtp") as (pool, handler, origin), trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(pool.exchange, request(origin, f"r{number}@example.org"), DEADLINES)

    assert sorted(taken[1][0] for taken in handler.taken) == sorted(f"r{number}@example.org" for number in range(40))


async def test_a_provider_speaks_with_it(tls: Tls) -> None:
    async with connected(tls, "smtp") as (pool, handler, origin):
        settings = {"host": origin.host, "port": origin.port, "from_email": "news@example.org", "batch_max": 10}
        config = ProviderConfig("c", OrganizationId("acme"), Channel.EMAIL, "smtp", settings, LOGIN._asdict(), 1)
        provider: BoundSmtp = bind(config, (str(origin),))
        moment = Moment(1_800_000_000.0, bytes)

        def delivery(number: int, recipient: str) -> Delivery:
            id = NotificationId(f"0192d3a4-7c1e-7f00-8000-{number:012d}")
            payload = {"subject": "Grüße", "text": "Good day", "html": "<p>Good day</p>"}
            return Delivery(id, OrganizationId("acme"), Channel.EMAIL, recipient, payload, 1, 8, 0.0)

        probed = provider.probed(await pool.exchange(provider.probe(moment), DEADLINES), 0.0)
        one = provider.classify(await pool.exchange(provider.request(delivery(1, "a@example.org"), moment), DEADLINES), 0.0)
        deliveries = [delivery(2, "b@example.org"), delivery(3, "no@example.org"), delivery(4, "c@example.org")]
        parts = [part for part in (provider.part(each, moment) for each in deliveries) if part is not None]
        several = provider.classify_batch(await pool.exchange(provider.batch_request(parts, moment), DEADLINES), parts, 0.0)

    assert (probed.good, probed.code) == (True, "sender_accepted")
    assert (one.kind, one.provider_message_id) == (OutcomeClass.DELIVERED, "4ABC1234")
    assert [outcome and outcome.kind for outcome in several] == [
        OutcomeClass.DELIVERED,
        OutcomeClass.SUPPRESS,
        OutcomeClass.DELIVERED,
    ]
    assert [taken[1] for taken in handler.taken] == [["a@example.org"], ["b@example.org", "c@example.org"]]
