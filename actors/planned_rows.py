"""From what is planned to the row that is inserted. Every column a planned notification may have is named here."""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from typing import Any

from attrs import frozen

from actors.event_answers import chain_document
from actors.ports import Admission
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.model import NotificationId, OrganizationId, Status
from dispatcher.planned import Planned
from dispatcher.rules import LaneName


@frozen
class Rows:
    """Makes rows. ``attempts_max`` is how often each may be tried."""

    attempts_max: int
    random: Random

    def admission(
        self,
        organization_id: OrganizationId,
        planned: Planned,
        now_unix_s: float,
        *,
        key: str | None,
        event_id: str | None = None,
        correlation_id: str | None = None,
        request_hash: bytes = b"",
    ) -> Admission:
        """The notification to insert."""
        id = NotificationId(uuid7(round(now_unix_s * 1000), self.random.getrandbits(RANDOM_BITS)))
        row: dict[str, Any] = {
            "id": id,
            "organization_id": organization_id,
            "channel": planned.channel.value,
            "attempts_max": self.attempts_max,
            "created_at": now_unix_s,
            "expires_at": planned.expires_at_s,
            "user_id": planned.user_id,
            "recipient": planned.recipient,
            "payload": planned.payload,
            "template_id": planned.template_id,
            "locale": planned.locale,
            "idempotency_key": key,
            "request_hash": request_hash.hex(),
            "topic": planned.topic,
            "correlation_id": correlation_id,
            "event_id": event_id,
            "decisions": chain_document(planned.chain),
        }
        if planned.send_at_s is not None:
            row |= {"status": Status.SCHEDULED.value, "send_at": planned.send_at_s, "plan": planned.again}
        if planned.lane is LaneName.BULK:
            row["bulk"] = True
        if planned.ignores_suppression:
            row["ignores_suppression"] = True
        return Admission(organization_id, id, key, request_hash, row, is_planned=True, caps=planned.caps)

    @staticmethod
    def key_of(event_id: str, planned: Planned) -> str:
        """What tells it from every other notification, whoever plans it, and when. No producer's key has a space."""
        return f"event {blake2b(event_id.encode() + planned.key, digest_size=16).hexdigest()}"
