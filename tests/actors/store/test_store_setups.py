"""A whole set-up at rest: read at one moment, and changed in one piece or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.io.postgres import Pool
from actors.store import definitions, setups
from dispatcher.bundle import POLICY_KEY, Bundle, Change, Contents, Key, changes, document_of, merged, read_bundle
from dispatcher.definitions import Kind
from dispatcher.model import OrganizationId

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
Ids = Callable[[], str]
SMS = Key("template", "paid", "sms", "en")
WHATSAPP = Key("template", "paid", "whatsapp", "en")
WHOLE: Contents = {
    POLICY_KEY: {"kept_days": 30},
    Key("topic", "orders"): {"title": "Orders"},
    Key("rule", "paid"): {"event": "a.b"},
    SMS: {"body_template": "Paid", "schema": {"type": "object"}},
    WHATSAPP: {"whatsapp": {"name": "paid", "language": "en", "parameters": ["{{ a }}"]}, "variables": {"a": {"required": True}}},
}


def decided(before: Contents, after: Contents, *, prune: bool = True) -> tuple[list[Change], Contents]:
    bundle: Bundle
    bundle, _ = read_bundle({**document_of(after), "prune": prune})
    return changes(before, bundle), merged(before, bundle)


async def apply(pool: Pool, new_id: Ids, before: Contents, after: Contents) -> bool:
    return await setups.apply(pool, ACME, before, *decided(before, after), new_id)


async def test_what_is_applied_is_what_is_read(pool: Pool, new_id: Ids) -> None:
    nothing = await setups.read(pool, ACME)

    assert nothing == {POLICY_KEY: {}}
    assert await apply(pool, new_id, nothing, WHOLE)
    assert await setups.read(pool, ACME) == WHOLE
    assert await setups.read(pool, GLOBEX) == {POLICY_KEY: {}}


async def test_what_is_left_out_goes_and_comes_back_as_a_further_version(pool: Pool, new_id: Ids) -> None:
    nothing = await setups.read(pool, ACME)
    await apply(pool, new_id, nothing, WHOLE)
    less = {key: body for key, body in WHOLE.items() if key not in (SMS, Key("rule", "paid"))}

    assert await apply(pool, new_id, WHOLE, less)
    assert await setups.read(pool, ACME) == less
    assert await apply(pool, new_id, less, WHOLE)
    assert await setups.read(pool, ACME) == WHOLE
    rows = await pool.fetch("SELECT channel, version, deleted_at IS NULL FROM notification_templates ORDER BY channel, version")
    assert rows == [("sms", 1, False), ("sms", 2, True), ("whatsapp", 1, True)]


async def test_nothing_is_applied_to_another_set_up_than_was_seen(pool: Pool, new_id: Ids) -> None:
    seen = await setups.read(pool, ACME)
    await definitions.put(pool, ACME, Kind.TOPIC, "meanwhile", {})

    assert not await apply(pool, new_id, seen, WHOLE)
    assert await setups.read(pool, ACME) == {POLICY_KEY: {}, Key("topic", "meanwhile"): {}}


async def test_a_change_that_breaks_off_leaves_nothing_behind(pool: Pool) -> None:
    def no_id() -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await apply(pool, no_id, {POLICY_KEY: {}}, WHOLE)

    assert await setups.read(pool, ACME) == {POLICY_KEY: {}}
