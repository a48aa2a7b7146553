"""What producers are told: the answers of the accept path, and the problems it may find beside those of an item itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import trio
from attrs import define, field, frozen

from actors.ports import Admission, BatchAnswer, Diverted, EventAdmission, Existing, Inserted
from dispatcher.acceptance import Item, waits
from dispatcher.audience import lanes_of
from dispatcher.contacts import ContactStatus
from dispatcher.decisions import Code
from dispatcher.direct import refusal_of
from dispatcher.errors import DispatcherError
from dispatcher.model import Channel, Lane, NotificationId, OrganizationId, Status
from dispatcher.problems import Problem


@define(eq=False)
class AcceptRequest:
    """One request on its way into Postgres. ``done`` is set when ``existing`` or ``error`` is known."""

    organization_id: OrganizationId
    admissions: Sequence[Admission]
    batch_answer: BatchAnswer | None
    events: Sequence[EventAdmission] = ()
    handed_in_s: float = field(factory=trio.current_time)
    done: trio.Event = field(factory=trio.Event)
    existing: Inserted = field(factory=Inserted)
    refused: set[NotificationId] = field(factory=set)  # rows that Postgres would not take
    refused_events: set[str] = field(factory=set)  # and events
    taken: bool = False  # the key of the batch: somebody else was first
    error: DispatcherError | None = None


Prepared = Admission | Existing | Problem
"""What became of an item: a row to insert, what its key stands for already, or why it is refused."""


@frozen
class Answer:
    """A finished answer: ``body`` is JSON, ``headers`` come on top of its type and length."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(factory=dict)


UNSTORABLE = Problem(
    422, "not_storable", "The notification can not be stored", "A text holds a character that can not be stored.", ""
)


IN_PROGRESS = Problem(
    409,
    "request_in_progress",
    "A request with this key is still running",
    "The same idempotency key is being worked on; ask again with the same body.",
    retry_after_s=1,
)


CAPPED = refusal_of(Code.CAP_REACHED)


def existing_of(admission: Admission, existing: Inserted) -> Existing | None:
    """What the admission's key stands for, if that is not the admission itself."""
    if admission.idempotency_key is None:
        return None
    found = existing.get((admission.organization_id, admission.idempotency_key))
    return None if found is None or found.id == admission.id else found


def batch_document(prepared: Sequence[Prepared], existing: Inserted, refused: set[NotificationId]) -> dict[str, Any]:
    """The answer to a batch: a verdict for each item, in order. ``refused`` are rows that Postgres would not take."""
    counts = {"accepted": 0, "duplicates": 0, "rejected": 0}
    items: list[dict[str, Any]] = []
    for index, one in enumerate(prepared):
        problem: Problem | None
        if isinstance(one, Problem):
            problem = one
        elif isinstance(one, Existing):
            counts["duplicates"] += 1
            items.append({"index": index, "status": "duplicate", "id": one.id})
            continue
        elif one.id in refused:
            problem = UNSTORABLE
        else:
            found = existing_of(one, existing)
            if found is None and one.id in existing.suppressed:
                problem = suppressed(existing.suppressed[one.id])
            elif found is None and one.id in existing.capped:
                problem = CAPPED
            elif found is None:
                counts["accepted"] += 1
                items.append({"index": index, "status": "accepted", "id": one.id, **diversion(one.diverted), **until(one)})
                continue
            elif found.request_hash == one.request_hash:
                counts["duplicates"] += 1
                items.append({"index": index, "status": "duplicate", "id": found.id})
                continue
            else:
                problem = REUSED
        counts["rejected"] += 1
        items.append({"index": index, "status": "rejected", "problem": problem.below(f"/items/{index}").document()})
    return {**counts, "items": items}


def rfc3339(unix_s: float) -> str:
    """A moment as every answer shows it."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def key_problem(code: str, detail: str) -> Problem:
    """Something is wrong with an idempotency key."""
    return Problem(422, code, "The idempotency key can not be used", detail, "/idempotency_key")


REUSED = key_problem("idempotency_key_reused", "This key was used before with another notification.")


def no_provider(channel: Channel, lanes: Collection[Lane]) -> Problem:
    """Nobody is configured to send it; where ``lanes`` has others of the channel, it is the recipient that is nobody's."""
    detail = f"No usable provider is configured for the channel {channel.value}; add one under /providers."
    pointer = "/channel"
    if not set(lanes_of(channel)).isdisjoint(lanes):
        detail = f"No usable provider of the channel {channel.value} reaches a recipient of this form; add one under /providers."
        pointer = "/recipient"
    return Problem(422, "provider_missing", "Nobody to send it", detail, pointer)


def no_template(channel: Channel) -> Problem:
    """No locale of the chain has a template of that name."""
    return Problem(
        422,
        "template_unknown",
        "Unknown template",
        f"There is no template of this name for the channel {channel.value}, in this language or the organization's default.",
        "/template",
    )


def suppressed(status: ContactStatus) -> Problem:
    """The recipient may not be used."""
    return Problem(
        422,
        "recipient_suppressed",
        "The recipient can not be used",
        f"This contact is {status.value}; see /contacts. Nothing was accepted for it.",
        "/recipient",
    )


def diversion(diverted: Diverted | None) -> dict[str, Any]:
    """What an answer says of another way that a notification takes."""
    return {} if diverted is None else {"diverted": {"from": diverted.channel.value, "reason": diverted.reason.value}}


def waiting(item: Item, accepted_at_s: float) -> dict[str, Any]:
    """What the answer says, in place of that it is queued, of one that was accepted for later."""
    if item.send_at_s is None or not waits(item, accepted_at_s):
        return {}
    return {"status": Status.SCHEDULED.value, "send_at": rfc3339(item.send_at_s)}


def standing(admission: Admission) -> dict[str, Any]:
    """The same of one that was planned, whose time may not be the one it was handed in with."""
    later = until(admission)
    return {"status": Status.SCHEDULED.value, **later} if later else {}


def until(admission: Admission) -> dict[str, Any]:
    """When it is to be sent, if not at once."""
    at_s = admission.row.get("send_at") if admission.is_planned else None
    return {} if at_s is None else {"send_at": rfc3339(at_s)}


def recalled(
    known: Mapping[str, Existing], keyed: Sequence[tuple[Item | Problem, str | None]], prepared: Sequence[Prepared]
) -> list[Prepared]:
    """What a key already stands for, in place of a refusal: a replay is a replay even when its template is gone by now."""
    found: list[Prepared] = []
    for (item, key), one in zip(keyed, prepared, strict=True):
        existing = known.get(key) if key is not None and isinstance(one, Problem) else None
        if existing is None:
            found.append(one)
        else:
            assert isinstance(item, Item)
            found.append(existing if existing.request_hash == item.request_hash else REUSED)
    return found


def batch_key(header_key: str | None) -> str:
    """What stands for the key of a whole batch, apart from those of items: they hold no spaces."""
    return f"{header_key} "


def is_busy(organization_id: OrganizationId, item: Item | Problem, busy: set[tuple[OrganizationId, str]]) -> bool:
    """Whether the item's key is one of those that are being worked on."""
    return isinstance(item, Item) and (organization_id, item.idempotency_key) in busy
