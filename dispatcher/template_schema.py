"""The declared shape of a template's variables: a JSON Schema (draft 2020-12), checked when stored and asked at every accept.

Only keywords on a list are taken, so that a misspelt one is no silent permission and every check ends after work in proportion to
what it looks at: references go to ``$defs`` and are put in place once, patterns run in linear time, branches are counted. A check
is one call of a compiled validator; what is wrong is looked for only when something is. Invariant: a fault says where and what
the schema wants, never what was there.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from functools import reduce
from typing import Any, Final

from attrs import define, field
from jsonschema_rs import Draft202012Validator, RegexOptions
from jsonschema_rs import ValidationError as SchemaRefused

from dispatcher.documents import FAULTS_MAX, pointer_to
from dispatcher.problems import Problem
from dispatcher.template_schema_words import describe

NODES_MAX: Final = 1_000
"""The most schemas in one, every reference counted as what it stands for."""
DEPTH_MAX: Final = 16
BRANCHES_MAX: Final = 64
"""The most schemas that may look at a value beside the one of its place: of anyOf, patternProperties and their like."""
CHOICES_MAX: Final = 500
"""The most values in all its ``enum`` together."""
PATTERN_CHARS_MAX: Final = 500
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PATTERNS: Final = RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)

_ANNOTATIONS: Final = frozenset({"title", "description", "examples", "default", "deprecated", "$comment"})
_BY_NAME: Final = frozenset({"properties", "patternProperties"})
_ONE: Final = frozenset({"additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else"})
_SEVERAL: Final = frozenset({"prefixItems", "allOf", "anyOf", "oneOf"})
_BRANCHING: Final = frozenset(
    {"patternProperties", "propertyNames", "contains", "not", "if", "then", "else", "allOf", "anyOf", "oneOf"}
)
_PLAIN: Final = frozenset(
    {
        "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
        "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties",
        "minProperties", "required", "dependentRequired", "format",
    }
)  # fmt: skip
_KEYWORDS: Final = _ANNOTATIONS | _BY_NAME | _ONE | _SEVERAL | _PLAIN | {"$ref"}
_ROOT_ONLY: Final = frozenset({"$schema", "$defs"})
_TOGETHER: Final[Mapping[str, tuple[str, ...]]] = {
    "if": ("if", "then", "else"),
    "contains": ("contains", "minContains", "maxContains"),
}
_NOT_ALONE: Final = _ANNOTATIONS | {
    *("then", "else", "minContains", "maxContains", "required", "properties", "additionalProperties", "items", "prefixItems"),
    *("format", "allOf"),
}

_META: Final = Draft202012Validator({"$ref": _DIALECT}, offline=True, validate_formats=False)

MISSING: Final = "template_variable_missing"
INVALID: Final = "template_variable_invalid"
BROKEN: Final = "template_schema_invalid"

Fault = tuple[str, str, str]
"""A pointer below what is checked, a code, and a sentence."""


class SchemaInvalid(Exception):
    """A schema can not be used. ``faults`` have pointers into it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("schema_invalid")
        self.faults = faults


@define(eq=False)
class Schema:
    """A schema, ready to check with. ``names`` are the variables it declares, ``defaults`` what stands in for absent ones."""

    names: frozenset[str]
    defaults: Mapping[str, Any] = field(repr=False)
    _tree: Mapping[str, Any] = field(repr=False)
    _valid: Draft202012Validator = field(repr=False)
    _parts: dict[tuple[int, str], Draft202012Validator] = field(init=False, factory=dict, repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Schema:
        """Check and compile. Raises SchemaInvalid with every fault."""
        reading = _Reading(document)
        tree = reading.root()
        faults = reading.faults + _misused(document, besides={pointer for pointer, _, _ in reading.faults})
        if faults:
            raise SchemaInvalid(faults[:FAULTS_MAX])
        properties = tree.get("properties", {})
        defaults = {name: one["default"] for name, one in properties.items() if isinstance(one, dict) and "default" in one}
        unfit = [name for name, default in defaults.items() if not _compiled(properties[name]).is_valid(default)]
        if unfit:
            detail = "The default is not as the schema wants it."
            raise SchemaInvalid([(f"{pointer_to('/properties', name)}/default", BROKEN, detail) for name in unfit])
        return cls(frozenset(properties), defaults, tree, _compiled(tree))

    def faults(self, variables: Mapping[str, Any]) -> tuple[Fault, ...]:
        """What is wrong with the variables, those that are missing first; nothing, as a rule."""
        if self._valid.is_valid(variables):
            return ()
        found: list[Fault] = []
        for fault in self._explained(self._tree, variables, ""):
            found.append(fault)
            if len(found) >= FAULTS_MAX:
                break
        found = found or [("", INVALID, "These are not as the schema wants them.")]
        return tuple(sorted(dict.fromkeys(found), key=lambda fault: fault[1] != MISSING))

    def undeclared(self, path: tuple[str | int, ...]) -> str | None:
        """What a path such as ``("user", "name")`` uses that the schema rules out; None when it may be there."""
        place: Any = self._tree
        for taken, key in enumerate(path, 1):
            if not isinstance(place, dict):
                return None
            properties = place.get("properties", {})
            closed = taken == 1 or place.get("additionalProperties") is False
            if isinstance(key, str) and closed and key not in properties and not place.keys() & {"patternProperties", *_SEVERAL}:
                return ".".join(map(str, path[:taken]))
            place = place.get("items") if isinstance(key, int) else properties.get(key)
        return None

    def _explained(self, schema: Any, value: Any, pointer: str) -> Iterator[Fault]:
        """The faults of one value, found by asking about each keyword alone: nothing is ever listed that is not told."""
        if not isinstance(schema, dict):
            if schema is False:
                yield pointer, INVALID, "This may not be there."
            return
        for keyword, limit in schema.items():
            match keyword:
                case "required" if isinstance(value, dict):
                    for name in limit:
                        if name not in value:
                            yield pointer_to(pointer, name), MISSING, "This variable is required."
                case "properties" if isinstance(value, dict):
                    for name, one in limit.items():
                        if name in value:
                            yield from self._below(one, value[name], pointer_to(pointer, name))
                case "additionalProperties" if isinstance(value, dict):
                    yield from self._others(schema, value, pointer)
                case "items" | "prefixItems" if isinstance(value, list):
                    first = len(schema.get("prefixItems", ()))
                    for index, element in enumerate(value):
                        if (index < first) is (keyword == "prefixItems"):
                            yield from self._below(limit[index] if index < first else limit, element, f"{pointer}/{index}")
                case "allOf":
                    for one in limit:
                        yield from self._below(one, value, pointer)
                case _ if keyword not in _NOT_ALONE:
                    group = {name: schema[name] for name in _TOGETHER.get(keyword, (keyword,)) if name in schema}
                    if not self._part(schema, keyword, group).is_valid(value):
                        yield pointer, INVALID, describe(keyword, limit)

    def _below(self, schema: Any, value: Any, pointer: str) -> Iterator[Fault]:
        if not self._part(schema, "", schema).is_valid(value):
            yield from self._explained(schema, value, pointer)

    def _others(self, schema: Mapping[str, Any], value: Mapping[str, Any], pointer: str) -> Iterator[Fault]:
        """Properties that are not named in the schema."""
        named = dict.fromkeys(schema.get("patternProperties", ()), True)
        group = {"patternProperties": named, "additionalProperties": schema["additionalProperties"]}
        part = self._part(schema, "additionalProperties", group)
        for name, one in value.items():
            if name not in schema.get("properties", ()) and not part.is_valid({name: one}):
                shown = pointer_to(pointer, name) if is_name(name) else pointer
                if schema["additionalProperties"] is False:
                    yield shown, INVALID, "The template's schema has no such variable."
                else:
                    yield shown, INVALID, "This is not as the schema wants it."

    def _part(self, schema: Any, keyword: str, group: Any) -> Draft202012Validator:
        key = (id(schema), keyword)
        found = self._parts.get(key)
        if found is None:
            found = self._parts[key] = _compiled(group)
        return found


def is_name(text: str) -> bool:
    """Whether a key looks like the name of a variable, and not like somebody's address."""
    return len(text) <= 64 and text.isascii() and text.isidentifier()


def problems(faults: tuple[Fault, ...], pointer: str) -> tuple[Problem, ...]:
    """The faults as problems below a pointer."""
    return tuple(Problem(422, code, "The template can not be used", detail, pointer + below) for below, code, detail in faults)


class _Reading:
    """One walk over a schema that is handed in: what is not on the list is noted, references are replaced by what they name."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.faults: list[Fault] = []
        self._document = document
        found = document.get("$defs", {})
        self._definitions: Mapping[str, Any] = found if isinstance(found, dict) else {}
        self._under_way: list[str] = []
        self._nodes = self._branches = self._choices = 0

    def root(self) -> dict[str, Any]:
        document = self._document
        if document.get("type") != "object":
            self._add("/type", "The schema of the variables must be of type object.")
        if document.get("$schema", _DIALECT) not in (_DIALECT, _DIALECT + "#"):
            self._add("/$schema", f"This must be {_DIALECT}.")
        if not isinstance(document.get("$defs", {}), dict):
            self._add("/$defs", "This must be an object.")
        for keyword in ("patternProperties", "propertyNames", "$ref"):
            if keyword in document:
                self._add(f"/{keyword}", "The variables themselves are declared in properties, each by its name.")
        tree = self._schema({name: one for name, one in document.items() if name not in _ROOT_ONLY}, "", 0)
        for name, one in self._definitions.items():
            if not self.faults:  # what nobody refers to is checked too
                self._under_way = [name]
                self._schema(one, pointer_to("/$defs", name), 1)
        return tree if isinstance(tree, dict) else {}

    def _schema(self, schema: Any, pointer: str, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > NODES_MAX or depth > DEPTH_MAX:
            self._add(pointer, f"A schema has at most {NODES_MAX} parts, with what it refers to, at most {DEPTH_MAX} deep.")
            return True
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            self._add(pointer, "A schema must be an object, true or false.")
            return True
        made: dict[str, Any] = {}
        for keyword, value in schema.items():
            if self._nodes > NODES_MAX:
                break
            here = pointer_to(pointer, keyword)
            if keyword not in _KEYWORDS:
                shown = here if is_name(keyword.replace("$", "")) else pointer
                self._add(shown, "This is no keyword that the schema of a template may have.")
            elif keyword == "$ref":
                made.setdefault("allOf", []).append(self._referred(value, here, depth))
            else:
                below = self._keyword(keyword, value, here, depth)
                made[keyword] = [*made.get("allOf", []), *below] if keyword == "allOf" and isinstance(below, list) else below
        if "$ref" in schema and schema.keys() <= _ANNOTATIONS | {"$ref"} and isinstance(made["allOf"][0], dict):
            return made.pop("allOf")[0] | made
        return made

    def _keyword(self, keyword: str, value: Any, pointer: str, depth: int) -> Any:
        if keyword in _BRANCHING:
            self._branches += len(value) if isinstance(value, list | dict) and keyword in _SEVERAL | _BY_NAME else 1
            if self._branches > BRANCHES_MAX:
                self._add(pointer, f"A schema has at most {BRANCHES_MAX} branches, such as those of anyOf and patternProperties.")
                return []
        if keyword in _ONE:
            return self._schema(value, pointer, depth + 1)
        if keyword in _SEVERAL and isinstance(value, list):
            return [self._schema(one, f"{pointer}/{index}", depth + 1) for index, one in enumerate(value)]
        if keyword in _BY_NAME and isinstance(value, dict):
            if keyword == "patternProperties":
                for pattern in value:
                    self._pattern(pattern, pointer)
            return {name: self._schema(one, pointer_to(pointer, name), depth + 1) for name, one in value.items()}
        if keyword == "pattern":
            self._pattern(value, pointer)
        if keyword == "enum" and isinstance(value, list):
            self._choices += len(value)
            if self._choices > CHOICES_MAX:
                self._add(pointer, f"A schema lists at most {CHOICES_MAX} values.")
        return value

    def _pattern(self, pattern: Any, pointer: str) -> None:
        if not isinstance(pattern, str) or len(pattern) > PATTERN_CHARS_MAX or not _is_pattern(pattern):
            detail = f"This must be a regular expression of at most {PATTERN_CHARS_MAX} characters, without look-around."
            self._add(pointer, detail)

    def _referred(self, value: Any, pointer: str, depth: int) -> Any:
        name = value.removeprefix("#/$defs/") if isinstance(value, str) else ""
        if not name or name == value or name not in self._definitions:
            self._add(pointer, "A reference goes to a schema of $defs, such as #/$defs/price.")
        elif name in self._under_way:
            self._add(pointer, "A schema can not refer to itself.")
        else:
            self._under_way.append(name)
            found = self._schema(self._definitions[name], pointer, depth + 1)
            self._under_way.pop()
            return found
        return True

    def _add(self, pointer: str, detail: str) -> None:
        self.faults.append((pointer, BROKEN, detail))


def _misused(document: Mapping[str, Any], besides: Container[str]) -> list[Fault]:
    """Keywords whose values are not what the dialect says, besides those of which something was said already."""
    places = dict.fromkeys(tuple(error.instance_path) for error in _META.iter_errors(document))
    pointers = [reduce(pointer_to, map(str, place), "") for place in places]
    return [(pointer, BROKEN, "This is not what the keyword takes.") for pointer in pointers if pointer not in besides]


def _is_pattern(pattern: str) -> bool:
    try:
        _compiled({"pattern": pattern})
    except SchemaRefused:
        return False
    return True


def _compiled(schema: Any) -> Draft202012Validator:
    return Draft202012Validator(schema, validate_formats=False, pattern_options=_PATTERNS, offline=True)
