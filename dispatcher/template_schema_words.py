"""What a schema wants of a value, in words for the person reading: a sentence a keyword.

Only numbers and names of types of the schema are repeated. Invariant: no sentence depends on the value that was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "enum": "This must be one of the values that the schema lists.",
        "const": "This must be the value that the schema names.",
        "multipleOf": "This must be a multiple of {}.",
        "maximum": "This must be at most {}.",
        "exclusiveMaximum": "This must be less than {}.",
        "minimum": "This must be at least {}.",
        "exclusiveMinimum": "This must be more than {}.",
        "maxLength": "This must have at most {} characters.",
        "minLength": "This must have at least {} characters.",
        "pattern": "This must match the pattern of the schema.",
        "maxItems": "This must have at most {} elements.",
        "minItems": "This must have at least {} elements.",
        "uniqueItems": "This must not have the same element twice.",
        "maxProperties": "This must have at most {} members.",
        "minProperties": "This must have at least {} members.",
        "dependentRequired": "This lacks a member that goes with another.",
        "propertyNames": "This has a member whose name is not as the schema wants it.",
        "patternProperties": "This has a member that is not as the schema wants it.",
        "contains": "This does not have the elements that the schema wants.",
        "anyOf": "This fits none of the schema's alternatives.",
        "oneOf": "This must fit exactly one of the schema's alternatives.",
        "not": "This is what the schema rules out.",
        "if": "This is not as the schema wants it in this case.",
    }
)


def describe(keyword: str, limit: Any) -> str:
    """What a keyword with this limit wants."""
    if keyword == "type":
        return f"This must be of type {' or '.join(limit) if isinstance(limit, list) else limit}."
    words = _WORDS.get(keyword, "This is not as the schema wants it.")
    return words.format(limit) if isinstance(limit, int | float) else words
