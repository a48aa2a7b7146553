"""Drafts beside what is published: which version is in force, which may be published, and what a loader takes."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from actors.hot import Loaders
from actors.io.postgres import Pool
from actors.store import definitions, templates
from actors.store.page import PageRequest
from actors.store.templates import NewTemplate, State
from dispatcher.decisions import Code
from dispatcher.definitions import Kind
from dispatcher.model import Channel, OrganizationId

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
NEW = NewTemplate("purchase", Channel.SMS, "en", None, "Hello", None, {})
DRAFT = evolve(NEW, draft=True)
Ids = Callable[[], str]


async def drafts(pool: Pool, name: str = "purchase", channel: Channel | None = None) -> list[tuple[str, str, int]]:
    async with definitions.changing(pool, ACME) as change:
        found = await templates.newest_drafts(change, name, channel)
    return [(draft.channel.value, draft.locale, draft.version) for draft in found]


async def test_parts_and_schema_are_read_back(pool: Pool, new_id: Ids) -> None:
    new = evolve(NEW, parts={"layout": "base", "data": {"a": "b"}}, schema={"type": "object"})

    added = await templates.add(pool, new_id(), ACME, new)

    assert await templates.read(pool, ACME, added.template.id) == added
    assert (added.template.parts, added.template.schema) == (new.parts, new.schema)
    assert added.published_at == added.created_at


async def test_the_newest_draft_of_each_channel_and_locale_may_be_published(pool: Pool, new_id: Ids) -> None:
    mail = evolve(DRAFT, channel=Channel.EMAIL, subject="x")
    for new in (NEW, DRAFT, DRAFT, evolve(DRAFT, locale="pt"), mail, evolve(DRAFT, name="refund")):
        await templates.add(pool, new_id(), ACME, new)
    await templates.add(pool, new_id(), GLOBEX, DRAFT)

    assert await drafts(pool) == [("sms", "en", 3), ("sms", "pt", 1), ("email", "en", 1)]
    assert await drafts(pool, channel=Channel.EMAIL) == [("email", "en", 1)]
    page = await templates.read_page(pool, ACME, "purchase", PageRequest(), State.DRAFT)
    assert [each.template.version for each in page.items] == [1, 1, 3]


async def test_publishing_brings_into_force_once_and_only_ones_own(pool: Pool, new_id: Ids) -> None:
    foreign = await templates.add(pool, new_id(), GLOBEX, DRAFT)
    mine = await templates.add(pool, new_id(), ACME, DRAFT)
    retired = await templates.add(pool, new_id(), ACME, evolve(DRAFT, locale="pt"))
    await templates.retire(pool, ACME, retired.template.id)
    ids = [each.template.id for each in (foreign, mine, retired)]

    async with definitions.changing(pool, ACME) as change:
        first = await templates.publish(change, ids)
        again = await templates.publish(change, ids)
        in_force = await templates.all_in_force(change)

    assert [stored.template.id for stored in first] == [mine.template.id]
    assert again == []
    assert [template.id for template in in_force] == [mine.template.id]


async def test_the_locale_that_was_stored_first_stays_in_front(pool: Pool, new_id: Ids) -> None:
    for new in (NEW, evolve(NEW, locale="pt"), NEW):
        await templates.add(pool, new_id(), ACME, new)

    assert [template.locale for template in await templates.read_in_force(pool, ACME, "purchase", Channel.SMS)] == ["en", "pt"]


async def test_what_is_loaded_is_the_newest_published_with_its_layout(pool: Pool, new_id: Ids) -> None:
    loaders = Loaders(pool, None, ())
    await definitions.put(pool, ACME, Kind.LAYOUT, "base", {"text": "<{{ content }}>"})
    wrapped = evolve(NEW, body_template="{{ name }}", parts={"layout": "base"})
    for new in (wrapped, evolve(wrapped, locale="pt"), evolve(wrapped, body_template="draft", draft=True)):
        await templates.add(pool, new_id(), ACME, new)

    one = await loaders.template(ACME, "purchase", Channel.SMS, "pt-BR")
    found = await loaders.template_set(ACME, "purchase", Channel.SMS)

    assert one is not None
    assert found is not None
    assert (one.name, one.version, one.locale) == ("purchase", 1, "pt")
    assert one.render_payload({"name": "Ana"}) == {"text": "<Ana>"}
    assert (found.first_locale, sorted(found.by_locale)) == ("en", ["en", "pt"])
    chosen = found.choose("pt-BR", "en")
    assert (chosen.code, chosen.template.render_payload({"name": "Ana"})) == (Code.LOCALE_SHORTENED, {"text": "<Ana>"})
    assert await loaders.template_set(ACME, "purchase", Channel.EMAIL) is None
    await templates.add(pool, new_id(), ACME, evolve(DRAFT, name="refund"))
    assert await loaders.template(ACME, "refund", Channel.SMS, None) is None, "a draft is never used for sending"
    assert await loaders.template_set(ACME, "refund", Channel.SMS) is None
