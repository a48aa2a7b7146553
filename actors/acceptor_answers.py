"""What producers are told: the answers of the accept path, and the problems it may find beside those of an item itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from actors.ports import Admission, Existing
from dispatcher.model import Channel, NotificationId, OrganizationId
from dispatcher.problems import Problem

Prepared = Admission | Existing | Problem
"""What became of an item: a row to insert, what its key stands for already, or why it is refused."""
Keyed = Mapping[tuple[OrganizationId, str], Existing]
"""What keys stand for, by organization and key."""


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


def existing_of(admission: Admission, existing: Keyed) -> Existing | None:
    """What the admission's key stands for, if that is not the admission itself."""
    if admission.idempotency_key is None:
        return None
    found = existing.get((admission.organization_id, admission.idempotency_key))
    return None if found is None or found.id == admission.id else found


def batch_document(prepared: Sequence[Prepared], existing: Keyed, refused: set[NotificationId]) -> dict[str, Any]:
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
            if found is None:
                counts["accepted"] += 1
                items.append({"index": index, "status": "accepted", "id": one.id})
                continue
            if found.request_hash == one.request_hash:
                counts["duplicates"] += 1
                items.append({"index": index, "status": "duplicate", "id": found.id})
                continue
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


def no_provider(channel: Channel) -> Problem:
    """Nobody is configured to send it."""
    return Problem(
        422,
        "provider_missing",
        "Nobody to send it",
        f"No usable provider is configured for the channel {channel.value}; add one under /providers.",
        "/channel",
    )


def no_template(channel: Channel) -> Problem:
    """No locale of the chain has a template of that name."""
    return Problem(
        422,
        "template_unknown",
        "Unknown template",
        f"There is no template of this name for the channel {channel.value}, in this language or the organization's default.",
        "/template",
    )
