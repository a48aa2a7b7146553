"""The terms of a mail transaction: what bounds a pool, and what a failure is.

The failures are those of HTTP, :class:`~actors.io.http_terms.NotSent` and :class:`~actors.io.http_terms.MaybeSent`, and the line
between them is sharper here: a server takes a message on when it has seen the dot that ends it, and must forget what was not
ended so. So everything that fails before a byte of that end was handed to the network is NotSent, however much of the message
was; everything after it is MaybeSent. A refusal is neither, it is an answer.

| phase | codes |
|---|---|
| pool | timeout_pool, pool_full, pool_closed |
| resolve, connect, tls | as for HTTP, and starttls_injected: something stood in the clear behind the answer to STARTTLS |
| write | timeout_write, reset, tls_failed, pool_closed |
| read | timeout_read, closed, reset, tls_failed, protocol_error (no reply), out_of_step (unasked), rset_refused, pool_closed |
| limit | reply_too_large |
| protocol | request_malformed, always NotSent: the request itself can never be written down |
"""

from __future__ import annotations

from math import inf

import trio
from attrs import field, frozen
from attrs.validators import ge, gt

from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent, Phase


@frozen
class SmtpPoolLimits:
    """What a pool may hold, and how long a connection is used."""

    connections_per_login_max: int = field(default=64, validator=ge(1))
    """Connections to one origin with one login. A provider's ``concurrency_max`` is usually less."""
    connections_max: int = field(default=1024, validator=ge(1))
    idle_s: float = field(default=20.0, validator=gt(0))
    """Shorter than the patience of submission servers, the public ones of which end idle sessions after half a minute."""
    age_s: float = field(default=300.0, validator=gt(0))
    messages_max: int = field(default=100, validator=ge(1))
    """Transactions on one connection. Many servers end the session after as many, and spread their load by that."""


@frozen
class SmtpPoolStatistics:
    """A pool at one moment. ``connections`` counts those idle, in use, and being opened."""

    connections: int
    idle: int
    in_use: int
    waiting: int
    opened_total: int
    stale_total: int
    """Idle connections found ended by the server at the moment of reuse."""


class Progress:
    """How far an exchange has come, and hence what a failure at this moment means."""

    __slots__ = ("_deadlines", "_ends_s", "_scope", "handed", "phase")

    def __init__(self, scope: trio.CancelScope, deadlines: Deadlines) -> None:
        self.phase: Phase = "pool"
        self.handed = False
        """A byte of the message's end was handed to the network: from here on the server may have taken it on."""
        self._scope = scope
        self._deadlines = deadlines
        self._ends_s = trio.current_time() + deadlines.total_s

    @property
    def ends_s(self) -> float:
        """When the whole exchange ends, on Trio's clock."""
        return self._ends_s

    def enter(self, phase: Phase) -> float:
        """A new step begins, with a deadline of its own on Trio's clock, which is returned."""
        d = self._deadlines
        steps_s = {"pool": d.pool_s, "connect": d.connect_s, "tls": d.connect_s, "write": d.write_s, "read": d.read_s}
        self.phase = phase
        deadline_s = min(trio.current_time() + steps_s.get(phase, inf), self._ends_s)
        self._scope.deadline = deadline_s
        return deadline_s

    def failure(self, code: str | None = None, phase: Phase | None = None) -> ExchangeFailed:
        """The failure of the present step, by default its deadline."""
        return (MaybeSent if self.handed else NotSent)(phase or self.phase, code or f"timeout_{self.phase}")
