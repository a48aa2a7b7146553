"""What an organization has set up, as the hot cache gets it: whole, and without what can not be used."""

from __future__ import annotations

import logging
from random import Random

import pytest

from actors.hot import Loaders
from actors.io.postgres import open_pool
from actors.store import definitions, organizations
from dispatcher.definitions import POLICY_NAME, Kind
from dispatcher.model import OrganizationId

ACME = OrganizationId("acme")
RULE = {"event": "order.paid", "recipients": [{"user": "event.user_id"}], "send": [{"channel": "email", "template": "paid"}]}


async def test_what_can_not_be_used_is_left_out_and_logged_by_its_name_alone(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(database_url, size_max=2, connect_deadline_s=5, statement_deadline_s=5, random=Random(1)) as pool:
        await organizations.create(pool, ACME, "Acme", "pt")
        await definitions.put(pool, ACME, Kind.RULE, "paid", RULE)
        await definitions.put(pool, ACME, Kind.RULE, "newer", {"event": "order.paid", "secret": "sesame"})
        await definitions.put(pool, ACME, Kind.TOPIC, "offers", {"title": "Offers"})
        await definitions.put(pool, ACME, Kind.POLICY, POLICY_NAME, {"time_zone": "Europe/Lisbon"})

        with caplog.at_level(logging.ERROR):
            setup = await Loaders(pool, None, ()).setup(ACME)

    assert setup.default_locale == "pt"
    assert [rule.name for rule in setup.rules_for("order.paid")] == ["paid"]
    assert (list(setup.topics), setup.policy.time_zone) == (["offers"], "Europe/Lisbon")
    assert [(fault.kind, fault.name) for fault in setup.faults] == [(Kind.RULE, "newer")]
    assert "the rule 'newer' can not be used" in caplog.text
    assert "sesame" not in caplog.text
