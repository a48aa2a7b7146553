"""One SMTP connection: a session that is opened once, and one mail transaction after another on it.

Invariant: whoever holds the connection either gets an answer that leaves the session between two transactions, or closes it.
``usable`` says which. Every reply is read before the next command that is not pipelined with it, and one that nobody asked for
ends the connection.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from math import inf

from actors.io.http_terms import ExchangeFailed
from actors.io.smtp_link import SmtpLink
from actors.io.smtp_terms import Progress
from actors.io.smtp_wire import (
    END,
    Abilities,
    ReplyMalformed,
    ReplyReader,
    mail_command,
    plain_secret,
    read_abilities,
    recipient_commands,
    stuffed,
)
from dispatcher.smtp_message import SMTP_STARTTLS, Fault, Login, SmtpReply, SmtpRequest, SmtpResponse, Stage

_CLOSING = 421
"""The server ends the session, whatever it was asked."""
_RSET = b"RSET\r\n"
_DATA = b"DATA\r\n"


class SmtpConnection:
    """An open connection. Owned by one exchange, or idle in the pool; never shared."""

    __slots__ = ("_abilities", "_dirty", "_ended", "_link", "_reader", "idle_since_s", "opened_s", "transactions", "usable")

    def __init__(self, link: SmtpLink, now_s: float) -> None:
        self.opened_s = now_s
        self.idle_since_s = inf
        """Written by the pool."""
        self.transactions = 0
        self.usable = False
        """The session is open, and between two transactions."""
        self._link = link
        self._reader = ReplyReader()
        self._abilities = Abilities()
        self._ended = False  # the server has ended the session, or is out of step with us
        self._dirty = False  # a transaction was begun and neither completed nor taken back

    async def open(
        self, scheme: str, host: str, login: Login | None, context: ssl.SSLContext, progress: Progress
    ) -> SmtpResponse | None:
        """Everything before the first transaction. Returns why not, None when the session is open. Raises NotSent."""
        greeting = await self._reply(progress)
        if greeting.code != 220:
            return SmtpResponse(Stage.GREETING, greeting)
        hello = b"EHLO %b\r\n" % self._link.own_address.encode("ascii")
        refusal = await self._greet(hello, progress)
        if refusal is None and scheme == SMTP_STARTTLS:
            refusal = await self._start_tls(host, context, progress) or await self._greet(hello, progress)
        if refusal is None and login is not None:
            refusal = await self._log_in(login, progress)
        self.usable = refusal is None
        return refusal

    async def transact(self, request: SmtpRequest, progress: Progress) -> SmtpResponse:
        """Carry out one transaction. Raises NotSent or MaybeSent; the connection is then to be closed."""
        self.usable = False
        fault = self._fault(request)
        if fault is not None:
            self.usable = True
            return SmtpResponse(Stage.MAIL, None, fault=fault)
        self.transactions += 1
        if request.message is None:
            response = await self._probe(request, progress)
        else:
            response = await self._send_envelope(request, progress)
            if response.stage is Stage.MESSAGE:  # not yet: the server waits for it
                response = await self._send_message(request.message, response.recipients, progress)
        self.usable = not self._ended
        return response

    def is_quiet(self) -> bool:
        """Whether an idle connection can be used again: the server has neither ended it nor said anything unasked."""
        return self._reader.is_empty and self._link.is_quiet()

    def close(self) -> None:
        """Close at once. Never waits."""
        self._link.close()

    def retire(self) -> None:
        """Close an idle connection the polite way. Never waits."""
        self._link.retire()

    async def _reply(self, progress: Progress) -> SmtpReply:
        while True:
            reply = self._reader.take()
            if reply is not None:
                self._ended = self._ended or reply.code == _CLOSING
                return reply
            if progress.phase != "read":
                progress.enter("read")
            try:
                self._reader.feed(await self._link.receive(progress))
            except ReplyMalformed as error:
                raise progress.failure(error.code, "limit" if error.code == "reply_too_large" else "read") from error

    async def _next(self, _command: bytes, progress: Progress) -> SmtpReply:
        """The reply to a command that was sent already, with others."""
        return await self._reply(progress)

    async def _ask(self, command: bytes, progress: Progress) -> SmtpReply:
        if not self._reader.is_empty:
            raise progress.failure("out_of_step", "read")
        await self._link.send(command, progress)
        return await self._reply(progress)

    async def _greet(self, hello: bytes, progress: Progress) -> SmtpResponse | None:
        reply = await self._ask(hello, progress)
        if reply.code != 250:
            return SmtpResponse(Stage.HELLO, reply)
        self._abilities = read_abilities(reply)
        return None

    async def _start_tls(self, host: str, context: ssl.SSLContext, progress: Progress) -> SmtpResponse | None:
        if not self._abilities.starttls:
            return SmtpResponse(Stage.TLS, None, fault=Fault.NO_STARTTLS)
        reply = await self._ask(b"STARTTLS\r\n", progress)
        if reply.code != 220:
            return SmtpResponse(Stage.TLS, reply)
        if not self._reader.is_empty:  # said in the clear, to be taken for something said under TLS
            raise progress.failure("starttls_injected", "tls")
        progress.enter("tls")
        try:
            await self._link.start_tls(context, host)
        except ExchangeFailed as error:
            if error.code != "tls_verify":
                raise
            return SmtpResponse(Stage.TLS, None, fault=Fault.CERTIFICATE)
        return None

    async def _log_in(self, login: Login, progress: Progress) -> SmtpResponse | None:
        if b"PLAIN" in self._abilities.mechanisms:
            reply = await self._ask(b"AUTH PLAIN %b\r\n" % plain_secret(login), progress)
            if reply.code == 334:  # it wants the initial response once more
                reply = await self._ask(plain_secret(login) + b"\r\n", progress)
        elif b"LOGIN" in self._abilities.mechanisms:
            reply = await self._ask(b"AUTH LOGIN\r\n", progress)
            for part in (login.username, login.password):
                if reply.code == 334:
                    reply = await self._ask(b64encode(part.encode()) + b"\r\n", progress)
        else:
            return SmtpResponse(Stage.AUTH, None, fault=Fault.NO_AUTH)
        return None if reply.code == 235 else SmtpResponse(Stage.AUTH, reply)

    def _fault(self, request: SmtpRequest) -> Fault | None:
        able = self._abilities
        if request.utf8 and not able.utf8:
            return Fault.NO_UTF8
        if request.message is None:
            return None
        if not (able.eight_bit or request.message.isascii()):
            return Fault.NO_EIGHT_BIT
        return Fault.TOO_LARGE if able.size_max is not None and len(request.message) > able.size_max else None

    async def _probe(self, request: SmtpRequest, progress: Progress) -> SmtpResponse:
        reply = await self._ask(mail_command(request, self._abilities), progress)
        if reply.code // 100 == 2:
            reset = await self._ask(_RSET, progress)
            self._ended = self._ended or reset.code != 250
        return SmtpResponse(Stage.MAIL, reply)

    async def _send_envelope(self, request: SmtpRequest, progress: Progress) -> SmtpResponse:
        """Reset if need be, MAIL, RCPT for each, DATA. With MESSAGE and the server's go-ahead, or why there is none."""
        mail_line, recipient_lines = mail_command(request, self._abilities), recipient_commands(request.recipients)
        pipelined = self._abilities.pipelining
        ask: Callable[[bytes, Progress], Awaitable[SmtpReply]] = self._ask
        if pipelined:  # all of it in one piece; below, only the replies are taken
            if not self._reader.is_empty:
                raise progress.failure("out_of_step", "read")
            reset_line = _RSET if self._dirty else b""
            await self._link.send(b"".join((reset_line, mail_line, *recipient_lines, _DATA)), progress)
            ask = self._next
        if self._dirty:
            reset = await ask(_RSET, progress)
            if reset.code != 250:
                raise progress.failure("closed" if reset.code == _CLOSING else "rset_refused", "read")
            self._dirty = False
        mail = await ask(mail_line, progress)
        if mail.code // 100 != 2:
            return await self._not_begun(mail, len(recipient_lines) if pipelined else -1, progress)
        self._dirty = True
        recipients: list[SmtpReply] = []
        for line in recipient_lines:
            recipients.append(reply := await ask(line, progress))
            if reply.code == _CLOSING:
                recipients.extend([reply] * (len(recipient_lines) - len(recipients)))
                return SmtpResponse(Stage.DATA, reply, tuple(recipients))
        if any(reply.code // 100 == 2 for reply in recipients):
            data = await ask(_DATA, progress)
            return SmtpResponse(Stage.MESSAGE if data.code == 354 else Stage.DATA, data, tuple(recipients))
        if pipelined:
            await self._end_nothing(progress)
        return SmtpResponse(Stage.RCPT, None, tuple(recipients))

    async def _not_begun(self, mail: SmtpReply, recipients: int, progress: Progress) -> SmtpResponse:
        """The sender was refused: take what is still said to the commands that went with it."""
        try:
            for _ in range(recipients):
                if not self._ended:
                    await self._reply(progress)
            if recipients >= 0:
                await self._end_nothing(progress)
        except ExchangeFailed:  # it would not go on with us: what it said before that counts
            self._ended = True
        return SmtpResponse(Stage.MAIL, mail)

    async def _end_nothing(self, progress: Progress) -> None:
        """DATA was asked for before we could know that nobody would get it: if it is granted, end it at once (RFC 2920)."""
        if not self._ended and (await self._reply(progress)).code == 354:
            await self._ask(END, progress)

    async def _send_message(self, message: bytes, recipients: tuple[SmtpReply, ...], progress: Progress) -> SmtpResponse:
        if not self._reader.is_empty:
            raise progress.failure("out_of_step", "read")
        await self._link.send(stuffed(message), progress, END)
        reply = await self._reply(progress)
        self._dirty = False
        return SmtpResponse(Stage.MESSAGE, reply, recipients)
