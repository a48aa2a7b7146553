"""An event desk between memory ports, for tests: what is set up, who is there, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import orjson
import pytest
import trio

from actors.acceptor import Acceptor
from actors.acceptor_answers import Answer
from actors.cache import HotCache
from actors.direct import DirectDesk
from actors.due import DueDesk
from actors.events import EventDesk
from actors.knowledge import Knowledge
from actors.memory import MemoryQueue
from actors.memory_people import MemoryPeople
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase, Row
from actors.metrics import Metrics
from actors.planned_rows import Rows
from dispatcher.acceptance import AcceptLimits
from dispatcher.decisions import Step
from dispatcher.definitions import Definition, Kind
from dispatcher.model import Channel, Lane, OrganizationId, Template
from dispatcher.people import ContactPoint, User
from dispatcher.problems import Problem, Refused
from dispatcher.setup import Setup
from dispatcher.template_sets import TemplateSet
from dispatcher.templates import CompiledTemplate
from dispatcher.unsubscribe import Links
from dispatcher.vault import EncryptionKeys

ORG = OrganizationId("acme")
NOW = 1_800_000_000.0
OURS = "0192d3a4-7c1e-7f00-8000-0123456789ab"
LINKS = Links("https://notify.example.org", EncryptionKeys.of({"k1": bytes(32)}))


def template(name: str, channel: Channel, locale: str, text: str, subject: str | None = None, version: int = 1) -> Template:
    return Template(f"{name}-{channel}-{locale}", ORG, name, channel, locale, version, subject, text, None, {})


def template_set(*templates: Template) -> TemplateSet:
    return TemplateSet({each.locale: CompiledTemplate.of(each) for each in templates}, templates[0].locale)


PURCHASE = {
    ("purchase", Channel.EMAIL): template_set(
        template("purchase", Channel.EMAIL, "en", "Thank you, {{ name }}.", "Your order {{ order }}"),
        template("purchase", Channel.EMAIL, "pt", "Obrigado, {{ name }}.", "O seu pedido {{ order }}"),
    ),
    ("purchase", Channel.PUSH): template_set(template("purchase", Channel.PUSH, "en", "Order {{ order }} is here.")),
    ("purchase", Channel.SMS): template_set(template("purchase", Channel.SMS, "en", "Order {{ order }}.")),
}


def point(channel: Channel, recipient: str, number: int = 1, **details: Any) -> ContactPoint:
    return ContactPoint(f"0192d3a4-0000-7000-8000-{number:012d}", channel, recipient, **details)


ANA = User(
    "ana",
    "pt-BR",
    "America/Sao_Paulo",
    None,
    (point(Channel.EMAIL, "ana@example.org", 1), point(Channel.PUSH, "token-1", 2), point(Channel.PUSH, "token-2", 3)),
)
RULE: Mapping[str, Any] = {
    "event": "ticketing.purchase.completed",
    "when": "data.total > 0",
    "topic": "purchases",
    "recipients": [{"user": "data.buyer"}],
    "send": [{"channel": "email", "template": "purchase"}],
}


def event(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"evt-{number}",
        "type": "ticketing.purchase.completed",
        "data": {"buyer": "ana", "total": 12, "name": "Ana", "order": number},
        **changes,
    }


def setup_of(definitions: Mapping[str, Mapping[str, Mapping[str, Any]]], default_locale: str = "en") -> Setup:
    """A set-up out of documents by kind and name."""
    found = [Definition(Kind(kind), name, body) for kind, named in definitions.items() for name, body in named.items()]
    made = Setup.of(default_locale, found)
    assert not made.faults, [(fault.name, fault.problem) for fault in made.faults]
    return made


PLANNED_STEPS = tuple(Step)[: tuple(Step).index(Step.ATTEMPT)]
"""The steps of a chain as it is planned."""


class Desk:
    """The desk of one process. ``lanes`` are those that somebody serves, and whether their account has a limit."""

    def __init__(self, database: MemoryDatabase | None = None, incarnation: str = OURS, pending_max: int = 10_000) -> None:
        self.now_s = NOW
        self.database = database or MemoryDatabase(lambda: self.now_s)
        self.store = MemoryStore(self.database, incarnation)
        self.people = MemoryPeople(self.database)
        self.queue = MemoryQueue(lambda: self.now_s, lease_s=60)
        self.metrics = Metrics()
        self.cache: HotCache[Any] = HotCache(ttl_min_s=300, ttl_max_s=900, random=Random(1))
        self.setup = Setup()
        self.templates: dict[tuple[str, Channel], TemplateSet] = dict(PURCHASE)
        self.lanes: dict[Lane, bool] = {"email": False, "push": True, "sms": False}
        self.knowledge = Knowledge(
            self.store,
            self.people,
            cache_of=lambda _: self.cache,
            load_setup=self._load_setup,
            load_template_set=self._load_template_set,
            load_lane_limits=self._load_lanes,
            item_bytes_max=20_000,
            links=LINKS,
        )
        rows, limits = Rows(8, Random(4)), AcceptLimits(items_max=50, item_bytes_max=20_000)
        self.acceptor = Acceptor(
            self.store,
            self.queue,
            self.metrics,
            limits=limits,
            attempts_max=8,
            rows_max=1_000,
            pending_max=pending_max,
            tick_s=0.002,
            cache_of=lambda _: self.cache,
            load_template=self._load_template,
            load_setup=self._load_setup,
            load_lanes=self._load_served,
            stored_answer=self._no_answer,
            direct=DirectDesk(self.knowledge, rows, self.metrics),
            wake=lambda _: None,
            unix_s=lambda: self.now_s,
            random=Random(2),
        )
        self.admitting = self.acceptor.admitting
        self.due = DueDesk(self.knowledge, self.metrics, rows, lambda: self.now_s)
        self.desk = EventDesk(
            self.store,
            self.admitting,
            self.knowledge,
            self.metrics,
            limits=limits,
            rows=rows,
            unix_s=lambda: self.now_s,
            random=Random(3),
        )

    def set_up(self, **definitions: Mapping[str, Mapping[str, Any]]) -> None:
        """Definitions by kind and name, in place of those before."""
        self.setup = setup_of(definitions)
        self.cache.drop()

    def user(self, user: User) -> None:
        self.people.put(ORG, user)

    async def accept(self, document: Any) -> Answer:
        return await self.desk.accept(ORG, orjson.dumps(document))

    async def answer(self, document: Any) -> dict[str, Any]:
        parsed: dict[str, Any] = orjson.loads((await self.accept(document)).body)
        return parsed

    async def refused(self, document: Any) -> Problem:
        with pytest.raises(Refused) as caught:
            await self.accept(document)
        return caught.value.problem

    async def explain(self, document: Any, *, with_payload: bool = False) -> dict[str, Any]:
        return await self.desk.explain(ORG, document, with_payload=with_payload)

    async def accept_item(self, document: Any, key: str | None = None) -> dict[str, Any]:
        answer = await self.acceptor.accept(ORG, orjson.dumps(document), key)
        parsed: dict[str, Any] = orjson.loads(answer.body)
        return parsed

    async def refused_item(self, document: Any) -> Problem:
        with pytest.raises(Refused) as caught:
            await self.accept_item(document)
        return caught.value.problem

    async def explain_item(self, document: Any) -> dict[str, Any]:
        return await self.acceptor.explain(ORG, document, with_payload=True)

    def rows(self) -> list[Row]:
        return list(self.database.rows.values())

    def queued(self) -> list[str]:
        return list(self.queue.holds(ORG)["queue"])

    def codes(self, row: Row) -> list[str]:
        return [decision["code"] for decision in row.decisions or ()]

    async def _load_setup(self, _: OrganizationId) -> Setup:
        await trio.lowlevel.checkpoint()
        return self.setup

    async def _load_template_set(self, _: OrganizationId, name: str, channel: Channel) -> TemplateSet | None:
        await trio.lowlevel.checkpoint()
        return self.templates.get((name, channel))

    async def _load_template(self, _: OrganizationId, name: str, channel: Channel, locale: str | None) -> CompiledTemplate | None:
        await trio.lowlevel.checkpoint()
        found = self.templates.get((name, channel))
        return None if found is None else found.choose(locale, self.setup.default_locale).template

    async def _load_served(self, _: OrganizationId) -> frozenset[Lane]:
        await trio.lowlevel.checkpoint()
        return frozenset(self.lanes)

    async def _no_answer(self, *_: object) -> tuple[bytes, bytes] | None:
        await trio.lowlevel.checkpoint()
        return None

    async def _load_lanes(self, _: OrganizationId) -> Mapping[Lane, bool]:
        await trio.lowlevel.checkpoint()
        return self.lanes


def codes_of(fates: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The codes of each chain of a dry run."""
    return [[decision["code"] for decision in fate["decisions"]] for fate in fates]
