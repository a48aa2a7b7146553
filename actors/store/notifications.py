"""Notifications as their organization sees them: what became of each, and by which steps.

Reading only: whatever changes a notification goes through the hot path's own store. What is read here is the
organization's own data, recipients included; it goes into an answer and nowhere else, so no record shows it in its repr.

Nobody sees that what is final moves into history after a while. A row is in exactly one of the two tables at any moment and moves
only in one direction, so one statement about both, or first the one and then the history, finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from actors.store.page import Page, PageRequest, page_of
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.model import Channel, OrganizationId, Status
from dispatcher.outcome import OutcomeClass
from dispatcher.retention import changed_since

if TYPE_CHECKING:
    from actors.io.postgres import Pool

REPORTS_MAX = 100
"""Reports of providers that a timeline shows. They stand after what we did, because they have another clock."""
DISCARDED = "discarded"
"""The step in which a dead letter was dropped."""

_COLUMNS = (
    "id, status, channel, recipient, user_id, template_id, locale, idempotency_key, attempts, attempts_max, unknowns, "
    "provider, provider_config_id, provider_message_id, reason, next_retry_at, expires_at, created_at, updated_at, "
    "correlation_id, state, code, at"
)
_TEMPLATE = (
    "SELECT jsonb_build_object('id', t.id, 'name', t.name, 'version', t.version, 'locale', t.locale) "
    "FROM notification_templates AS t WHERE t.id = template_id"
)
_FROM = "notifications LEFT JOIN confirmations ON notification_id = id"
# What was confirmed after the move stands in its own table until the archivist comes by; of two the higher rank counts.
_FROM_HISTORY = """notification_history h LEFT JOIN LATERAL (
    SELECT state, code, at FROM (
        SELECT state, code, at, rank FROM confirmations WHERE notification_id = h.id
        UNION ALL SELECT * FROM jsonb_to_record(h.confirmation) AS c(state text, code text, at timestamptz, rank smallint)
    ) AS known WHERE state IS NOT NULL ORDER BY rank DESC, at, code DESC LIMIT 1
) AS confirmed ON true"""
_FINAL = frozenset({Status.DELIVERED, Status.FAILED, Status.CANCELED})


@frozen
class Confirmed:
    """What its provider has reported of a notification in the end: ``state`` since ``at``, by the provider's clock."""

    state: FeedbackKind
    code: str
    at: datetime


@frozen
class NotificationSummary:
    """One notification without its content. ``unknowns`` counts attempts that may have reached the provider unanswered."""

    id: str
    status: Status
    channel: Channel
    recipient: str = field(repr=False)
    user_id: str | None = field(repr=False)
    template_id: str | None
    locale: str | None
    idempotency_key: str | None = field(repr=False)
    attempts: int
    attempts_max: int
    unknowns: int
    provider: str | None
    provider_config_id: str | None
    provider_message_id: str | None
    reason: str | None
    next_retry_at: datetime | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    correlation_id: str | None = field(default=None, repr=False)
    confirmation: Confirmed | None = None


@frozen
class TimelineEntry:
    """One step of a notification's life."""

    at: datetime
    event: str
    attempt: int | None = None
    code: str | None = None
    provider: str | None = None
    provider_config_id: str | None = None
    next_retry_at: datetime | None = None
    api_key_id: str | None = None


@frozen
class NotificationDetail:
    """One notification with its rendered content and its timeline, oldest step first.

    ``template`` is the version it was rendered from: ``{"id", "name", "version", "locale"}``.
    """

    summary: NotificationSummary
    payload: Mapping[str, Any] = field(repr=False)
    timeline: Sequence[TimelineEntry]
    template: Mapping[str, Any] | None = None


async def read_page(
    pool: Pool, organization_id: OrganizationId, status: Status | None, channel: Channel | None, request: PageRequest
) -> Page[NotificationSummary]:
    """Notifications, newest first; of one status or channel, if given."""
    condition = "organization_id = %(organization_id)s"
    parameters: dict[str, object] = {"organization_id": organization_id, "limit": request.size + 1}
    for column, value in (("status", status), ("channel", channel)):
        if value is not None:
            condition += f" AND {column} = %({column})s"
            parameters[column] = value
    if request.after is not None:
        condition += " AND id < %(after)s"
        parameters["after"] = request.after
    sources = [_FROM] if status is not None and status not in _FINAL else [_FROM, _FROM_HISTORY]
    parts = [f"(SELECT {_COLUMNS} FROM {each} WHERE {condition} ORDER BY id DESC LIMIT %(limit)s)" for each in sources]
    rows = await pool.fetch(f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS found ORDER BY id DESC LIMIT %(limit)s", parameters)
    return page_of([_summary(row) for row in rows], [row[0] for row in rows], request.size)


async def read(pool: Pool, organization_id: OrganizationId, id: str) -> NotificationDetail | None:
    """One notification, whole."""
    rows = await pool.fetch(
        f"SELECT {_COLUMNS}, payload, ({_TEMPLATE}) FROM {_FROM} WHERE organization_id = %s AND id = %s", (organization_id, id)
    )
    if not rows:
        return await _read_history(pool, organization_id, id)
    *columns, payload, template = rows[0]
    steps = await pool.fetch(
        "SELECT at, outcome, attempt, code, provider, provider_config_id, next_retry_at, api_key_id FROM attempts "
        "WHERE organization_id = %s AND notification_id = %s ORDER BY at, attempt",
        (organization_id, id),
    )
    reports = await pool.fetch(
        "SELECT at, kind, code FROM feedback WHERE notification_id = %s AND organization_id = %s ORDER BY at, key LIMIT %s",
        (id, organization_id, REPORTS_MAX),
    )
    summary = _summary(tuple(columns))
    told = [TimelineEntry(at, f"feedback.{kind}", code=code, provider=summary.provider) for at, kind, code in reports]
    entries = [*timeline(summary, [TimelineEntry(*step) for step in steps]), *told]
    return NotificationDetail(summary, payload, entries, template)


async def _read_history(pool: Pool, organization_id: OrganizationId, id: str) -> NotificationDetail | None:
    """One notification that has moved. Its last change was not before its id was made, so older partitions are not looked at."""
    rows = await pool.fetch(
        f"SELECT {_COLUMNS}, payload, ({_TEMPLATE}), steps, reports FROM {_FROM_HISTORY} "
        "WHERE organization_id = %s AND id = %s AND updated_at >= %s",
        (organization_id, id, changed_since(id)),
    )
    if not rows:
        return None
    *columns, payload, template, steps, reports = rows[0]
    summary = _summary(tuple(columns))
    told = {(_moment(report["at"]), report["kind"], report["code"]) for report in reports or ()}
    late = await pool.fetch(
        "SELECT at, kind, code FROM feedback WHERE notification_id = %s AND organization_id = %s LIMIT %s",
        (id, organization_id, REPORTS_MAX),
    )
    told.update((at, kind, code) for at, kind, code in late)
    entries = [
        *timeline(summary, [_step(step) for step in steps or ()]),
        *(
            TimelineEntry(at, f"feedback.{kind}", code=code, provider=summary.provider)
            for at, kind, code in sorted(told)[:REPORTS_MAX]
        ),
    ]
    return NotificationDetail(summary, payload, entries, template)


def timeline(summary: NotificationSummary, steps: Sequence[TimelineEntry]) -> list[TimelineEntry]:
    """The whole life: creation and end are read off the row, because the common case stores no step of its own."""
    discarded = [step for step in steps if step.event == DISCARDED]  # by hand, after the end
    steps = [step for step in steps if step.event != DISCARDED]
    entries = [TimelineEntry(summary.created_at, "created"), *steps]
    via = summary.provider, summary.provider_config_id
    if summary.status is Status.DELIVERED and not (steps and steps[-1].event == OutcomeClass.DELIVERED):
        entries.append(TimelineEntry(summary.updated_at, "delivered", summary.attempts, None, *via))
    elif summary.status is Status.FAILED:
        entries.append(TimelineEntry(summary.updated_at, "failed", summary.attempts, summary.reason, *via))
    elif summary.status is Status.CANCELED:
        entries.append(TimelineEntry(summary.updated_at, "canceled", code=summary.reason))
    return entries + discarded


def _moment(text: str) -> datetime:
    """A time as it stands in JSON that Postgres has made."""
    return datetime.fromisoformat(text)


def _step(step: Mapping[str, Any]) -> TimelineEntry:
    due = step["next_retry_at"]
    return TimelineEntry(
        _moment(step["at"]),
        step["outcome"],
        step["attempt"],
        step["code"],
        step["provider"],
        step["provider_config_id"],
        None if due is None else _moment(due),
        step["api_key_id"],
    )


def _summary(row: tuple[Any, ...]) -> NotificationSummary:
    id, status, channel, *rest = row[:-3]
    state, code, at = row[-3:]
    rest.append(None if state is None else Confirmed(FeedbackKind(state), code, at))
    return NotificationSummary(id, Status(status), Channel(channel), *rest)
