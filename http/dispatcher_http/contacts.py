"""Contacts of an organization: who is suppressed and why, and deciding about it by hand.

An address stands in a body or an answer, never in a path: paths are what proxies and people write down.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.store import contacts as store
from actors.store.api_keys import Scope
from actors.store.contacts import StoredContact, Wanted
from dispatcher.acceptance import is_recipient, recipient_rule
from dispatcher.contacts import ContactStatus
from dispatcher.model import Channel
from dispatcher.problems import Refused
from dispatcher.subscriptions import normal_subscription
from dispatcher_http import wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, announce, answer, whole_change
from dispatcher_http.services import Services

ITEMS_MAX = 1_000
"""Contacts in one import."""
NOTE_CHARS_MAX = 500
_RULE = "/v1/orgs/<org>/contacts"


def routes(services: Services) -> list[Route]:
    """Reading, finding, deciding, importing."""

    async def read_page(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"status", "channel", "after", "page_size"})
        status = wire.query_choice(call.args, "status", ContactStatus)
        channel = wire.query_choice(call.args, "channel", Channel)
        page = await store.read_page(services.pool, call.organization_id, status, channel, wire.page_request(call.args))
        return answer(wire.page_document(page, contact_document))

    async def read(call: Call) -> TrioResponse:
        found = await store.read(services.pool, call.organization_id, call.id_of("contact"))
        if found is None:
            raise Refused(resource_not_found("contact"))
        return answer(contact_document(found))

    async def find(call: Call) -> TrioResponse:
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        channel, recipient = _address(fields, faults)
        fields.finish()
        faults.refuse_if_any()
        found = await store.find(services.pool, call.organization_id, channel, recipient)
        if found is None:
            raise Refused(resource_not_found("contact"))
        return answer(contact_document(found))

    async def decide(call: Call) -> TrioResponse:
        faults = wire.Faults()
        wanted = _wanted(wire.Fields(await call.json(), faults), faults)
        faults.refuse_if_any()
        with whole_change():
            (stored,), changes = await store.change(services.pool, call.organization_id, [wanted], call.key_id or None)
            await announce(services.contacts_changed(changes))
        return answer(contact_document(stored))

    async def bring_in(call: Call) -> TrioResponse:
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        rows = fields.value("items")
        fields.finish()
        wanted: list[Wanted] = []
        if not isinstance(rows, list) or not 1 <= len(rows) <= ITEMS_MAX or not all(isinstance(row, dict) for row in rows):
            faults.add("/items", "field_invalid", f"This must be a list of 1 to {ITEMS_MAX} objects.")
        else:
            places = [f"/items/{index}" for index in range(len(rows))]
            wanted = [_wanted(wire.Fields(row, faults, at), faults, at) for row, at in zip(rows, places, strict=True)]
        faults.refuse_if_any()
        with whole_change():
            stored, changes = await store.change(services.pool, call.organization_id, wanted, call.key_id or None)
            await announce(services.contacts_changed(changes))
        return answer({"contacts": len(stored), "changed": len(changes)})

    return [
        Route("GET", _RULE, Scope.CONTACTS_READ, read_page),
        Route("POST", _RULE, Scope.CONTACTS_WRITE, decide),
        Route("POST", f"{_RULE}/find", Scope.CONTACTS_READ, find),
        Route("POST", f"{_RULE}/import", Scope.CONTACTS_WRITE, bring_in),
        Route("GET", f"{_RULE}/<id>", Scope.CONTACTS_READ, read),
    ]


def _address(fields: wire.Fields, faults: wire.Faults, pointer: str = "") -> tuple[Channel, str]:
    channel = fields.choice("channel", Channel)
    recipient = fields.text("recipient", 4096)
    if not faults and not is_recipient(recipient, channel):
        faults.add(f"{pointer}/recipient", "field_invalid", f"This {recipient_rule(channel)}.")
    return channel, normal_subscription(recipient) if channel is Channel.PUSH and not faults else recipient


def _wanted(fields: wire.Fields, faults: wire.Faults, pointer: str = "") -> Wanted:
    channel, recipient = _address(fields, faults, pointer)
    status = fields.choice("status", ContactStatus)
    note = fields.optional_text("note", NOTE_CHARS_MAX)
    fields.finish()
    return Wanted(channel, recipient, status, note)


def contact_document(stored: StoredContact) -> dict[str, Any]:
    """One contact as it is shown."""
    status, code, since_s = stored.contact.standing
    return {
        "id": stored.id,
        "channel": stored.channel,
        "recipient": stored.recipient,
        "status": status,
        "code": code,
        "since": None if since_s is None else wire.moment(datetime.fromtimestamp(since_s, UTC)),
        "soft_bounces": len(stored.contact.soft_bounces),
        "provider": stored.provider,
        "note": stored.note,
        "changed_by": stored.changed_by,
        "changed_at": wire.moment(stored.changed_at),
    }
