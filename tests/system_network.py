"""The providers and the way to them: what they took, what reached a recipient, and every way in which a call may end.

``Network.of(process)`` stands in the place of the process's HTTP pool. A call leaves its process at one instant, arrives at
another and is answered at a third, whatever becomes of the process in between. The ledger here is the only witness of what was
really sent; the checker believes it and nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from actors.io.http import Deadlines, MaybeSent, NotSent
from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.hints import hint_s
from dispatcher.providers.inquiry import Answer, CannotTell, Found, NotFound
from dispatcher.providers.provider import Limits

if TYPE_CHECKING:
    from random import Random

    from system_process import Process

HONOURS_KEYS = {Channel.EMAIL: True, Channel.SMS: False}
"""Whether the channel's provider answers a key it has seen before with its first answer, and sends nothing."""
ORIGIN = Origin("http", "provider.test", 80)
KINDS = {
    202: OutcomeClass.DELIVERED,
    400: OutcomeClass.HARD,
    401: OutcomeClass.MISCONFIGURED,
    429: OutcomeClass.RATE_LIMITED,
    503: OutcomeClass.SOFT,
}


class Reply(Enum):
    """How a provider meets a call."""

    OK = "ok"
    HARD = "hard"
    SOFT = "soft"
    RATE_LIMITED = "rate_limited"
    DENIED = "denied"
    ACCEPTED_IN_SILENCE = "accepted_in_silence"
    """It takes the message and never answers."""
    ACCEPTED_AND_RESET = "accepted_and_reset"
    """It takes the message, and the connection breaks before its answer."""
    SILENCE = "silence"
    """It never takes the message, and never says so."""
    RESET = "reset"
    """The connection breaks before it takes the message, and nobody can tell."""
    REFUSED = "refused"
    """There is no connection to it."""


ACCEPTING = frozenset({Reply.OK, Reply.ACCEPTED_IN_SILENCE, Reply.ACCEPTED_AND_RESET})
STATUSES = {Reply.OK: 202, Reply.HARD: 400, Reply.DENIED: 401, Reply.RATE_LIMITED: 429, Reply.SOFT: 503}


@define(eq=False)
class Call:
    """One call. Times are monotonic; ``heard_s`` is when its process learned how it ended, ``late`` that the process had stood
    still between its last look at its lease and this call."""

    process: Process
    organization_id: OrganizationId
    channel: Channel
    config_id: str
    id: NotificationId
    key: str
    attempt: int
    revision: int
    began_s: float
    began_unix_s: float
    reply: Reply
    hint: bytes | None
    travels_s: float
    late: bool
    arrived: bool = False
    answered: bool = False
    took_effect: bool = False
    heard_s: float = inf
    outcome: str = "unheard"


@define
class Answering:
    """How a call is met: the reply, how long it travels each way, and what a 429 says in ``Retry-After``."""

    reply: Reply = Reply.OK
    travels_s: float = 0.05
    hint: bytes | None = b"3"


class Bound:
    """One provider configuration of one organization. Its provider can be asked what it has taken."""

    origin = ORIGIN

    def __init__(self, policy: ProviderPolicy, key_of: Callable[[Delivery], str]) -> None:
        self.policy = policy
        self.limits = Limits(policy.rate_per_s, policy.burst, policy.concurrency_max)
        self._key_of = key_of

    def request(self, delivery: Delivery, moment: object) -> HttpRequest:
        headers = [
            (b"idempotency-key", self._key_of(delivery).encode()),
            (b"attempt", b"%d" % delivery.attempt),
            (b"revision", b"%d" % self.policy.revision),
            (b"config", self.policy.config_id.encode()),
        ]
        target = f"/{delivery.organization_id}/{delivery.channel.value}/{delivery.id}".encode()
        return HttpRequest(ORIGIN, b"POST", target, headers)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        kind = KINDS[response.status]
        code = "accepted" if kind is OutcomeClass.DELIVERED else f"http_{response.status}"
        return Outcome(kind, code, retry_after_s=hint_s(response, now_unix_s))

    def inquiry(self, delivery: Delivery) -> HttpRequest:
        target = f"/{delivery.organization_id}/{delivery.channel.value}/{delivery.id}".encode()
        return HttpRequest(ORIGIN, b"GET", target, [*self._names(delivery)])

    def _names(self, delivery: Delivery) -> list[tuple[bytes, bytes]]:
        return [(b"attempt", b"%d" % delivery.attempt), (b"config", self.policy.config_id.encode())]

    def found(self, response: HttpResponse, _now_unix_s: float) -> Answer:
        answers: dict[int, Answer] = {200: Found(None), 404: NotFound()}
        return answers.get(response.status, CannotTell(f"inquiry_{response.status}"))


@define
class Network:
    """All providers. ``conduct`` decides how each call is met."""

    random: Random
    conduct: Callable[[Process, NotificationId], Answering]
    on_call: Callable[[Call], None]
    calls: list[Call] = field(factory=list, init=False)
    taken: set[tuple[str, str]] = field(factory=set, init=False)  # accounts, and keys under which they accepted something
    effects: dict[NotificationId, int] = field(factory=dict, init=False)
    accepts: dict[NotificationId, int] = field(factory=dict, init=False)
    known: set[tuple[str, NotificationId]] = field(factory=set, init=False)  # what each account has accepted
    through: str = field(default="", init=False)
    """The account that is called when ``conduct`` is asked."""
    denied: set[tuple[NotificationId, int]] = field(factory=set, init=False)
    """Attempts before which the provider was asked, and said that it knew nothing of the notification."""

    def of(self, process: Process) -> ProcessNetwork:
        """The network as one process sees it."""
        return ProcessNetwork(self, process)

    def arrive(self, call: Call) -> None:
        """A call reaches its provider."""
        call.arrived = True
        if call.reply in ACCEPTING:
            self.known.add((call.config_id, call.id))
        if HONOURS_KEYS[call.channel] and (call.config_id, call.key) in self.taken:
            if call.reply in (Reply.HARD, Reply.SOFT):
                call.reply = Reply.OK  # its first answer once more
            if call.reply in ACCEPTING:
                self.accepts[call.id] = self.accepts.get(call.id, 0) + 1
        elif call.reply in ACCEPTING:
            self.taken.add((call.config_id, call.key))
            self.accepts[call.id] = self.accepts.get(call.id, 0) + 1
            self.effects[call.id] = self.effects.get(call.id, 0) + 1
            call.took_effect = True


@define
class ProcessNetwork:
    """What one process has for an HTTP pool."""

    network: Network
    process: Process

    async def exchange(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
        """One call. Raises NotSent or MaybeSent, as the real pool does."""
        stood_still = await self.process.steady()
        if request.method == b"GET":
            return await self._inquire(request, deadlines)
        call = self._begin(request, late=stood_still)
        try:
            with trio.move_on_after(deadlines.total_s):
                await self._travel(call)
        finally:
            if not call.arrived and call.reply is not Reply.REFUSED and self.network.random.random() < 0.5:
                self.network.arrive(call)  # its process is gone, it is on its way
        await self.process.steady()
        call.heard_s = trio.current_time()
        return self._answer(call)

    async def _inquire(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
        """Ask for one notification. What answers is as well or as ill as what takes messages."""
        id, headers = NotificationId(request.target.decode().rpartition("/")[2]), dict(request.headers)
        self.network.through = account = headers[b"config"].decode()
        answering = self.network.conduct(self.process, id)
        if answering.reply is Reply.REFUSED:
            raise NotSent("connect", "refused")
        with trio.move_on_after(deadlines.total_s):
            if answering.reply not in STATUSES:
                await trio.sleep_forever()
            await trio.sleep(answering.travels_s)
            status = STATUSES[answering.reply]
            if answering.reply is Reply.OK:
                status = 200 if (account, id) in self.network.known else 404
            if status == 404:
                self.network.denied.add((id, int(headers[b"attempt"])))
            await trio.sleep(answering.travels_s)
            await self.process.steady()
            return HttpResponse(status, [], b"")
        await self.process.steady()
        raise MaybeSent("read", "timeout_read")

    def _begin(self, request: HttpRequest, *, late: bool) -> Call:
        _, organization_id, channel, id = request.target.decode().split("/")
        headers = dict(request.headers)
        self.network.through = headers[b"config"].decode()
        answering = self.network.conduct(self.process, NotificationId(id))
        call = Call(
            self.process,
            OrganizationId(organization_id),
            Channel(channel),
            self.network.through,
            NotificationId(id),
            headers[b"idempotency-key"].decode(),
            int(headers[b"attempt"]),
            int(headers[b"revision"]),
            trio.current_time(),
            self.process.unix_s(),
            answering.reply,
            answering.hint,
            answering.travels_s,
            late,
        )
        self.network.calls.append(call)
        self.network.on_call(call)
        return call

    async def _travel(self, call: Call) -> None:
        await trio.sleep(call.travels_s)
        if call.reply is Reply.REFUSED:
            return
        self.network.arrive(call)
        if call.reply in (Reply.SILENCE, Reply.ACCEPTED_IN_SILENCE):
            await trio.sleep_forever()
        await trio.sleep(call.travels_s)
        call.answered = True

    def _answer(self, call: Call) -> HttpResponse:
        status = STATUSES.get(call.reply)
        if call.reply is Reply.REFUSED:
            call.outcome = "not_sent"
            raise NotSent("connect", "refused")
        if status is None or not call.answered:
            call.outcome = "unknown"
            silent = call.reply not in (Reply.RESET, Reply.ACCEPTED_AND_RESET)
            raise MaybeSent("read", "timeout_read" if silent else "reset")
        call.outcome = KINDS[status].value
        hint = [(b"retry-after", call.hint)] if status == 429 and call.hint is not None else []
        return HttpResponse(status, hint, b"")
