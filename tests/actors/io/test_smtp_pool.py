"""A mail transaction ends in an answer, in NotSent or in MaybeSent: which of them, and what becomes of the session."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from actors.io.http import Deadlines, ExchangeFailed, MaybeSent, NotSent
from actors.io.smtp import SmtpPool, SmtpPoolLimits, open_smtp_pool
from actors.io.smtp_pool import smtp_client_context
from dispatcher.errors import ConfigError
from dispatcher.http_message import Origin
from dispatcher.smtp_message import Fault, Login, SmtpReply, SmtpRequest, Stage
from house import Tls
from http_peer import Server
from smtp_peer import MESSAGE, MailPeer, mail, mail_peers

LOGIN = Login("user", "canary")
PATIENT = Deadlines(total_s=60, read_s=60)


async def forever(peer: MailPeer) -> None:
    """The rest of a session: take what comes until the client closes."""
    await peer.peer.gone()


@asynccontextmanager
async def talk(
    script: Callable[[MailPeer], Awaitable[None]], scheme: str = "smtp+plain", tls: Tls | None = None, **limits: Any
) -> AsyncIterator[tuple[SmtpPool, Server]]:
    """A server with that script, and a pool that trusts it."""
    server_tls = tls.server_context() if tls is not None and scheme == "smtps" else None
    client_tls = tls.client_context() if tls is not None else None
    async with (
        mail_peers(script, scheme=scheme, tls=server_tls) as server,
        open_smtp_pool(limits=SmtpPoolLimits(**limits), tls_context=client_tls) as pool,
    ):
        yield pool, server


async def failure_of(pool: SmtpPool, request: SmtpRequest, deadlines: Deadlines = PATIENT) -> ExchangeFailed:
    with pytest.raises(ExchangeFailed) as caught:
        await pool.exchange(request, deadlines)
    return caught.value


async def test_commands_that_may_go_together_leave_in_one_piece() -> None:
    got: list[MailPeer] = []

    async def script(peer: MailPeer) -> None:
        got.append(peer)
        await peer.greet(b"PIPELINING", b"SIZE 1000")
        await peer.take(recipients=2)
        await forever(peer)

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server, "a@example.org", "b@example.org"), PATIENT)

    assert response.stage is Stage.MESSAGE
    assert response.reply == SmtpReply(250, (2, 0, 0), b"Ok: queued as 1")
    assert [reply.code for reply in response.recipients] == [250, 250]
    assert got[0].pieces[1] == (
        b"MAIL FROM:<sender@example.org> SIZE=%d\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" % len(MESSAGE)
    )
    assert got[0].pieces[2] == MESSAGE + b".\r\n"


async def test_without_pipelining_each_command_waits_for_the_reply_before_it() -> None:
    got: list[MailPeer] = []

    async def script(peer: MailPeer) -> None:
        got.append(peer)
        await peer.greet()
        await peer.take()
        await forever(peer)

    async with talk(script) as (pool, server):
        assert (await pool.exchange(mail(server), PATIENT)).stage is Stage.MESSAGE

    assert [piece.split()[0] for piece in got[0].pieces[1:4]] == [b"MAIL", b"RCPT", b"DATA"]


async def test_many_messages_take_one_session_and_a_dot_is_never_lost() -> None:
    messages: list[bytes] = []

    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        while True:
            messages.append(await peer.take())

    dots = b"Subject: x\r\n\r\n.\r\n..\r\n.end\r\n"
    async with talk(script) as (pool, server):
        for message in (MESSAGE, dots, MESSAGE):
            await pool.exchange(mail(server, message=message), PATIENT)
        assert (server.accepted, pool.statistics().idle, pool.statistics().in_use) == (1, 1, 0)

    assert messages == [MESSAGE, dots, MESSAGE]


@pytest.mark.parametrize("pipelining", [True, False])
async def test_some_recipients_may_be_refused_and_the_others_get_it(pipelining: bool) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(*([b"PIPELINING"] if pipelining else []))
        await peer.hear(b"MAIL", b"250 Ok")
        await peer.hear(b"RCPT", b"550-5.1.1 no", b"550 5.1.1 such")
        await peer.hear(b"RCPT", b"250 Ok")
        await peer.hear(b"RCPT", b"452 4.5.3 too many")
        await peer.hear(b"DATA", b"354 go on")
        await peer.message()
        await peer.say(b"250 Ok")
        await peer.take()
        await forever(peer)

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server, "a@x.org", "b@x.org", "c@x.org"), PATIENT)
        assert [(reply.code, reply.enhanced) for reply in response.recipients] == [
            (550, (5, 1, 1)),
            (250, None),
            (452, (4, 5, 3)),
        ]
        assert (response.stage, response.reply) == (Stage.MESSAGE, SmtpReply(250, None, b"Ok"))
        await pool.exchange(mail(server), PATIENT)
        assert server.accepted == 1


@pytest.mark.parametrize("data", [b"503 no recipients", b"554 5.5.1 none", b"354 go on"])
async def test_a_message_without_a_recipient_is_never_sent_and_the_session_goes_on(data: bytes) -> None:
    ends: list[bytes] = []

    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        await peer.hear(b"MAIL", b"250 Ok")
        await peer.hear(b"RCPT", b"550 5.1.1 no")
        await peer.hear(b"DATA", data)
        if data.startswith(b"354"):
            ends.append(await peer.message())
            await peer.say(b"554 nobody")
        await peer.hear(b"RSET", b"250 Ok")
        await peer.take()
        await forever(peer)

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server), PATIENT)
        assert (response.stage, response.reply, response.recipients[0].code) == (Stage.RCPT, None, 550)
        assert (await pool.exchange(mail(server), PATIENT)).stage is Stage.MESSAGE
        assert server.accepted == 1

    assert ends == ([b""] if data.startswith(b"354") else [])


@pytest.mark.parametrize("pipelining", [True, False])
async def test_a_refused_sender_is_an_answer(pipelining: bool) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(*([b"PIPELINING"] if pipelining else []))
        await peer.hear(b"MAIL", b"550 5.7.1 not you")
        if pipelining:
            await peer.hear(b"RCPT", b"503 no")
            await peer.hear(b"DATA", b"503 no")
        await peer.take()
        await forever(peer)

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server), PATIENT)
        assert (response.stage, response.reply, response.recipients) == (Stage.MAIL, SmtpReply(550, (5, 7, 1), b"not you"), ())
        assert (await pool.exchange(mail(server), PATIENT)).stage is Stage.MESSAGE
        assert server.accepted == 1


async def test_a_refused_sender_counts_even_if_the_server_hangs_up_with_it() -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        await peer.hear(b"MAIL", b"550 5.7.1 not you")

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server), PATIENT)
        assert (response.stage, pool.statistics().connections) == (Stage.MAIL, 0)


async def test_refused_data_is_reset_before_the_next_message() -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        await peer.hear(b"MAIL", b"250 Ok")
        await peer.hear(b"RCPT", b"250 Ok")
        await peer.hear(b"DATA", b"451 4.3.0 later")
        await peer.hear(b"RSET", b"250 Ok")
        await peer.take()
        await forever(peer)

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server), PATIENT)
        assert response.stage is Stage.DATA
        assert response.reply is not None
        assert response.reply.code == 451
        assert (await pool.exchange(mail(server), PATIENT)).stage is Stage.MESSAGE


@pytest.mark.parametrize("at", [b"MAIL", b"RCPT", b"DATA", b"."])
async def test_a_server_that_ends_the_session_has_answered(at: bytes) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet()
        for command in (b"MAIL", b"RCPT", b"DATA"):
            if command == at:
                await peer.hear(command, b"421 4.7.0 enough")
                return
            await peer.hear(command, b"354 go on" if command == b"DATA" else b"250 Ok")
        await peer.message()
        await peer.say(b"421 4.7.0 enough")

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server, "a@x.org"), PATIENT)
        assert response.reply is not None
        assert response.reply.code == 421
        stages = {b"MAIL": Stage.MAIL, b"RCPT": Stage.DATA, b"DATA": Stage.DATA, b".": Stage.MESSAGE}
        assert (response.stage, pool.statistics().connections) == (stages[at], 0)


async def test_a_session_that_was_ended_while_it_was_idle_is_replaced() -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet()
        await peer.take()
        if peer.number == 1:
            await peer.say(b"421 4.4.2 idle for too long")
            return
        await forever(peer)

    async with talk(script) as (pool, server):
        await pool.exchange(mail(server), PATIENT)
        while server.open:
            await trio.lowlevel.checkpoint()
        assert (await pool.exchange(mail(server), PATIENT)).stage is Stage.MESSAGE
        assert (server.accepted, pool.statistics().stale_total) == (2, 1)


@pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 too long"])
async def test_a_session_that_ends_with_the_first_command_of_a_message_is_replaced(farewell: bytes) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet()
        await peer.take()
        await peer.hear(b"MAIL")
        if peer.number == 2:
            await peer.say(b"550 no")  # on a fresh one nothing is tried again
        elif farewell:
            await peer.say(farewell)

    async with talk(script) as (pool, server):
        await pool.exchange(mail(server), PATIENT)
        assert (await pool.exchange(mail(server), PATIENT)).stage is Stage.MESSAGE
        assert server.accepted == 2


@pytest.mark.parametrize("loss", ["close", "reset", "garbage", "silence"])
async def test_what_is_lost_after_the_dot_may_have_been_sent(loss: str, autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        await peer.hear(b"MAIL", b"250 Ok")
        await peer.hear(b"RCPT", b"250 Ok")
        await peer.hear(b"DATA", b"354 go on")
        await peer.message()
        if loss == "reset":
            peer.peer.reset()
        elif loss == "garbage":
            await peer.say(b"what?")
        elif loss == "silence":
            await forever(peer)

    async with talk(script) as (pool, server):
        autojump_clock.autojump_threshold = 0.2
        failure = await failure_of(pool, mail(server))
        assert isinstance(failure, MaybeSent)
        codes = {"close": "closed", "reset": "reset", "garbage": "protocol_error", "silence": "timeout_read"}
        assert (failure.phase, failure.code, failure.status) == ("read", codes[loss], None)
        assert pool.statistics().connections == 0


@pytest.mark.parametrize("at", [b"greeting", b"EHLO", b"MAIL", b"RCPT", b"DATA", b"body"])
@pytest.mark.parametrize("loss", ["close", "garbage", "silence"])
async def test_what_is_lost_before_the_dot_was_not_sent(at: bytes, loss: str, autojump_clock: trio.testing.MockClock) -> None:
    async def lose(peer: MailPeer) -> None:
        if loss == "garbage":
            await peer.say(b"what?")
        if loss != "close":
            await forever(peer)

    async def script(peer: MailPeer) -> None:
        if at == b"greeting":
            await lose(peer)
            return
        await peer.say(b"220 test")
        for command in (b"EHLO", b"MAIL", b"RCPT", b"DATA"):
            await peer.hear(command)
            if at == command:
                await lose(peer)
                return
            await peer.say(b"354 go on" if command == b"DATA" else b"250 Ok")
        if loss != "close":
            await trio.sleep(100)  # with most of the message unread: its end can not have left

    large = MESSAGE + b"x" * 900 + b"\r\n" + (b"y" * 900 + b"\r\n") * 20_000
    async with talk(script) as (pool, server):
        autojump_clock.autojump_threshold = 0.2
        failure = await failure_of(pool, mail(server, message=large if at == b"body" else MESSAGE))
        assert isinstance(failure, NotSent)
        assert failure.phase != "protocol"  # or it would count as a fault of the message
        assert pool.statistics().connections == 0


async def test_a_server_that_says_more_than_it_was_asked_is_left() -> None:
    async def script(peer: MailPeer) -> None:
        await peer.say(b"220 test", b"250 and more")
        await forever(peer)

    async with talk(script) as (pool, server):
        failure = await failure_of(pool, mail(server))
        assert (type(failure), failure.code) == (NotSent, "out_of_step")


async def test_an_endless_reply_is_left() -> None:
    async def script(peer: MailPeer) -> None:
        while True:
            await peer.peer.send(b"220-" + b"x" * 1000 + b"\r\n")

    async with talk(script) as (pool, server):
        failure = await failure_of(pool, mail(server))
        assert (type(failure), failure.phase, failure.code) == (NotSent, "limit", "reply_too_large")


async def test_cancelling_before_the_dot_closes_the_session() -> None:
    heard = trio.Event()

    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        await peer.hear(b"MAIL", b"250 Ok")
        heard.set()
        await forever(peer)

    async with talk(script) as (pool, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.exchange, mail(server), PATIENT)
            await heard.wait()
            nursery.cancel_scope.cancel()
        assert pool.statistics().connections == 0
        with trio.fail_after(5):
            while server.open:
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("after_dot", "kind"), [(False, NotSent), (True, MaybeSent)])
async def test_closing_the_pool_ends_what_is_under_way(after_dot: bool, kind: type[ExchangeFailed]) -> None:
    heard = trio.Event()
    failures: list[ExchangeFailed] = []

    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        await peer.hear(b"MAIL", b"250 Ok")
        if after_dot:
            await peer.hear(b"RCPT", b"250 Ok")
            await peer.hear(b"DATA", b"354 go on")
            await peer.message()
        heard.set()
        await forever(peer)

    async def send(pool: SmtpPool, request: SmtpRequest) -> None:
        failures.append(await failure_of(pool, request))

    async with talk(script) as (pool, server), trio.open_nursery() as nursery:
        nursery.start_soon(send, pool, mail(server))
        await heard.wait()
        pool.close()

    assert [(type(failure), failure.code) for failure in failures] == [(kind, "pool_closed")]
    assert (await failure_of(pool, mail(server))).code == "pool_closed"


async def test_idle_sessions_are_closed(autojump_clock: trio.testing.MockClock) -> None:
    ends: list[bytes] = []

    async def script(peer: MailPeer) -> None:
        await peer.greet()
        await peer.take()
        ends.append(await peer.line())

    async with talk(script, idle_s=5) as (pool, server):
        await pool.exchange(mail(server), PATIENT)
        autojump_clock.autojump_threshold = 0.05
        await trio.sleep(6)
        assert pool.statistics().connections == 0
        await trio.testing.wait_all_tasks_blocked(0.02)

    assert ends == [b"QUIT"]


@pytest.mark.parametrize("limits", [{"messages_max": 2}, {"age_s": 0.0001}])
async def test_a_worn_session_is_not_kept(limits: dict[str, Any]) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet()
        while True:
            await peer.take()

    async with talk(script, **limits) as (pool, server):
        for _ in range(4):
            await pool.exchange(mail(server), PATIENT)
        assert server.accepted == (2 if "messages_max" in limits else 4)


async def test_sessions_are_shared_by_login_and_bounded() -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"AUTH PLAIN")
        secret = await peer.hear(b"AUTH PLAIN ", b"235 Ok")
        seen.add(secret)
        while True:
            await peer.take()

    seen: set[bytes] = set()
    async with talk(script, connections_per_login_max=2) as (pool, server):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                login = Login(f"user{number % 2}", "canary")
                nursery.start_soon(pool.exchange, mail(server, login=login), PATIENT)
        assert server.accepted == 4
        assert pool.statistics() == type(pool.statistics())(4, 4, 0, 0, 4, 0)

    assert len(seen) == 2


async def test_when_all_places_are_taken_an_idle_session_of_another_login_makes_room() -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"AUTH PLAIN")
        await peer.hear(b"AUTH", b"235 Ok")
        while True:
            await peer.take()

    async with talk(script, connections_max=1) as (pool, server):
        for name in ("a", "b", "a"):
            await pool.exchange(mail(server, login=Login(name, "x")), PATIENT)
        assert (server.accepted, pool.statistics().connections) == (3, 1)


@pytest.mark.parametrize(
    ("offered", "commands"),
    [
        (b"AUTH LOGIN PLAIN", [b"AUTH PLAIN " + b64encode(b"\0user\0canary")]),
        (b"AUTH CRAM-MD5 LOGIN", [b"AUTH LOGIN", b64encode(b"user"), b64encode(b"canary")]),
    ],
)
async def test_the_login_is_shown_in_a_way_that_is_offered(offered: bytes, commands: list[bytes]) -> None:
    got: list[bytes] = []

    async def script(peer: MailPeer) -> None:
        await peer.greet(offered)
        for number in range(len(commands)):
            last = number == len(commands) - 1
            got.append(await peer.hear(b"", b"235 2.7.0 welcome" if last else b"334 VXNlcm5hbWU6"))
        await peer.take()
        await forever(peer)

    async with talk(script) as (pool, server):
        assert (await pool.exchange(mail(server, login=LOGIN), PATIENT)).stage is Stage.MESSAGE

    assert got == commands


@pytest.mark.parametrize(
    ("lines", "stage", "code"),
    [
        ([b"554 5.7.1 go away"], Stage.GREETING, 554),
        ([b"220 test", b"502 5.5.1 no"], Stage.HELLO, 502),
        ([b"220 test", b"250 AUTH"], Stage.AUTH, None),
        ([b"220 test", b"250-t\r\n250 AUTH PLAIN", b"535 5.7.8 no"], Stage.AUTH, 535),
        (
            [b"220 test", b"250-t\r\n250 AUTH LOGIN", b"334 VXNlcm5hbWU6", b"334 UGFzc3dvcmQ6", b"454 4.7.0 later"],
            Stage.AUTH,
            454,
        ),
    ],
)
async def test_a_refused_session_is_an_answer_with_its_stage(lines: list[bytes], stage: Stage, code: int | None) -> None:
    async def script(peer: MailPeer) -> None:
        for line in lines:
            await peer.say(line)
            await peer.line()

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server, login=LOGIN), PATIENT)
        assert (response.stage, response.reply and response.reply.code) == (stage, code)
        assert response.fault == (Fault.NO_AUTH if code is None else None)
        assert pool.statistics().connections == 0


async def test_starttls_comes_before_anything_else_and_the_abilities_after_it_count(tls: Tls) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"STARTTLS", b"AUTH PLAIN", b"SIZE 1")
        await peer.hear(b"STARTTLS", b"220 go")
        assert peer.commands[-1] == b"STARTTLS"
        await peer.peer.shake_hands(tls.server_context())
        await peer.hear(b"EHLO", b"250-test", b"250-PIPELINING", b"250 AUTH PLAIN")
        await peer.hear(b"AUTH", b"235 Ok")
        await peer.take()
        await peer.take()
        await forever(peer)

    async with talk(script, "smtp", tls) as (pool, server):
        for _ in range(2):
            assert (await pool.exchange(mail(server, login=LOGIN), PATIENT)).stage is Stage.MESSAGE
        assert server.accepted == 1


async def test_tls_from_the_start(tls: Tls) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        assert await peer.take() == MESSAGE
        await forever(peer)

    async with talk(script, "smtps", tls) as (pool, server):
        assert (await pool.exchange(mail(server), PATIENT)).stage is Stage.MESSAGE


async def test_nothing_is_said_to_a_server_without_starttls() -> None:
    got: list[MailPeer] = []

    async def script(peer: MailPeer) -> None:
        got.append(peer)
        await peer.greet(b"AUTH PLAIN")
        await peer.line()

    async with talk(script, "smtp") as (pool, server):
        response = await pool.exchange(mail(server, login=LOGIN), PATIENT)

    assert (response.stage, response.fault) == (Stage.TLS, Fault.NO_STARTTLS)
    assert [command[:4] for command in got[0].commands] == [b"EHLO"]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_that_is_not_trusted_is_an_answer(scheme: str, tls: Tls) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"STARTTLS")
        await peer.hear(b"STARTTLS", b"220 go")
        await peer.peer.shake_hands(tls.server_context())

    server_tls = tls.server_context() if scheme == "smtps" else None
    async with mail_peers(script, scheme=scheme, tls=server_tls) as server, open_smtp_pool() as pool:
        response = await pool.exchange(mail(server, login=LOGIN), PATIENT)

    assert (response.stage, response.fault) == (Stage.TLS, Fault.CERTIFICATE)


async def test_what_stands_behind_the_answer_to_starttls_ends_the_connection(tls: Tls) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"STARTTLS")
        await peer.line()
        await peer.say(b"220 go", b"250-test", b"250 AUTH PLAIN")
        await forever(peer)

    async with talk(script, "smtp", tls) as (pool, server):
        failure = await failure_of(pool, mail(server, login=LOGIN))

    assert (type(failure), failure.phase, failure.code) == (NotSent, "tls", "starttls_injected")


@pytest.mark.parametrize(
    ("abilities", "request_", "fault"),
    [
        ([b"SIZE 5"], {}, Fault.TOO_LARGE),
        ([b"8BITMIME"], {"utf8": True, "recipients": ("ü@x.org",)}, Fault.NO_UTF8),
        ([b"SMTPUTF8"], {"utf8": True, "message": "Subject: ü\r\n\r\n".encode()}, Fault.NO_EIGHT_BIT),
    ],
)
async def test_what_the_server_can_not_take_is_not_even_begun(
    abilities: list[bytes], request_: dict[str, object], fault: Fault
) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(*abilities)
        await peer.hear(b"MAIL", b"250 Ok")
        await peer.hear(b"RSET", b"250 Ok")
        await forever(peer)

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server)._replace(**request_), PATIENT)  # type: ignore[arg-type]
        assert (response.stage, response.fault) == (Stage.MAIL, fault)
        await pool.exchange(mail(server, message=None), PATIENT)
        assert server.accepted == 1


async def test_a_probe_stops_at_the_sender_and_takes_it_back() -> None:
    got: list[MailPeer] = []

    async def script(peer: MailPeer) -> None:
        got.append(peer)
        await peer.greet(b"PIPELINING", b"SIZE 1000")
        await peer.hear(b"MAIL", b"250 2.1.0 Ok")
        await peer.hear(b"RSET", b"250 Ok")
        await peer.take()
        await forever(peer)

    async with talk(script) as (pool, server):
        response = await pool.exchange(mail(server, message=None), PATIENT)
        assert (response.stage, response.reply) == (Stage.MAIL, SmtpReply(250, (2, 1, 0), b"Ok"))
        await pool.exchange(mail(server), PATIENT)

    assert got[0].commands[1:3] == [b"MAIL FROM:<sender@example.org>", b"RSET"]


async def test_nobody_there() -> None:
    request = SmtpRequest(Origin("smtp+plain", "127.0.0.1", 1), None, "a@x.org", ("b@x.org",), MESSAGE)
    async with open_smtp_pool() as pool:
        failure = await failure_of(pool, request)

    assert (type(failure), failure.code) == (NotSent, "refused")


def test_a_context_that_trusts_anybody_is_refused() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ConfigError):
        smtp_client_context(context)


async def test_wherever_a_cancellation_lands_every_place_is_given_back(tls: Tls) -> None:
    async def script(peer: MailPeer) -> None:
        await peer.greet(b"STARTTLS")
        await peer.hear(b"STARTTLS", b"220 go")
        await peer.peer.shake_hands(tls.server_context())
        await peer.hear(b"EHLO", b"250-test", b"250 AUTH PLAIN")
        await peer.hear(b"AUTH", b"235 Ok")
        while True:
            await peer.take()

    async with talk(script, "smtp", tls, connections_per_login_max=1) as (pool, server):
        for turns in range(60):
            async with trio.open_nursery() as nursery:
                for _ in range(2):  # the second waits for the place of the first
                    nursery.start_soon(pool.exchange, mail(server, login=LOGIN), PATIENT)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            statistics = pool.statistics()
            assert (statistics.in_use, statistics.waiting) == (0, 0)
            assert statistics.connections == statistics.idle <= 1
        assert (await pool.exchange(mail(server, login=LOGIN), PATIENT)).stage is Stage.MESSAGE
