"""What listeners of an organization hear: one small JSON object a change, with ids and states, never a recipient or content."""

from __future__ import annotations

import orjson

from actors.feedback_ports import Confirmed, ContactChange
from dispatcher.messages import Alarm, Verdict
from dispatcher.model import Channel, NotificationId, Status
from dispatcher.outcome import OutcomeClass

_TYPES = {Status.DELIVERED: "notification.delivered", Status.FAILED: "notification.failed"}


def created(id: NotificationId, channel: Channel, at_unix_s: float) -> bytes:
    """A notification was accepted and is durable. ``at`` is in Unix seconds, as in every announcement."""
    return b'{"type":"notification.created","id":"%b","channel":"%b","status":"queued","at":%.3f}' % (
        id.encode(),
        channel.encode(),
        at_unix_s,
    )


def scheduled(id: NotificationId, channel: Channel, send_at_unix_s: float, at_unix_s: float) -> bytes:
    """A notification was accepted for later, or put off: it waits until ``send_at``."""
    return b'{"type":"notification.scheduled","id":"%b","channel":"%b","status":"scheduled","send_at":%.3f,"at":%.3f}' % (
        id.encode(),
        channel.encode(),
        send_at_unix_s,
        at_unix_s,
    )


def released(id: NotificationId, channel: Channel, at_unix_s: float) -> bytes:
    """The time of a scheduled notification has come: it is queued."""
    return b'{"type":"notification.released","id":"%b","channel":"%b","status":"queued","at":%.3f}' % (
        id.encode(),
        channel.encode(),
        at_unix_s,
    )


def canceled(id: NotificationId, channel: Channel, reason: str, at_unix_s: float) -> bytes:
    """A notification will not be sent: by hand, or because it may not be any more now that its time has come."""
    return b'{"type":"notification.canceled","id":"%b","channel":"%b","status":"canceled","reason":"%b","at":%.3f}' % (
        id.encode(),
        channel.encode(),
        reason.encode(),
        at_unix_s,
    )


def concluded(verdict: Verdict, at_unix_s: float) -> bytes | None:
    """An attempt ended: delivered, failed for good, or to be retried. None for what is not worth telling (an interruption)."""
    delivery = verdict.delivery
    if verdict.outcome.kind is OutcomeClass.INTERRUPTED and verdict.status is Status.QUEUED:
        return None
    event: dict[str, object] = {
        "type": _TYPES.get(verdict.status, "notification.retrying"),
        "id": delivery.id,
        "channel": delivery.channel.value,
        "status": verdict.status.value,
        "attempt": delivery.attempt,
        "at": round(at_unix_s, 3),
    }
    if verdict.status is not Status.DELIVERED:
        event["code"] = verdict.outcome.code
        if verdict.dead is not None:
            event["reason"] = verdict.dead.value
        if verdict.retry_in_s is not None:
            event["retry_in_s"] = round(verdict.retry_in_s, 3)
    return orjson.dumps(event)


def requeued(id: NotificationId, at_unix_s: float) -> bytes:
    """A dead letter was put back into the queue by hand."""
    return orjson.dumps({"type": "notification.requeued", "id": id, "status": "queued", "at": round(at_unix_s, 3)})


def letters_requeued(count: int, last_due_in_s: float, at_unix_s: float) -> bytes:
    """Many dead letters were put back at once: one event for all of them, however many they are."""
    return orjson.dumps(
        {
            "type": "dead_letters.requeued",
            "count": count,
            "last_due_in_s": round(last_due_in_s, 3),
            "at": round(at_unix_s, 3),
        }
    )


def letters_discarded(count: int, at_unix_s: float) -> bytes:
    """Dead letters were dropped by hand; their notifications stay failed."""
    return orjson.dumps({"type": "dead_letters.discarded", "count": count, "at": round(at_unix_s, 3)})


def channel_alarm(alarm: Alarm, at_unix_s: float) -> bytes:
    """Something about a whole channel that its owner should know, such as ``breaker_opened``, and of which configuration.

    ``to`` is there where others send instead: the first of them.
    """
    event = {"type": f"channel.{alarm.code}", "channel": alarm.channel.value, "provider_config_id": alarm.config_id}
    if alarm.to:
        event["to"] = alarm.to
    return orjson.dumps({**event, "at": round(at_unix_s, 3)})


def quarantined(pause_s: float, at_unix_s: float) -> bytes:
    """Nothing of the organization is sent for a while, because of a fault of ours."""
    return orjson.dumps({"type": "organization.quarantined", "resumes_in_s": pause_s, "at": round(at_unix_s, 3)})


def rescued(id: NotificationId, channel: Channel, *, dead: bool, at_unix_s: float) -> bytes:
    """An attempt died with its process: the notification is queued again, or given up as poison when that happened too often."""
    event: dict[str, object] = {
        "type": "notification.failed" if dead else "notification.retrying",
        "id": id,
        "channel": channel.value,
        "status": "failed" if dead else "queued",
        "at": round(at_unix_s, 3),
        "code": "process_lost",
    }
    if dead:
        event["reason"] = "poison"
    return orjson.dumps(event)


def expired(id: NotificationId, channel: Channel, at_unix_s: float) -> bytes:
    """The time of a notification passed while nobody could send it."""
    return orjson.dumps(
        {
            "type": "notification.failed",
            "id": id,
            "channel": channel.value,
            "status": "failed",
            "at": round(at_unix_s, 3),
            "code": "expired",
            "reason": "expired",
        }
    )


def confirmed(known: Confirmed, at_unix_s: float) -> bytes:
    """Its provider has reported more about a notification: ``state`` since ``reported_at``, by the provider's clock."""
    return orjson.dumps(
        {
            "type": "notification.confirmed",
            "id": known.id,
            "channel": known.channel.value,
            "state": known.state.value,
            "code": known.code,
            "reported_at": round(known.at_unix_s, 3),
            "at": round(at_unix_s, 3),
        }
    )


def contact_changed(change: ContactChange, at_unix_s: float) -> bytes:
    """A contact may not be used any more, or may again. Its address is for who may read contacts, under the id."""
    return orjson.dumps(
        {
            "type": "contact.changed",
            "contact_id": change.id,
            "channel": change.channel.value,
            "status": change.status.value,
            "code": change.code,
            "at": round(at_unix_s, 3),
        }
    )


def suppressed(id: NotificationId, channel: Channel, code: str, at_unix_s: float) -> bytes:
    """A notification was given up at the gate, because its contact may not be used any more."""
    return orjson.dumps(
        {
            "type": "notification.failed",
            "id": id,
            "channel": channel.value,
            "status": "failed",
            "at": round(at_unix_s, 3),
            "code": code,
            "reason": "suppressed",
        }
    )
