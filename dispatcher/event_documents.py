"""From what a producer hands in to events, each with its own verdict.

A request is one event object, or ``{"items": […]}`` with up to ``items_max`` unlike ones. A fault of the envelope refuses the
request; a fault of an event refuses that event and no other. Every fault of an event is reported at once, with a pointer and
never a value. Invariant: two events are the same, and have the same hash, when their JSON is, whatever the order of its fields.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson
from attrs import frozen

from dispatcher.acceptance import HASH_BYTES, STEP_ITEMS, USER_ID_CHARS_MAX, AcceptLimits, instant, is_text, together
from dispatcher.events import Event
from dispatcher.locales import normalize
from dispatcher.problems import Problem, Refused

FIELDS = frozenset({"id", "type", "data", "user_id", "occurred_at", "correlation_id", "locale"})
ID_CHARS_MAX = 255
TYPE_CHARS_MAX = 255

_VISIBLE = re.compile(rf"[!-~]{{1,{ID_CHARS_MAX}}}")
_TYPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_TITLE = "The event can not be taken in"


@frozen
class HandedInEvents:
    """A whole request. ``items`` has one entry per event, in order: the event, or why it is refused."""

    is_batch: bool
    items: Sequence[Event | Problem]


def parse_events_in_steps(body: bytes, limits: AcceptLimits) -> Generator[None, None, HandedInEvents]:
    """Read a request body. Raises Refused when it is not JSON, or not an object of one of the two forms.

    It yields before every STEP_ITEMS events of a long batch, for whoever has others to serve.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"It stops being JSON at line {error.lineno}, column {error.colno}."
        raise Refused(Problem(400, "json_invalid", "The body is not JSON", where)) from None
    if not isinstance(document, dict):
        raise Refused(_invalid("", 'must be an object: one event, or {"items": [...]}', "body_invalid"))
    if "items" not in document:
        return HandedInEvents(False, [parse_event(document, limits)])
    rows = document["items"]
    if len(document) > 1:
        raise Refused(_invalid("", 'a batch has only the field "items"', "field_unknown"))
    if not isinstance(rows, list) or not rows:
        raise Refused(_invalid("/items", "must be a list of at least one event"))
    if len(rows) > limits.items_max:
        detail = f"A batch holds at most {limits.items_max} items; this one has {len(rows)}. Send it in parts."
        raise Refused(Problem(413, "batch_too_large", "Too many events in one batch", detail, "/items"))
    items: list[Event | Problem] = []
    for first in range(0, len(rows), STEP_ITEMS):
        if len(rows) > STEP_ITEMS:
            yield
        items.extend(parse_event(row, limits) for row in rows[first : first + STEP_ITEMS])
    return HandedInEvents(True, items)


def parse_event(row: Any, limits: AcceptLimits) -> Event | Problem:
    """Check one event. All its faults are in the problem that comes back, the first of them in front."""
    if not isinstance(row, dict):
        return _invalid("", "must be an object", "item_invalid")
    try:
        canonical = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError):
        return _invalid("", "is nested too deeply", "item_invalid")
    if len(canonical) > limits.item_bytes_max:
        detail = f"It has {len(canonical)} bytes; {limits.item_bytes_max} is the most."
        return Problem(413, "item_too_large", "The event is too large", detail, "")
    get = row.get
    faults: list[Problem] = []
    id, type, data, user_id, correlation_id = get("id"), get("type"), get("data"), get("user_id"), get("correlation_id")
    if not (isinstance(id, str) and _VISIBLE.fullmatch(id)):
        faults.append(_invalid("/id", f"must be 1 to {ID_CHARS_MAX} visible ASCII characters"))
    if not (isinstance(type, str) and len(type) <= TYPE_CHARS_MAX and _TYPE.fullmatch(type)):
        faults.append(_invalid("/type", "must be names of letters, digits, _ and - with dots between them"))
    if data is not None and not isinstance(data, dict):
        faults.append(_invalid("/data", "must be an object"))
    if user_id is not None and not is_text(user_id, USER_ID_CHARS_MAX):
        faults.append(_invalid("/user_id", f"must be a text of 1 to {USER_ID_CHARS_MAX} characters"))
    if correlation_id is not None and not (isinstance(correlation_id, str) and _VISIBLE.fullmatch(correlation_id)):
        faults.append(_invalid("/correlation_id", f"must be 1 to {ID_CHARS_MAX} visible ASCII characters"))
    locale = get("locale")
    normal_locale = normalize(locale) if isinstance(locale, str) else None
    if locale is not None and normal_locale is None:
        faults.append(_invalid("/locale", "must be a BCP 47 language tag such as pt-BR"))
    occurred_at_s = None
    if get("occurred_at") is not None:
        occurred_at_s = instant(row["occurred_at"])
        if occurred_at_s is None:
            faults.append(_invalid("/occurred_at", "must be an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z"))
    if not row.keys() <= FIELDS:
        faults.append(_invalid("", f"has an unknown field; known are {', '.join(sorted(FIELDS))}", "field_unknown"))
    if faults:
        return together(faults)
    assert isinstance(id, str)
    assert isinstance(type, str)
    digest = blake2b(canonical, digest_size=HASH_BYTES).digest()
    return Event(id, type, data or {}, occurred_at_s, user_id, correlation_id, normal_locale, digest)


def variables_of(event: Event) -> Mapping[str, Any]:
    """What expressions of rules see of it."""
    seen = {
        "id": event.id,
        "type": event.type,
        "occurred_at": event.occurred_at_s,
        "user_id": event.user_id,
        "correlation_id": event.correlation_id,
        "locale": event.locale,
    }
    return {"data": event.data, "event": seen}


def _invalid(pointer: str, detail: str, code: str = "field_invalid") -> Problem:
    return Problem(422, code, _TITLE, detail, pointer)
