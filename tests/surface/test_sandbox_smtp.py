"""The sandbox as a submission server, judged by the standard library's own client, and by hand where that is too polite."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from email.message import EmailMessage
from typing import TypeVar

import pytest
import trio

from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.certificates import authority
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from dispatcher_sandbox.smtp.session import RECIPIENTS_MAX, SIZE_MAX

T = TypeVar("T")
ID = "0192d3a4-7c1e-7f00-8000-00000000000"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


def mail(*numbers: int, to: str = "reader@example.org", text: str = "Good day") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "news@example.org", to, "Hello"
    message["Date"] = "Fri, 15 Jan 2027 08:00:00 -0000"
    message["Message-ID"] = f"<{ID}{(numbers or (1,))[0]}@example.org>"
    message["X-Organization-Id"] = "acme"
    if len(numbers) > 1:
        message["X-Notification-Id"] = ", ".join(f"{ID}{number}" for number in numbers)
    message.set_content(text)
    return message


def port_of(sandbox: Sandbox, name: str = "smtp") -> int:
    return int(sandbox.urls[name].rpartition(":")[2])


async def talk(sandbox: Sandbox, work: Callable[[smtplib.SMTP], T], *, password: str | None = "right") -> T:
    """Do something with a client that speaks TLS and, with a password, is logged in."""

    def run() -> T:
        with smtplib.SMTP("127.0.0.1", port_of(sandbox), timeout=10) as client:
            client.starttls(context=authority().client_context())
            if password is not None:
                client.login("user", password)
            return work(client)

    return await trio.to_thread.run_sync(run)


async def raw(sandbox: Sandbox, *pieces: bytes, end: bool = True) -> bytes:
    """Send pieces in the clear, end, and read until the server has ended, too."""
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(sandbox))
    got = b""
    async with stream:
        for piece in pieces:
            await stream.send_all(piece)
        if end:
            await stream.send_eof()
        async for data in stream:
            got += data
    return got


def code_of(error: BaseException) -> tuple[int, bytes]:
    assert isinstance(error, smtplib.SMTPResponseException)
    text = error.smtp_error
    return error.smtp_code, text if isinstance(text, bytes) else text.encode()


async def test_a_mail_takes_effect_and_is_found_by_its_message_id(sandbox: Sandbox) -> None:
    refused = await talk(sandbox, lambda client: client.send_message(mail(1)))

    assert refused == {}
    assert (sandbox.ledger.accepted, sandbox.ledger.effects(f"{ID}1")) == (1, 1)
    assert dict(sandbox.ledger.organizations.items()) == {"acme": 1}
    assert sandbox.ledger.recent[-1].provider == "smtp"


async def test_it_speaks_tls_from_the_start_at_the_other_port(sandbox: Sandbox) -> None:
    def run() -> None:
        context = authority().client_context()
        with smtplib.SMTP_SSL("127.0.0.1", port_of(sandbox, "smtps"), timeout=10, context=context) as client:
            client.login("user", "right")
            client.send_message(mail(1))

    await trio.to_thread.run_sync(run)

    assert sandbox.ledger.effects(f"{ID}1") == 1


async def test_it_offers_what_it_does(sandbox: Sandbox) -> None:
    features = await talk(sandbox, lambda client: dict(client.esmtp_features), password="right")

    assert set(features) == {"pipelining", "size", "8bitmime", "smtputf8", "enhancedstatuscodes", "auth"}
    assert b"250 STARTTLS\r\n" in await raw(sandbox, b"EHLO me\r\n")


async def test_dots_come_through(sandbox: Sandbox) -> None:
    await talk(sandbox, lambda client: client.send_message(mail(1, text=".\n..\n.end\n")))

    assert sandbox.ledger.recent[-1].body.endswith(b"\r\n\r\n.\r\n..\r\n.end\r\n")


async def test_several_recipients_have_each_their_notification(sandbox: Sandbox) -> None:
    recipients = ["a@example.org", "bounce@sandbox.test", "c@example.org"]

    refused = await talk(sandbox, lambda client: client.send_message(mail(1, 2, 3), to_addrs=recipients))

    assert refused == {"bounce@sandbox.test": (550, b"5.1.1 No such user here")}
    assert [sandbox.ledger.effects(f"{ID}{number}") for number in (1, 2, 3)] == [1, 0, 1]
    assert sandbox.ledger.messages == 2


@pytest.mark.parametrize(
    ("recipient", "code", "words", "times"),
    [
        ("bounce@sandbox.test", 550, b"5.1.1 ", 9),
        ("soft@sandbox.test", 451, b"4.3.0 ", 2),
        ("full@sandbox.test", 452, b"4.2.2 ", 9),
        ("too-many@sandbox.test", 452, b"4.5.3 ", 1),
        ("rate-limited@sandbox.test", 454, b"4.7.0 Throttling failure: Maximum", 1),
        ("credits@sandbox.test", 454, b"4.7.0 Throttling failure: Daily", 9),
        ("forbidden@sandbox.test", 550, b"5.7.1 ", 9),
        ("too-large@sandbox.test", 552, b"5.3.4 ", 9),
        ("status-551@sandbox.test", 551, b"5.0.0 ", 9),
        ("not an address", 501, b"5.5.4 ", 9),
        ("nobody", 553, b"5.1.3 ", 9),
    ],
)
async def test_a_magic_recipient_is_refused_when_it_is_named(
    sandbox: Sandbox, recipient: str, code: int, words: bytes, times: int
) -> None:
    def run(client: smtplib.SMTP) -> list[tuple[int, bytes]]:
        client.ehlo()
        client.mail("news@example.org")
        return [client.docmd(f"RCPT TO:<{recipient}>") for _ in range(3)]

    answers = await talk(sandbox, run)

    refusals = [answer for answer in answers if answer[0] != 250]
    assert len(refusals) == min(times, 3)
    assert all(got == code and text.startswith(words) for got, text in refusals)


@pytest.mark.parametrize(("password", "code"), [("wrong", 535), ("later", 454)], ids=["refused", "busy"])
async def test_a_login_is_checked(sandbox: Sandbox, password: str, code: int) -> None:
    with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        await talk(sandbox, lambda client: client.noop(), password=password)

    assert code_of(caught.value)[0] == code


async def test_auth_login_works_as_well(sandbox: Sandbox) -> None:
    def run(client: smtplib.SMTP) -> tuple[int, bytes]:
        client.ehlo()
        client.user, client.password = "user", "right"
        return client.auth("LOGIN", client.auth_login)

    assert (await talk(sandbox, run, password=None))[0] == 235


@pytest.mark.parametrize(
    ("commands", "codes"),
    [
        (["RCPT TO:<a@x.org>", "DATA"], [503, 503]),
        (["MAIL FROM:<a@x.org>", "DATA"], [250, 554]),
        (["MAIL FROM:<a@x.org>", "MAIL FROM:<a@x.org>"], [250, 503]),
        (["MAIL FROM:<a@x.org>", "RSET", "RCPT TO:<b@x.org>"], [250, 250, 503]),
        (["MAIL FROM: <a@x.org>"], [501]),
        (["MAIL FROM:a@x.org"], [501]),
        (["MAIL FROM:<a@x.org> SIZE=99999999"], [552]),
        (["MAIL FROM:<a@x.org> BODY=7BIT"], [250]),
        (["MAIL FROM:<a@x.org> COLOUR=RED"], [555]),
        (["MAIL FROM:<nobody>"], [553]),
        (["MAIL FROM:<>"], [250]),
        (["STARTTLS"], [503]),
        (["AUTH PLAIN AHVzZXIAcmlnaHQ="], [503]),
        (["HELP", "NOOP", "VRFY a", "EHLO"], [502, 250, 252, 501]),
        (
            ["MAIL FROM:<a@x.org>", *[f"RCPT TO:<r{n}@x.org>" for n in range(RECIPIENTS_MAX + 1)]],
            [250, *[250] * RECIPIENTS_MAX, 452],
        ),
    ],
)
async def test_order_and_syntax_are_strict(sandbox: Sandbox, commands: list[str], codes: list[int]) -> None:
    answers = await talk(sandbox, lambda client: [client.docmd(command)[0] for command in commands])

    assert answers == codes


@pytest.mark.parametrize(
    ("pieces", "codes"),
    [
        ((b"MAIL FROM:<a@x.org>\r\n",), [530]),
        ((b"EHLO me\r\nAUTH PLAIN AHVzZXIAcmlnaHQ=\r\n",), [250, 538]),
        ((b"STARTTLS\r\n",), [503]),
        ((b"NOOP\nQUIT\r\n",), [500]),
        ((b"\xff\r\nQUIT\r\n",), [500, 221]),
        ((b"x" * 5000 + b"\r\nQUIT\r\n",), [502]),
    ],
)
async def test_nothing_is_taken_in_the_clear(sandbox: Sandbox, pieces: tuple[bytes, ...], codes: list[int]) -> None:
    lines = (await raw(sandbox, *pieces)).split(b"\r\n")

    assert [int(line[:3]) for line in lines[1:] if line[3:4] == b" "][: len(codes)] == codes


async def test_without_a_login_there_is_no_mail(sandbox: Sandbox) -> None:
    assert (await talk(sandbox, lambda client: client.mail("a@x.org"), password=None))[0] == 530


async def test_what_is_said_behind_starttls_in_the_clear_ends_the_session(sandbox: Sandbox) -> None:
    with trio.fail_after(10):
        got = await raw(sandbox, b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<a@x.org>\r\n", end=False)

    assert got.endswith(b"220 2.0.0 Ready\r\n")


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (b"Subject: x\r\n\r\nx\r\n", 554, b"From"),
        (b"From: a@x.org\r\nDate: x\r\nDate: y\r\nMessage-ID: <a@b>\r\n\r\nx\r\n", 554, b"Date"),
        (b"From: a@x.org\r\nDate: x\r\n\r\nx\r\n", 554, b"Message-ID"),
        (b"From: a@x.org\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\n\xc3\xbc\r\n", 554, b"Eight-bit"),
        (b"From: a@x.org\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\n" + b"x" * 999 + b"\r\n", 554, b"Line"),
        (b"From: a@x.org\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\n" + (b"x" * 900 + b"\r\n") * (SIZE_MAX // 900), 552, b"5.3.4"),
    ],
    ids=["from", "date", "message-id", "8bit", "line", "size"],
)
async def test_a_bad_mail_is_refused(sandbox: Sandbox, message: bytes, code: int, words: bytes) -> None:
    def run(client: smtplib.SMTP) -> tuple[int, bytes]:
        client.mail("a@x.org")
        client.rcpt("b@x.org")
        return client.data(message)

    got, text = await talk(sandbox, run)

    assert got == code
    assert words in text
    assert (sandbox.ledger.accepted, dict(sandbox.ledger.refused)) == (0, {code: 1})


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"error_mix": {503: 1.0}}, 451, b"4.3.0"),
        ({"error_mix": {429: 1.0}}, 454, b"Maximum sending rate"),
        ({"error_mix": {550: 1.0}}, 550, b"5.0.0"),
        ({"sender_domains": ("example.com",)}, 550, b"5.7.1"),
    ],
)
async def test_it_fails_when_told_to(sandbox: Sandbox, settings: dict[str, object], code: int, words: bytes) -> None:
    sandbox.change(**settings)

    with pytest.raises(smtplib.SMTPDataError) as caught:
        await talk(sandbox, lambda client: client.send_message(mail(1)))

    assert code_of(caught.value)[0] == code
    assert words in code_of(caught.value)[1]
    assert sandbox.ledger.accepted == 0


async def test_a_rate_limit_is_counted_by_login(sandbox: Sandbox) -> None:
    sandbox.change(rate_limit_per_s=1 / 86_400, rate_window_s=86_400)

    def run(client: smtplib.SMTP) -> int:
        client.send_message(mail(1))
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.send_message(mail(2))
        return code_of(caught.value)[0]

    assert await talk(sandbox, run) == 454
    assert sandbox.ledger.accepted == 1


@pytest.mark.parametrize("recipient", ["drop@sandbox.test", "close@sandbox.test"])
async def test_the_answer_to_a_mail_may_never_come(sandbox: Sandbox, recipient: str) -> None:
    with pytest.raises(smtplib.SMTPServerDisconnected):
        await talk(sandbox, lambda client: client.send_message(mail(1), to_addrs=[recipient]))

    assert sandbox.ledger.accepted == (1 if recipient.startswith("drop") else 0)


async def test_an_outage(sandbox: Sandbox) -> None:
    sandbox.change(outage=Outage.UNAVAILABLE)
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        await talk(sandbox, lambda client: client.noop())
    sandbox.change(outage=Outage.CLOSE)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        await talk(sandbox, lambda client: client.noop())

    assert code_of(caught.value)[0] == 421


async def test_its_certificate_is_its_authoritys(sandbox: Sandbox) -> None:
    def run() -> None:
        with socket.create_connection(("127.0.0.1", port_of(sandbox, "smtps")), timeout=10) as sock:
            ssl.create_default_context().wrap_socket(sock, server_hostname="127.0.0.1")

    with pytest.raises(ssl.SSLCertVerificationError):
        await trio.to_thread.run_sync(run)
