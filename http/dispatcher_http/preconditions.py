"""``ETag``, ``If-Match`` and ``If-None-Match`` (RFC 9110, section 13): changing only what one has seen."""

from __future__ import annotations

import re

from werkzeug.datastructures import Headers

from actors.store.definitions import ANYTHING, NOTHING
from dispatcher.problems import Problem, Refused

_TAG = re.compile(r'"([!#-~]{1,80})"')


def entity_tag(tag: str) -> str:
    """A tag as the header ``ETag`` has it."""
    return f'"{tag}"'


def expected_tag(headers: Headers) -> str | None:
    """The tag that must stand there, ANYTHING or NOTHING; None for a change that does not ask. Raises Refused."""
    matches, excluded = headers.getlist("If-Match"), headers.getlist("If-None-Match")
    if excluded:
        if matches or excluded != ["*"]:
            raise Refused(_invalid("'If-None-Match' can only be *, which is for what is not there yet, and stands alone."))
        return NOTHING
    if not matches:
        return None
    if matches == ["*"]:
        return ANYTHING
    match = _TAG.fullmatch(matches[0]) if len(matches) == 1 else None
    if match is None:
        raise Refused(_invalid("'If-Match' must be one value of an 'ETag' header, quotation marks included, or *."))
    return match[1]


def precondition_failed(what: str) -> Problem:
    """What stands there is not what the caller has seen."""
    detail = f"The {what} is not what it was when you read it: somebody has changed it. Read it again and repeat the change."
    return Problem(412, "precondition_failed", "Changed by somebody else", detail)


def _invalid(detail: str) -> Problem:
    return Problem(400, "precondition_invalid", "Invalid precondition", detail)
