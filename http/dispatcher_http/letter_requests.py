"""What a request about dead letters asks for: the filter of a query or a body, how many, and at which pace.

Invariant: nothing that is not understood passes for "everything". A name nobody knows, a null and a missing filter are faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import frozen
from werkzeug.datastructures import MultiDict

from actors.store.dead_letter_filter import LetterFilter
from actors.store.dead_letters import ROWS_MAX, Pace
from dispatcher.model import Channel, DeadLetterReason
from dispatcher_http import wire
from dispatcher_http.wire import Faults, Fields, pointer_to

TEXT_LENGTH_MAX = 255
QUERY_IDS_MAX = 100
PER_S_MIN, PER_S_MAX = 0.01, 10_000
CAUSE_NAMES = frozenset({"reason", "code", "channel", "provider", "created_from", "created_before"})
QUERY_NAMES = CAUSE_NAMES | {"template", "ids"}

_MOMENT = "an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z"
_TEXT = f"a text of 1 to {TEXT_LENGTH_MAX} characters"


@frozen
class Selection:
    """Which letters a change is about, and how many of them at most. With ``dry_run`` nothing is to change."""

    which: LetterFilter
    limit: int
    dry_run: bool
    pace: Pace


def filter_of_query(args: MultiDict[str, str]) -> LetterFilter:
    """The filter of a query. Raises Refused."""
    return LetterFilter(
        reason=wire.query_choice(args, "reason", DeadLetterReason),
        code=wire.query_value(args, "code", _text, _TEXT),
        channel=wire.query_choice(args, "channel", Channel),
        provider=wire.query_value(args, "provider", _text, _TEXT),
        template=wire.query_value(args, "template", _template, _TEXT),
        created_from=wire.query_value(args, "created_from", _moment, _MOMENT),
        created_before=wire.query_value(args, "created_before", _moment, _MOMENT),
        ids=wire.query_value(args, "ids", _ids, f"1 to {QUERY_IDS_MAX} ids with commas between them"),
    )


def selection_of_body(body: Mapping[str, Any], *, paced: bool) -> Selection:
    """What a body asks to change; ``paced``: it may say when. Raises Refused with every fault."""
    faults = Faults()
    fields = Fields(body, faults)
    filter_, ids = fields.optional_mapping("filter", 50), fields.value("ids")
    which = LetterFilter()
    if (body.get("filter") is None) == (ids is None):
        faults.add("", "field_missing", "Give either 'filter', which may be empty for every dead letter, or 'ids'.")
    elif ids is not None:
        which = LetterFilter(ids=_ids_of(ids, faults))
    elif filter_ is not None:
        which = _filter_of(filter_, faults)
    limit = fields.integer("limit", 1, ROWS_MAX, ROWS_MAX)
    dry_run = fields.boolean("dry_run", False)
    pace = Pace()
    if paced:
        pace = Pace(_per_s(fields.value("per_s"), faults), _read(fields.value("start_at"), "/start_at", _moment, _MOMENT, faults))
    fields.finish()
    faults.refuse_if_any()
    return Selection(which, limit, dry_run, pace)


def _filter_of(given: Mapping[str, Any], faults: Faults) -> LetterFilter:
    fields = Fields(given, faults, "/filter")

    def read(name: str, reader: Any, expected: str) -> Any:
        value = fields.value(name)
        if value is None and name in given:
            faults.add(pointer_to("/filter", name), "field_invalid", "Null is no filter: leave it out, or see the documentation.")
        return _read(value, pointer_to("/filter", name), reader, expected, faults)

    which = LetterFilter(
        reason=read("reason", DeadLetterReason, _one_of(DeadLetterReason)),
        code=read("code", _text, _TEXT),
        channel=read("channel", Channel, _one_of(Channel)),
        provider=read("provider", _text, _TEXT),
        template=read("template", _template, _TEXT),
        created_from=read("created_from", _moment, _MOMENT),
        created_before=read("created_before", _moment, _MOMENT),
    )
    fields.finish()
    return which


def _read(value: Any, pointer: str, reader: Any, expected: str, faults: Faults) -> Any:
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise ValueError(pointer)
        return reader(value)
    except ValueError:
        faults.add(pointer, "field_invalid", f"This must be {expected}.")
        return None


def _ids_of(value: Any, faults: Faults) -> Sequence[str] | None:
    if not isinstance(value, list) or not 1 <= len(value) <= ROWS_MAX:
        faults.add("/ids", "field_invalid", f"This must be a list of 1 to {ROWS_MAX} ids.")
        return None
    ids = [wire.uuid_or_none(id) if isinstance(id, str) else None for id in value]
    for index, id in enumerate(ids):
        if id is None:
            faults.add(f"/ids/{index}", "field_invalid", "This must be the id of a notification.")
    return [id or "" for id in ids]


def _per_s(value: Any, faults: Faults) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not PER_S_MIN <= value <= PER_S_MAX:
        faults.add("/per_s", "field_invalid", f"This must be a number from {PER_S_MIN} to {PER_S_MAX}.")
        return None
    return float(value)


def _one_of(kind: type[DeadLetterReason] | type[Channel]) -> str:
    return "one of " + ", ".join(f"'{each}'" for each in kind)


def _text(text: str) -> str:
    if not 1 <= len(text) <= TEXT_LENGTH_MAX or "\0" in text:
        raise ValueError("text")
    return text


def _template(text: str) -> str:
    return wire.uuid_or_none(text) or _text(text)


def _moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    # Years that every zone can show, on both ends.
    if at.tzinfo is None or not 1970 < at.year < 9999:
        raise ValueError("moment")
    return at


def _id(text: str) -> str:
    id = wire.uuid_or_none(text)
    if id is None:
        raise ValueError("id")
    return id


def _ids(text: str) -> list[str]:
    ids = text.split(",")
    if len(ids) > QUERY_IDS_MAX:
        raise ValueError("ids")
    return [_id(id) for id in ids]
