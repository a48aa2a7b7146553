"""How SendGrid words a refusal: ``{"errors": [{"message", "field", "help"}]}``.

``field`` is a dotted path with indices; ``help`` links to the section of the error page that is named after the path without
its indices. Refusals that do not concern a field have both null. A message may repeat what the sender sent, recipients
included, as the real ones do: a client must not log it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from dispatcher_sandbox.messages import JSON, Answer

HELP = "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html#"
_TYPES: dict[type, str] = {
    dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
}  # fmt: skip


class Fault(NamedTuple):
    """One entry of a refusal."""

    message: str
    field: str | None = None
    help: str | None = None


class Unreadable(Exception):
    """The body does not fit the shape that is decoded before any rule is looked at: refused without naming a field."""


def at(field: str, message: str, section: str | None = None) -> Fault:
    """A fault of one field; ``section`` names its place on the error page where it is not the field's own."""
    if section is None:
        names = [name for name in field.split(".") if not name.isdecimal()]
        if len(names) > 1 and names[-1] == "email":
            names.pop()
        section = f"message.{'.'.join(names)}"
    return Fault(message, field, HELP + section)


def is_a(kind: type, value: object, field: str, faults: list[Fault]) -> bool:
    """Whether a value is of the JSON type it should be; notes the fault when it is not. Null is a type of its own."""
    if type(value) is kind:
        return True
    message = f"Invalid type. Expected: {_TYPES[kind]}, given: {_TYPES[type(value)]}."
    place, _, index = field.partition(".")
    if field == "(root)":
        faults.append(at(field, message, "-Request-Body-Parameters"))
    elif place == "personalizations" and index.isdecimal():
        faults.append(Fault(message, field))
    else:
        faults.append(at(field, message))
    return False


def is_text(value: object, field: str, message: str, faults: list[Fault]) -> bool:
    """Whether a value is a string of at least one character; ``message`` is for the empty one."""
    if not is_a(str, value, field, faults):
        return False
    if not value:
        faults.append(at(field, message))
    return bool(value)


def refusal(status: int, faults: Sequence[Fault]) -> Answer:
    """The answer that lists the faults."""
    errors = [{"message": fault.message, "field": fault.field, "help": fault.help} for fault in faults]
    return Answer(status, JSON, orjson.dumps({"errors": errors}))
