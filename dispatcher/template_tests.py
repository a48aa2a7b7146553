"""The tests that templates have, what stands behind ``is``: a table of small predicates.

They are Jinja's by name and meaning. Asking for the kind of a value that is missing is an error that names it; only
``defined`` and ``undefined`` may be asked of anything. Invariant: a test looks at a value's kind or compares it, and never
changes or formats it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dispatcher.template_limits import Missing
from dispatcher.template_values import Rendering, compared, computed, number, present


def _is(*kinds: type, but: tuple[type, ...] = ()) -> Callable[[Rendering, Any], bool]:
    def test(_rendering: Rendering, value: Any) -> bool:
        return isinstance(present(value), kinds) and not isinstance(value, but)

    return test


def _compares(operator: str) -> Callable[[Rendering, Any, Any], bool]:
    def test(rendering: Rendering, value: Any, other: Any) -> bool:
        return compared(rendering, value, operator, other)

    return test


def _divides(rendering: Rendering, value: Any, divisor: Any) -> bool:
    return bool(computed(rendering, "%", number(value), divisor) == 0)


def _is_even(rendering: Rendering, value: Any) -> bool:
    return _divides(rendering, value, 2)


TESTS: Mapping[str, Callable[..., bool]] = MappingProxyType(
    {
        "boolean": _is(bool),
        "defined": lambda _rendering, value: not isinstance(value, Missing),
        "divisibleby": _divides,
        "eq": _compares("eq"),
        "equalto": _compares("eq"),
        "even": _is_even,
        "false": lambda _rendering, value: present(value) is False,
        "float": _is(float),
        "ge": _compares("gteq"),
        "gt": _compares("gt"),
        "in": _compares("in"),
        "integer": _is(int, but=(bool,)),
        "iterable": _is(list, tuple, range, dict, str),
        "le": _compares("lteq"),
        "lt": _compares("lt"),
        "mapping": _is(dict),
        "ne": _compares("ne"),
        "none": lambda _rendering, value: present(value) is None,
        "number": _is(int, float),
        "odd": lambda rendering, value: not _is_even(rendering, value),
        "sequence": _is(list, tuple, range, str),
        "string": _is(str),
        "true": lambda _rendering, value: present(value) is True,
        "undefined": lambda _rendering, value: isinstance(value, Missing),
    }
)
"""Every test by its name. The first argument is the rendering it works for."""
