"""One session of the submission server: lines in, replies out, strict about order and syntax. No socket, no clock."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.exchange import Exchange, Reply
from dispatcher_sandbox.smtp.simulator import Envelope, MailRequest, Smtp, refusal_of, reply_to

SIZE_MAX = 10 * 1024 * 1024
RECIPIENTS_MAX = 100
WRONG = "wrong"
"""The password that is refused. Every other that is not empty is right, for every user."""
LATER = "later"
"""The password that can not be checked at this moment."""

_MAIL = re.compile(r"FROM:<([^<>\s]*)>((?: [A-Z0-9]+(?:=[\x21-\x7e]+)?)*)", re.IGNORECASE)
_RCPT = re.compile(r"TO:<([^<>\s]+)>", re.IGNORECASE)
_ADDRESS = re.compile(r"[^@\s]{1,64}@[A-Za-z0-9\u0080-\U0010ffff]([A-Za-z0-9.\u0080-\U0010ffff-]{0,253})")


class Then(Enum):
    """What follows a reply."""

    GO_ON = auto()
    STARTTLS = auto()
    MESSAGE = auto()
    """The lines of a message, up to its end."""
    CLOSE = auto()
    SILENT = auto()


class Step(NamedTuple):
    """A reply, without its last line end, and what follows."""

    reply: bytes
    then: Then = Then.GO_ON


class Session:
    """The state of one connection. ``secure`` is set once it speaks TLS."""

    def __init__(self, exchange: Exchange, simulator: Smtp, *, secure: bool) -> None:
        self._exchange = exchange
        self._simulator = simulator
        self._secure = secure
        self._greeted = False
        self._account: str | None = None
        self._asked: list[bytes] | None = None  # what AUTH LOGIN has been told so far
        self._plain_asked = False
        self._reset()

    def greeting(self) -> Step:
        """The first reply."""
        return self._away() or Step(b"220 sandbox.test ESMTP")

    def begin_tls(self) -> None:
        """What was said in the clear counts for nothing."""
        self._secure, self._greeted, self._account = True, False, None
        self._reset()

    def line(self, line: bytes) -> Step:
        """Answer one line, without its end."""
        if self._asked is not None or self._plain_asked:
            return self._login_line(line)
        if b"\r" in line or b"\n" in line or b"\0" in line:
            return Step(b"500 5.5.2 A line ends in CR and LF", Then.CLOSE)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return Step(b"500 5.5.2 Not UTF-8")
        verb, _, rest = text.partition(" ")
        handlers: dict[str, Callable[[str], Step]] = {
            "EHLO": self._ehlo, "HELO": self._ehlo, "STARTTLS": self._starttls, "AUTH": self._auth, "MAIL": self._mail,
            "RCPT": self._rcpt, "DATA": self._data, "RSET": self._rset, "NOOP": lambda _: Step(b"250 2.0.0 Ok"),
            "QUIT": lambda _: Step(b"221 2.0.0 Bye", Then.CLOSE), "VRFY": lambda _: Step(b"252 2.1.5 Try it"),
        }  # fmt: skip
        handler = handlers.get(verb.upper())
        return Step(b"502 5.5.1 Command not recognized") if handler is None else handler(rest)

    def message(self, message: bytes, now_s: float, *, too_large: bool) -> Reply:
        """Answer a whole message."""
        envelope = Envelope(self._account or "", self._sender or "", tuple(self._recipients), self._eight_bit)
        self._reset()
        if too_large:
            self._exchange.ledger.requests += 1
            self._exchange.ledger.refused[552] += 1
            return Reply(reply_to(413, ""))
        return self._exchange.handle_as(self._simulator, MailRequest(envelope, message), now_s)

    def _reset(self) -> None:
        self._sender: str | None = None
        self._recipients: list[tuple[str, bool]] = []
        self._eight_bit = self._utf8 = False

    def _away(self) -> Step | None:
        match self._exchange.behaviour.outage:
            case Outage.UNAVAILABLE:
                return Step(b"421 4.3.2 Service not available", Then.CLOSE)
            case Outage.CLOSE:
                return Step(b"", Then.CLOSE)
            case Outage.SILENT:
                return Step(b"", Then.SILENT)
        return None

    def _ehlo(self, rest: str) -> Step:
        if not rest.strip():
            return Step(b"501 5.5.4 EHLO needs a name")
        self._greeted = True
        self._reset()
        offers = ["sandbox.test", "PIPELINING", f"SIZE {SIZE_MAX}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        offers.append("AUTH PLAIN LOGIN" if self._secure else "STARTTLS")
        return Step("\r\n".join(f"250{' ' if offer is offers[-1] else '-'}{offer}" for offer in offers).encode())

    def _starttls(self, rest: str) -> Step:
        if rest:
            return Step(b"501 5.5.4 STARTTLS takes no parameters")
        if self._secure or not self._greeted:
            return Step(b"503 5.5.1 Not now")
        return Step(b"220 2.0.0 Ready", Then.STARTTLS)

    def _auth(self, rest: str) -> Step:
        if not self._secure:
            return Step(b"538 5.7.11 Encryption required")
        if not self._greeted or self._account is not None or self._sender is not None:
            return Step(b"503 5.5.1 Not now")
        mechanism, _, initial = rest.partition(" ")
        if mechanism.upper() == "PLAIN":
            if initial:
                return self._plain(initial.encode())
            self._plain_asked = True
            return Step(b"334 ")
        if mechanism.upper() == "LOGIN":
            self._asked = []
            return self._login_line(initial.encode()) if initial else Step(b"334 VXNlcm5hbWU6")
        return Step(b"504 5.5.4 Mechanism not known")

    def _login_line(self, line: bytes) -> Step:
        if line == b"*":
            self._asked, self._plain_asked = None, False
            return Step(b"501 5.7.0 Cancelled")
        if self._plain_asked:
            self._plain_asked = False
            return self._plain(line)
        assert self._asked is not None
        self._asked.append(line)
        if len(self._asked) == 1:
            return Step(b"334 UGFzc3dvcmQ6")
        parts, self._asked = self._asked, None
        try:
            username, password = (base64.b64decode(part, validate=True).decode() for part in parts)
        except (binascii.Error, UnicodeDecodeError):
            return Step(b"501 5.5.2 Not base64")
        return self._check(username, password)

    def _plain(self, initial: bytes) -> Step:
        try:
            parts = base64.b64decode(initial, validate=True).decode().split("\0")
        except (binascii.Error, UnicodeDecodeError):
            return Step(b"501 5.5.2 Not base64")
        return self._check(parts[1], parts[2]) if len(parts) == 3 else Step(b"501 5.5.2 Not three parts")

    def _check(self, username: str, password: str) -> Step:
        if password == LATER:
            return Step(b"454 4.7.0 Temporary authentication failure")
        if not username or not password or password == WRONG:
            return Step(b"535 5.7.8 Authentication credentials invalid")
        self._account = username
        return Step(b"235 2.7.0 Welcome")

    def _mail(self, rest: str) -> Step:
        away = self._away()
        if away is not None:
            return away
        if not self._secure:
            return Step(b"530 5.7.0 Must issue a STARTTLS command first")
        if self._account is None:
            return Step(b"530 5.7.0 Authentication required")
        if self._sender is not None:
            return Step(b"503 5.5.1 One sender at a time")
        match = _MAIL.fullmatch(rest)
        if match is None:
            return Step(b"501 5.5.4 MAIL FROM:<address>")
        for parameter in match[2].split():
            name, _, value = parameter.upper().partition("=")
            if name == "SIZE" and value.isdigit():
                if int(value) > SIZE_MAX:
                    return Step(b"552 5.3.4 Message too large")
            elif (name, value) == ("BODY", "8BITMIME"):
                self._eight_bit = True
            elif (name, value) == ("SMTPUTF8", ""):
                self._utf8 = True
            elif (name, value) != ("BODY", "7BIT"):
                return Step(b"555 5.5.4 Parameter not known")
        refusal = self._address_fault(match[1], b"1.7") if match[1] else None
        if refusal is None:
            self._sender = match[1]
            return Step(b"250 2.1.0 Ok")
        return refusal

    def _rcpt(self, rest: str) -> Step:
        if self._sender is None:
            return Step(b"503 5.5.1 Sender first")
        match = _RCPT.fullmatch(rest)
        if match is None:
            return Step(b"501 5.5.4 RCPT TO:<address>")
        recipient = match[1]
        step = self._address_fault(recipient, b"1.3")
        if step is None and sum(taken for _, taken in self._recipients) >= RECIPIENTS_MAX:
            step = Step(b"452 4.5.3 Too many recipients")
        if step is None:
            step = self._trick(recipient)
        self._recipients.append((recipient, step is None))
        return step or Step(b"250 2.1.5 Ok")

    def _trick(self, recipient: str) -> Step | None:
        """The refusal of a magic recipient. It is counted by address: a mail has no name yet."""
        behaviour, ledger = self._exchange.behaviour, self._exchange.ledger
        magic = refusal_of(recipient) if behaviour.magic_recipients else None
        if magic is None or ledger.sight(f"smtp {recipient}") > magic.times:
            return None
        ledger.requests += 1
        ledger.refused[magic.status] += 1
        answer = reply_to(magic.status, magic.reason)
        return Step(b"%d %b" % (answer.status, answer.body), Then.CLOSE if answer.status == 421 else Then.GO_ON)

    def _address_fault(self, address: str, detail: bytes) -> Step | None:
        if not address.isascii() and not self._utf8:
            return Step(b"553 5.6.7 SMTPUTF8 required")
        return None if _ADDRESS.fullmatch(address) else Step(b"553 5.%b Not an address" % detail)

    def _data(self, rest: str) -> Step:
        if rest:
            return Step(b"501 5.5.4 DATA takes no parameters")
        if self._sender is None:
            return Step(b"503 5.5.1 Sender first")
        if not any(taken for _, taken in self._recipients):
            return Step(b"554 5.5.1 No valid recipients")
        return Step(b"354 End data with <CR><LF>.<CR><LF>", Then.MESSAGE)

    def _rset(self, _rest: str) -> Step:
        self._reset()
        return Step(b"250 2.0.0 Ok")
