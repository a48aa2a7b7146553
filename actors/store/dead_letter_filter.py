"""Which dead letters are meant: the same filter for reading, counting, requeueing, discarding and exporting them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import field, frozen

from dispatcher.ids import is_uuid
from dispatcher.model import Channel, DeadLetterReason, OrganizationId

NO_PROVIDER = "none"
"""Stands for letters whose notification never came to a provider."""
COUNT_MAX = 10_000
"""Nothing is counted further than this; what is more is said to be more."""

Params = dict[str, object]


@frozen
class LetterFilter:
    """What is None lets everything through; an empty filter means every letter of the organization.

    ``template`` is a template's id, or its name in all versions and locales. ``created_*`` are when the letter came about.
    """

    reason: DeadLetterReason | None = None
    code: str | None = None
    channel: Channel | None = None
    provider: str | None = None
    template: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    ids: Sequence[str] | None = field(default=None, repr=False)

    @property
    def needs_notification(self) -> bool:
        """Whether the condition speaks of the notification's row as well."""
        return self.template is not None

    def condition(self, organization_id: OrganizationId) -> tuple[str, Params]:
        """SQL about ``d`` (dead_letters) and, if need be, ``n`` (its notification), with its parameters."""
        parts = ["d.organization_id = %(organization_id)s"]
        params: Params = {"organization_id": organization_id}
        for column in ("reason", "code", "channel"):
            value = getattr(self, column)
            if value is not None:
                parts.append(f"d.{column} = %({column})s")
                params[column] = str(value)
        if self.provider is not None:
            parts.append("coalesce(d.provider, '') = %(provider)s")
            params["provider"] = "" if self.provider == NO_PROVIDER else self.provider
        if self.created_from is not None:
            parts.append("d.created_at >= %(created_from)s")
            params["created_from"] = self.created_from
        if self.created_before is not None:
            parts.append("d.created_at < %(created_before)s")
            params["created_before"] = self.created_before
        if self.ids is not None:
            parts.append("d.notification_id = ANY(%(ids)s::uuid[])")
            params["ids"] = list(self.ids)
        if self.template is not None:
            parts.append("n.organization_id = %(organization_id)s AND n.status = 'failed'")
            parts.append(f"n.template_id {_BY_ID if is_uuid(self.template) else _BY_NAME}")
            params["template"] = self.template
        return " AND ".join(parts), params

    def source(self) -> str:
        """What to select ``d`` (and ``n``) from for the condition."""
        return f"dead_letters d {JOIN if self.needs_notification else ''}"


JOIN = "JOIN notifications n ON n.id = d.notification_id"

_BY_ID = "= %(template)s::uuid"
_BY_NAME = """= ANY(ARRAY(
    SELECT t.id FROM notification_templates t WHERE t.organization_id = %(organization_id)s AND t.name = %(template)s
))"""
