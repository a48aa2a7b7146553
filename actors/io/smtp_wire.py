"""SMTP as bytes in and values out: no socket, no clock, no task.

:class:`ReplyReader` is fed whatever the network brings, in pieces of any size; how the bytes were cut never changes the replies.
The functions write commands and messages. Invariant: nothing of a request ever breaks out of its place, neither an address out of
its command nor a message out of its transaction, and a reply is bounded in every direction.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import deque
from collections.abc import Sequence

from attrs import frozen

from actors.io.http_terms import NotSent
from dispatcher.smtp_message import Login, SmtpReply, SmtpRequest

RECEIVE_BYTES_MAX = 65_536
LINE_BYTES_MAX = 4_096
"""RFC 5321 allows 512; some servers are wordier."""
REPLY_BYTES_MAX = 65_536
REPLIES_WAITING_MAX = 2_048
"""Replies nobody asked for yet. More than any group of commands gets."""
END = b".\r\n"
"""What ends a message, after a line break. A server may act on it from the dot on."""

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(rb"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: +|$)")
_ADDRESS = re.compile(r"[^\s<>\x00-\x1f\x7f-\x9f\u2028\u2029]{1,320}")


class ReplyMalformed(Exception):
    """What arrived is no SMTP reply, or one without end. ``code`` is a token as in http_terms."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class ReplyReader:
    """Collects replies from a connection's bytes. After ReplyMalformed it is not to be used again."""

    __slots__ = ("_bytes", "_code", "_enhanced", "_lines", "_partial", "_waiting")

    def __init__(self) -> None:
        self._partial = b""
        self._waiting: deque[SmtpReply] = deque()
        self._lines: list[bytes] = []
        self._code: int | None = None
        self._enhanced: tuple[int, int, int] | None = None
        self._bytes = 0

    @property
    def is_empty(self) -> bool:
        """Nothing has arrived beyond what was taken."""
        return not (self._partial or self._waiting or self._lines)

    def take(self) -> SmtpReply | None:
        """The next whole reply."""
        return self._waiting.popleft() if self._waiting else None

    def feed(self, data: bytes) -> None:
        """Take in what arrived. Raises ReplyMalformed."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._take_line(line.removesuffix(b"\r"))
        if len(self._partial) > LINE_BYTES_MAX:
            raise ReplyMalformed("reply_too_large")

    def _take_line(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ReplyMalformed("protocol_error")
        self._bytes += len(line)
        if len(line) > LINE_BYTES_MAX or self._bytes > REPLY_BYTES_MAX or len(self._waiting) >= REPLIES_WAITING_MAX:
            raise ReplyMalformed("reply_too_large")
        code, dash, text = int(match[1]), match[2], match[3] or b""
        if self._code is None:
            self._code = code
        elif code != self._code:
            raise ReplyMalformed("protocol_error")
        enhanced = _ENHANCED.match(text)
        if enhanced is not None:
            text = text[enhanced.end() :]
            if self._enhanced is None:
                self._enhanced = (int(enhanced[1]), int(enhanced[2]), int(enhanced[3]))
        self._lines.append(text)
        if dash != b"-":
            self._waiting.append(SmtpReply(code, self._enhanced, b"\n".join(self._lines)))
            self._lines, self._code, self._enhanced, self._bytes = [], None, None, 0


@frozen
class Abilities:
    """What a server said it can do, in its answer to EHLO. ``size_max`` is None when it names no limit."""

    pipelining: bool = False
    starttls: bool = False
    eight_bit: bool = False
    utf8: bool = False
    size: bool = False
    size_max: int | None = None
    mechanisms: frozenset[bytes] = frozenset()


def read_abilities(reply: SmtpReply) -> Abilities:
    """The abilities in a positive answer to EHLO; its first line is the server's name."""
    words = [line.upper().replace(b"AUTH=", b"AUTH ").split() for line in reply.text.split(b"\n")[1:]]
    offered = {line[0]: line[1:] for line in words if line}
    mechanisms = {mechanism for line in words if line and line[0] == b"AUTH" for mechanism in line[1:]}
    size = offered.get(b"SIZE", [])
    limit = int(size[0]) if size and size[0].isdigit() and len(size[0]) <= 20 else 0
    return Abilities(
        pipelining=b"PIPELINING" in offered,
        starttls=b"STARTTLS" in offered,
        eight_bit=b"8BITMIME" in offered,
        utf8=b"SMTPUTF8" in offered,
        size=b"SIZE" in offered,
        size_max=limit or None,
        mechanisms=frozenset(mechanisms),
    )


def check_request(request: SmtpRequest) -> None:
    """Raises NotSent (``request_malformed``) when a part would break out of its place: command injection ends here."""
    addresses = (*request.recipients, *((request.sender,) if request.sender else ()))
    message = request.message
    if not all(_ADDRESS.fullmatch(address) and (request.utf8 or address.isascii()) for address in addresses):
        raise NotSent("protocol", "request_malformed")
    if message is None:
        return
    breaks = message.count(b"\r\n")
    if not request.recipients or message.count(b"\n") != breaks or message.count(b"\r") != breaks or b"\0" in message:
        raise NotSent("protocol", "request_malformed")


def mail_command(request: SmtpRequest, abilities: Abilities) -> bytes:
    """``MAIL FROM`` with the parameters that this server has shown to know."""
    parts = [b"MAIL FROM:<%b>" % request.sender.encode()]
    if request.message is not None and abilities.size:
        parts.append(b"SIZE=%d" % len(request.message))
    if request.message is not None and not request.message.isascii():
        parts.append(b"BODY=8BITMIME")
    if request.utf8:
        parts.append(b"SMTPUTF8")
    return b" ".join(parts) + b"\r\n"


def recipient_commands(recipients: Sequence[str]) -> list[bytes]:
    """``RCPT TO``, one for each recipient."""
    return [b"RCPT TO:<%b>\r\n" % recipient.encode() for recipient in recipients]


def stuffed(message: bytes) -> bytes:
    """A message ready for DATA, all but its end: no line of it is a lone dot, and its last one is broken."""
    if message.startswith(b"."):
        message = b"." + message
    message = message.replace(b"\r\n.", b"\r\n..")
    return message if message.endswith(b"\r\n") or not message else message + b"\r\n"


def plain_secret(login: Login) -> bytes:
    """The initial response of AUTH PLAIN."""
    return b64encode(b"\0%b\0%b" % (login.username.encode(), login.password.encode()))
