"""What a person may ask of an organization: all that is kept of them, and to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.io.postgres import Pool
from actors.store import erasing, erasing_addresses, exporting
from actors.store.api_keys import Scope
from actors.store.erasing import Erased
from actors.store.exporting import Known, Person
from actors.store.page import PageRequest
from dispatcher.acceptance import is_recipient, recipient_rule
from dispatcher.ids import is_uuid
from dispatcher.model import Channel, OrganizationId
from dispatcher.problems import Refused
from dispatcher.subscriptions import normal_subscription
from dispatcher_http import wire
from dispatcher_http.preferences import preference_document
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, answer, whole_change
from dispatcher_http.services import Services
from dispatcher_http.users import USER, user_document, user_id_of

STEPS_MAX = 20
"""Steps of an erasure in one request: ten thousand notifications. The janitor does the rest."""
ADDRESS_STEPS_MAX = 20
"""Steps of walking through all notifications, of ten thousand each."""


def routes(services: Services) -> list[Route]:
    """Exporting and erasing."""

    async def export(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"after", "page_size"})
        request = wire.page_request(call.args)
        document = await export_document(services.pool, call.organization_id, user_id_of(call), request)
        if document is None:
            raise Refused(resource_not_found("user"))
        return answer(document, headers={"cache-control": "no-store"})

    async def erase(call: Call) -> TrioResponse:
        user_id = user_id_of(call)
        with whole_change():
            erased = await erasing.erase(services.pool, call.organization_id, user_id, STEPS_MAX)
            services.canceled(call.organization_id, erased.canceled, erasing.REASON)
        return answer(erased_document(erased), 200 if erased.is_whole else 202)

    async def erase_address(call: Call) -> TrioResponse:
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        channel, recipient = fields.choice("channel", Channel), fields.text("recipient", 4096)
        after = fields.optional_text("after", 40)
        fields.finish()
        if not faults and not is_recipient(recipient, channel):
            faults.add("/recipient", "field_invalid", f"This {recipient_rule(channel)}.")
        if after is not None and not (erasing_addresses.is_cursor(after) and is_uuid(after[2:])):
            faults.add("/after", "field_invalid", "This must be the field 'after' of an earlier answer.")
        faults.refuse_if_any()
        recipient = normal_subscription(recipient) if channel is Channel.PUSH else recipient
        with whole_change():
            erased = await erasing_addresses.erase_address(
                services.pool, call.organization_id, channel, recipient, after, ADDRESS_STEPS_MAX
            )
            services.canceled(call.organization_id, erased.canceled, erasing.REASON)
        document = {
            "contact_points": erased.contact_points,
            "notifications": erased.notifications,
            "canceled": len(erased.canceled),
            "left": erased.left,
            "after": erased.after,
        }
        return answer(document, 200 if erased.after is None and not erased.left else 202)

    return [
        Route("POST", "/v1/orgs/<org>/erase", Scope.USERS_WRITE, erase_address),
        Route("GET", f"{USER}/export", Scope.USERS_READ, export),
        Route("POST", f"{USER}/erase", Scope.USERS_WRITE, erase),
    ]


async def export_document(
    pool: Pool, organization_id: OrganizationId, user_id: str, request: PageRequest
) -> dict[str, Any] | None:
    """One page of all that is kept of a person; the first has what is not notifications. None when there is nothing at all."""
    notifications = await exporting.read_notifications(pool, organization_id, user_id, request)
    addresses = [(row["channel"], row["recipient"]) for row in notifications.items]
    document: dict[str, Any] = {"id": user_id, "exported_at": wire.moment(datetime.now(UTC))}
    if request.after is None:
        person = await exporting.read_person(pool, organization_id, user_id)
        if person.user is None and not notifications.items and not person.waiting:
            return None
        document |= _person_document(person)
        if person.user is not None:
            addresses += [(point.channel.value, point.recipient) for point in person.user.points]
    known = await exporting.read_contacts(pool, organization_id, addresses)
    document["contacts"] = [_known_document(each) for each in known]
    document["notifications"] = wire.page_document(notifications, _notification_document)
    return document


def erased_document(erased: Erased) -> dict[str, Any]:
    """What an erasure has done so far."""
    return {
        "status": "erased" if erased.is_whole else "under_way",
        "users": erased.users,
        "contact_points": erased.contact_points,
        "preferences": erased.preferences,
        "digests": erased.digests,
        "notifications": erased.notifications,
        "canceled": len(erased.canceled),
        "sending": erased.sending,
    }


def _person_document(person: Person) -> dict[str, Any]:
    return {
        "user": None if person.user is None else user_document(person.user),
        "preferences": [preference_document(each) for each in person.preferences],
        "cap_times": {cap: [wire.moment(at) for at in times] for cap, times in person.cap_times.items()},
        "digests": [_shown(item) for item in person.waiting],
    }


def _known_document(known: Known) -> dict[str, Any]:
    status, code, since_s = known.contact.standing
    since = None if since_s is None else wire.moment(datetime.fromtimestamp(since_s, UTC))
    return {"channel": known.channel, "recipient": known.recipient, "status": status, "code": code, "since": since}


def _notification_document(row: Mapping[str, Any]) -> dict[str, Any]:
    return _shown({**row, "steps": row["steps"] or [], "reports": row["reports"] or []})


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: wire.moment(value) if isinstance(value, datetime) else value for name, value in row.items()}
