"""The heart of a sandbox: one request and the time in, one reply out, the ledger written in between. No socket, no clock.

Order of the checks: outage, rate limit, the provider's own rules, then chance or a magic recipient, then the idempotency key.
A request takes effect at the moment it is decided, before any delay: whoever hangs up while waiting has sent the message.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from dispatcher_sandbox.behaviour import Behaviour, Outage
from dispatcher_sandbox.conduct import Act, Conduct, conduct
from dispatcher_sandbox.ledger import Accepted, Ledger, Remembered
from dispatcher_sandbox.messages import Answer, Request, gateway_page
from dispatcher_sandbox.rate import Rate, RateLimit
from dispatcher_sandbox.reporting import Reporting
from dispatcher_sandbox.simulator import Consent, EntryResult, Intake, OneByOne, Renewable, Search, Simulator


class Reply(NamedTuple):
    """What the connection has to do: wait ``delay_s``, then give the answer; without one, close, or stay ``silent``."""

    answer: Answer | None
    delay_s: float = 0.0
    silent: bool = False


class Exchange:
    """One sandbox. Deterministic: the same seed, behaviour, requests and times give the same replies and the same ledger."""

    def __init__(self, simulators: Sequence[Simulator], ledger: Ledger, behaviour: Behaviour, seed: int) -> None:
        simulators = [simulator.renewed() if isinstance(simulator, Renewable) else simulator for simulator in simulators]
        self._simulators = tuple((simulator.prefix, simulator) for simulator in simulators)
        self._random = random.Random(seed)
        self._rate_limit = RateLimit()
        self.ledger = ledger
        self.reporting = Reporting(simulators, ledger, seed)
        self.behaviour = behaviour

    @property
    def behaviour(self) -> Behaviour:
        """The settings now in force. Setting one that carries a seed starts the random numbers anew."""
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        if behaviour.seed is not None:
            self._random.seed(behaviour.seed)

    def handle(self, request: Request, now_s: float) -> Reply:
        """Decide about one request of a provider. ``now_s`` is in Unix seconds."""
        target = request.target
        for prefix, simulator in self._simulators:
            if target.startswith(prefix):
                return self.handle_as(simulator, request, now_s)
        return Reply(gateway_page(404))

    def handle_as(self, simulator: Simulator, request: Request, now_s: float) -> Reply:
        """Decide about one request of this provider, for the ways in that lead to one only."""
        behaviour = self._behaviour
        ledger = self.ledger
        ledger.requests += 1
        if behaviour.outage is not Outage.NONE:
            return self._away(simulator, now_s)
        rate: Rate | None = None
        if behaviour.rate_limit_per_s is not None:
            account = simulator.account(request)
            rate = self._rate_limit.take(account, behaviour.rate_limit_per_s, behaviour.rate_window_s, now_s)
            if not rate.granted:
                return self._refuse(simulator, Conduct(Act.REFUSE, behaviour.latency_s, 429), rate, now_s)
        intake = simulator.read(request, behaviour, now_s)
        if isinstance(intake, Answer):
            if intake.status >= 400:
                ledger.refused[intake.status] += 1
            return self._reply(simulator, intake, behaviour.latency_s, rate)
        if isinstance(intake, Search):
            return self._search(simulator, intake, rate, now_s)
        if isinstance(intake, Consent):
            ledger.webhooks["confirmed"] += 1
            return self._reply(simulator, intake.answer, behaviour.latency_s, rate)
        magic = intake.magic
        sight = 0 if magic is None else ledger.sight(intake.magic_name)
        chosen = conduct(behaviour, magic, sight, self._random.random())
        act = chosen.act
        if act is Act.ACCEPT:
            answer = self._accept(simulator, request, intake, now_s)
            return self._reply(simulator, answer, chosen.delay_s + behaviour.webhook_early_s, rate)
        if act is Act.REFUSE:
            return self._refuse(simulator, chosen, rate, now_s)
        if act is Act.DROP:
            self._accept(simulator, request, intake, now_s)
            ledger.dropped += 1
            return Reply(None, chosen.delay_s)
        ledger.unanswered += 1
        return Reply(None, chosen.delay_s, act is Act.SILENT)

    def _accept(self, simulator: Simulator, request: Request, intake: Intake, now_s: float) -> Answer:
        ledger = self.ledger
        if intake.validate_only:
            ledger.validated += 1
            return simulator.validated()
        if intake.entries:
            return self._accept_each(simulator, request, intake, now_s)
        key = intake.idempotency_key
        if key is None or not self._behaviour.honour_idempotency_keys:
            message_id, answer = (intake.words or simulator.accepted)(self._random.getrandbits(128))
            self._took_effect(simulator, request, intake, message_id, now_s)
            return answer
        fingerprint = zlib.crc32(request.body)
        known = ledger.remembered(key, now_s - self._behaviour.idempotency_retention_s)
        if known is None:
            message_id, answer = (intake.words or simulator.accepted)(self._random.getrandbits(128))
            self._took_effect(simulator, request, intake, message_id, now_s)
            ledger.remember(key, Remembered(message_id, fingerprint, now_s))
            return answer
        if known.fingerprint != fingerprint:
            ledger.refused[422] += 1
            return simulator.refused(422, "idempotency_key")
        ledger.replayed += 1
        return simulator.replayed(known.message_id)

    def _accept_each(self, simulator: Simulator, request: Request, intake: Intake, now_s: float) -> Answer:
        """Each entry by itself; what is refused has no effect, and is counted by its status as a request would be."""
        assert isinstance(simulator, OneByOne)
        behaviour, ledger = self._behaviour, self.ledger
        message_id, _ = simulator.accepted(self._random.getrandbits(128))
        results: list[EntryResult] = []
        for index, entry in enumerate(intake.entries):
            act, _, status, reason = Conduct(Act.REFUSE, 0.0, 400, entry.fault) if entry.fault else Conduct(Act.ACCEPT)
            if entry.magic is not None and not entry.fault:
                act, _, status, reason = conduct(behaviour, entry.magic, ledger.sight(entry.magic_name), 0.0)
            if act is Act.REFUSE:
                ledger.refused[status] += 1
                results.append(EntryResult(None, status, reason))
            else:
                results.append(EntryResult(simulator.entry_id(message_id, index)))
        accepted = [index for index, result in enumerate(results) if result.message_id is not None]
        if accepted:
            correlations = tuple(intake.entries[index].correlation for index in accepted)
            ledger.record(Accepted(simulator.name, message_id, now_s, None, correlations, request.body))
            self.reporting.accepted(simulator.name, request, message_id, behaviour, now_s, accepted)
        return simulator.answered(results)

    def _took_effect(self, simulator: Simulator, request: Request, intake: Intake, message_id: str, now_s: float) -> None:
        key = intake.idempotency_key
        self.ledger.record(Accepted(simulator.name, message_id, now_s, key, intake.correlations, request.body))
        self.reporting.accepted(simulator.name, request, message_id, self._behaviour, now_s)

    def _search(self, simulator: Simulator, search: Search, rate: Rate | None, now_s: float) -> Reply:
        """Answer from the ledger, with the same luck as any other request."""
        behaviour, ledger = self._behaviour, self.ledger
        chosen = conduct(behaviour, None, 0, self._random.random())
        if chosen.act is Act.REFUSE:
            return self._refuse(simulator, chosen, rate, now_s)
        if chosen.act is not Act.ACCEPT:
            ledger.unanswered += 1
            return Reply(None, chosen.delay_s)
        ledger.searched += 1
        sent = ledger.sent(search.notification_id, now_s - behaviour.activity_lag_s)
        return self._reply(simulator, simulator.listing(sent[: search.limit]), chosen.delay_s, rate)

    def _refuse(self, simulator: Simulator, chosen: Conduct, rate: Rate | None, now_s: float) -> Reply:
        self.ledger.refused[chosen.status] += 1
        if chosen.status == 429 and (rate is None or rate.granted):
            limit = simulator.ceiling_per_s if rate is None else rate.limit
            rate = Rate(False, limit, 0, math.floor(now_s) + 1)
        return self._reply(simulator, simulator.refused(chosen.status, chosen.reason), chosen.delay_s, rate)

    def _away(self, simulator: Simulator, now_s: float) -> Reply:
        outage = self._behaviour.outage
        if outage is Outage.UNAVAILABLE:
            return self._refuse(simulator, Conduct(Act.REFUSE, self._behaviour.latency_s, 503), None, now_s)
        self.ledger.unanswered += 1
        return Reply(None, 0.0, outage is Outage.SILENT)

    def _reply(self, simulator: Simulator, answer: Answer, delay_s: float, rate: Rate | None) -> Reply:
        if rate is not None and self._behaviour.rate_limit_headers:
            answer = answer._replace(headers=answer.headers + simulator.rate_headers(rate))
        return Reply(answer, delay_s)
