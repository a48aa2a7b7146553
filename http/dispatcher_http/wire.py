"""Bytes to values and back; the only place of the surface that knows JSON.

A body is read through ``Fields``, which notes every fault it meets and carries on, so that one answer names them
all. A fault says where (RFC 6901) and what is expected, never what was there. Nothing gets past here that Postgres
could not store: NUL characters, lone surrogates and bottomless nesting are faults of the field that holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import orjson
from werkzeug.datastructures import MultiDict

from actors.store.page import ROWS_MAX, Page, PageRequest
from dispatcher.documents import FAULTS_MAX, NESTING_MAX, TITLE, Faults, Fields, pointer_to
from dispatcher.ids import is_uuid
from dispatcher.problems import Problem, Refused

__all__ = [
    "FAULTS_MAX",
    "NESTING_MAX",
    "Faults",
    "Fields",
    "moment",
    "object_of",
    "page_document",
    "page_request",
    "page_size",
    "pointer_to",
    "query_choice",
    "query_value",
    "refuse_unknown",
    "uuid_or_none",
]

_E = TypeVar("_E", bound=StrEnum)
_T = TypeVar("_T")


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises Refused when it is none, naming the place and never the text."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The driver's own message is safe, but the exception carries the document, so it ends here.
        place = f"line {error.lineno}, column {error.colno}"
        raise Refused(
            Problem(400, "json_invalid", "The body is not JSON", f"It stops being JSON in UTF-8 at {place}.", "")
        ) from None
    if not isinstance(value, dict):
        raise Refused(Problem(422, "body_invalid", TITLE, "The body must be a JSON object.", ""))
    return value


def page_request(args: MultiDict[str, str]) -> PageRequest:
    """``after`` and ``page_size`` of a query."""
    return PageRequest(query_value(args, "after", _uuid, "a cursor from the field 'next' of a page"), page_size(args))


def page_size(args: MultiDict[str, str]) -> int:
    """How many items somebody wants on a page."""
    size = query_value(args, "page_size", _page_size, f"a whole number from 1 to {ROWS_MAX}")
    return 50 if size is None else size


def refuse_unknown(args: MultiDict[str, str], known: Collection[str]) -> None:
    """Raise Refused for a query parameter nobody reads: a misspelt filter must not mean "everything"."""
    if not args.keys() <= set(known):
        names = ", ".join(f"'{name}'" for name in sorted(known))
        raise Refused(_query_invalid(f"The query has a parameter that is not known here; known are {names}."))


def query_value(args: MultiDict[str, str], name: str, read: Callable[[str], _T], expected: str) -> _T | None:
    """One query parameter, through ``read``, which raises ValueError; None when absent. Raises Refused."""
    values = args.getlist(name)
    if not values:
        return None
    try:
        if len(values) > 1:
            raise ValueError(name)
        return read(values[0])
    except ValueError:
        raise Refused(_query_invalid(f"The query parameter '{name}' must be {expected}, once.")) from None


def query_choice(args: MultiDict[str, str], name: str, kind: type[_E]) -> _E | None:
    """One query parameter out of a closed set; None when absent."""
    return query_value(args, name, kind, "one of " + ", ".join(f"'{each}'" for each in kind))


def uuid_or_none(text: str) -> str | None:
    """The canonical form of a UUID; None for anything else."""
    lower = text.lower()
    return lower if is_uuid(lower) else None


def moment(at: datetime | None) -> str | None:
    """A point in time as RFC 3339 in UTC, to the microsecond."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def page_document(page: Page[_T], document: Callable[[_T], dict[str, Any]]) -> dict[str, Any]:
    """A page as it is answered."""
    return {"items": [document(item) for item in page.items], "page": {"next": page.next}}


def _query_invalid(detail: str) -> Problem:
    return Problem(400, "query_invalid", "Invalid query", detail)


def _page_size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= ROWS_MAX):
        raise ValueError("page_size")
    return int(text)


def _uuid(text: str) -> str:
    id = uuid_or_none(text)
    if id is None:
        raise ValueError("uuid")
    return id
