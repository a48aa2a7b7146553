"""Reading a JSON document field by field, noting every fault on the way, so that one answer names them all.

A fault says where (RFC 6901) and what is expected, never what was there. Invariant: nothing gets past here that Postgres could
not store: NUL characters and bottomless nesting are faults of the field that holds them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from dispatcher.acceptance import together
from dispatcher.problems import Problem, Refused

FAULTS_MAX = 100
"""How many faults one answer names at most."""
NESTING_MAX = 32
"""How deep a JSON value may nest inside a field."""

# A field we do not know is named in its pointer only when it looks like a name: a recipient used as a key is no name.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)

TITLE = "The request can not be used"

_E = TypeVar("_E", bound=StrEnum)


def pointer_to(pointer: str, name: str) -> str:
    """The pointer to a member of what ``pointer`` points to."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


class Faults:
    """What is wrong with one request, in the order of reading. Bounded: faults past :data:`FAULTS_MAX` are not noted."""

    def __init__(self) -> None:
        self._faults: list[Problem] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    @property
    def pointers(self) -> set[str | None]:
        """Where something is wrong."""
        return {fault.pointer for fault in self._faults}

    def add(self, pointer: str, code: str, detail: str) -> None:
        """Note one fault of the value at ``pointer``."""
        if len(self._faults) < FAULTS_MAX:
            self._faults.append(Problem(422, code, TITLE, detail, pointer))

    def extend(self, problems: Collection[Problem], pointer: str = "") -> None:
        """Note faults found elsewhere; their pointers are relative to ``pointer``."""
        for problem in problems:
            self.add(pointer + (problem.pointer or ""), problem.code, problem.detail)

    def refuse_if_any(self) -> None:
        """Raise Refused with every fault noted so far, the first in front."""
        if self._faults:
            raise Refused(together(self._faults))


class Fields:
    """One JSON object being read, field by field. After the last one call :meth:`finish`.

    Every getter returns something of its type even where it noted a fault, so that reading goes on; what it returns is to
    be used only once :meth:`Faults.refuse_if_any` has let the request through.
    """

    def __init__(self, value: Mapping[str, Any], faults: Faults, pointer: str = "") -> None:
        self._value = value
        self._faults = faults
        self._pointer = pointer
        self._read: set[str] = set()

    def text(self, name: str, length_max: int, length_min: int = 1) -> str:
        """A text that must be there."""
        if self._take(name) is None:
            self._missing(name)
            return ""
        return self.optional_text(name, length_max, length_min) or ""

    def optional_text(self, name: str, length_max: int, length_min: int = 1) -> str | None:
        """A text that may be absent or null."""
        value = self._take(name)
        if value is None:
            return None
        pointer = pointer_to(self._pointer, name)
        if not isinstance(value, str):
            self._faults.add(pointer, "field_invalid", "This must be a string.")
            return None
        if not length_min <= len(value) <= length_max:
            self._faults.add(pointer, "field_invalid", f"This must have {length_min} to {length_max} characters.")
        elif "\0" in value:
            self._faults.add(pointer, "field_invalid", "A NUL character cannot be stored.")
        return value

    def choice(self, name: str, kind: type[_E]) -> _E:
        """One of a closed set of texts, that must be there."""
        value = self._take(name)
        if value is None:
            self._missing(name)
        elif value in kind.__members__.values():
            return kind(value)
        else:
            expected = ", ".join(f"'{each}'" for each in kind)
            self._faults.add(pointer_to(self._pointer, name), "field_invalid", f"This must be one of {expected}.")
        return next(iter(kind))

    def optional_choice(self, name: str, kind: type[_E]) -> _E | None:
        """One of a closed set of texts, that may be absent or null."""
        return self.choice(name, kind) if self._take(name) is not None else None

    def integer(self, name: str, minimum: int, maximum: int, default: int) -> int:
        """A whole number that may be absent or null."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            self._faults.add(
                pointer_to(self._pointer, name), "field_invalid", f"This must be a whole number from {minimum} to {maximum}."
            )
            return default
        return value

    def boolean(self, name: str, default: bool) -> bool:
        """True or false, may be absent or null."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._faults.add(pointer_to(self._pointer, name), "field_invalid", "This must be true or false.")
            return default
        return value

    def mapping(self, name: str, members_max: int) -> Mapping[str, Any]:
        """An object of any storable JSON that must be there."""
        if self._take(name) is None:
            self._missing(name)
            return {}
        return self.optional_mapping(name, members_max) or {}

    def optional_mapping(self, name: str, members_max: int) -> Mapping[str, Any] | None:
        """An object of any storable JSON that may be absent or null."""
        value = self._take(name)
        if value is None:
            return None
        pointer = pointer_to(self._pointer, name)
        if not isinstance(value, dict):
            self._faults.add(pointer, "field_invalid", "This must be an object.")
            return None
        if len(value) > members_max:
            self._faults.add(pointer, "field_invalid", f"This may have at most {members_max} members.")
            return None
        return value if self._storable(value, pointer) else None

    def value(self, name: str) -> Any:
        """Any storable JSON; None when absent."""
        value = self._take(name)
        self._storable(value, pointer_to(self._pointer, name))
        return value

    def finish(self) -> None:
        """Note every field that nobody asked for: a misspelt optional field must not pass for an absent one."""
        for name in self._value.keys() - self._read:
            known = ", ".join(f"'{each}'" for each in sorted(self._read))
            pointer = pointer_to(self._pointer, name) if _NAME.fullmatch(name) else self._pointer
            self._faults.add(pointer, "field_unknown", f"There is no such field here; known are {known}.")

    def _take(self, name: str) -> Any:
        self._read.add(name)
        return self._value.get(name)

    def _missing(self, name: str) -> None:
        self._faults.add(pointer_to(self._pointer, name), "field_missing", "This field is required.")

    def _storable(self, value: Any, pointer: str) -> bool:
        fault = storage_fault(value)
        if fault is not None:
            self._faults.add(pointer, "field_invalid", fault)
        return fault is None


def storage_fault(value: Any) -> str | None:
    """What makes a JSON value impossible to store, if anything does. Iterative: depth costs no stack."""
    level = [value]
    for _ in range(NESTING_MAX):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                if "\0" in each:
                    return "A NUL character cannot be stored."
            elif isinstance(each, dict):
                below.extend(each)
                below.extend(each.values())
            elif isinstance(each, list):
                below.extend(each)
        if not below:
            return None
        level = below
    return f"This nests deeper than {NESTING_MAX} levels."
