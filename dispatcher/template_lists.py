"""The filters that take lists and mappings apart, choose from them, order and gather them.

Elements are ordered and grouped by numbers or by texts, never by whole lists or mappings; with ``attribute="a.b"`` by what
lies at that path in each. Invariant: what comes out is a new list, made after its size was paid for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final

from dispatcher.template_limits import Missing
from dispatcher.template_tests import TESTS
from dispatcher.template_values import Rendering, along, elements, joined, number, present, text, whole, wrong

ROW_MAX: Final = 10_000
"""The most elements in one row of ``batch``."""

_CHOICES: Mapping[str, Callable[..., bool]] = {**TESTS, "truth": lambda _rendering, value: bool(value)}


def _join(rendering: Rendering, value: Any, separator: Any = "", attribute: Any = None) -> str:
    return joined(rendering, _attributes(rendering, value, attribute), text(rendering, separator))


def _end(position: int) -> Callable[[Rendering, Any], Any]:
    def filter_(rendering: Rendering, value: Any) -> Any:
        found = elements(rendering, value)
        return found[position] if found else Missing(name="first" if position == 0 else "last")

    return filter_


def _reverse(rendering: Rendering, value: Any) -> Any:
    return text(rendering, value)[::-1] if isinstance(value, str) else list(elements(rendering, value))[::-1]


def _list(rendering: Rendering, value: Any) -> list[Any]:
    return list(elements(rendering, value))


def _attributes(rendering: Rendering, value: Any, attribute: Any) -> Sequence[Any]:
    """The elements, or an attribute of each."""
    found = elements(rendering, value)
    return found if attribute is None else [along(rendering, element, attribute) for element in found]


def _key(rendering: Rendering, element: Any, attribute: Any, case_sensitive: Any) -> Any:
    """What to sort or group by: a number, or a text."""
    found = present(element if attribute is None else along(rendering, element, attribute))
    if not isinstance(found, str):
        return number(found)
    return str(text(rendering, found)) if case_sensitive else str(text(rendering, found)).lower()


def _sorted(
    rendering: Rendering, value: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None
) -> list[Any]:
    found = elements(rendering, value)
    rendering.budget.charge(len(found) * len(found).bit_length() >> 2)
    before = rendering.budget.steps_left
    keyed = [(_key(rendering, element, attribute, case_sensitive), position) for position, element in enumerate(found)]
    # What the keys cost to look at is paid once more for every comparison that an element is part of.
    rendering.budget.charge((before - rendering.budget.steps_left) * len(found).bit_length())
    keyed.sort(key=lambda pair: pair[0], reverse=bool(reverse))
    return [found[position] for _, position in keyed]


def _unique(rendering: Rendering, value: Any, case_sensitive: Any = False, attribute: Any = None) -> list[Any]:
    seen: dict[Any, Any] = {}
    for element in elements(rendering, value):
        seen.setdefault(_key(rendering, element, attribute, case_sensitive), element)
    return list(seen.values())


def _extreme(reverse: bool) -> Callable[..., Any]:
    def filter_(rendering: Rendering, value: Any, case_sensitive: Any = False, attribute: Any = None) -> Any:
        ordered = _sorted(rendering, value, reverse, case_sensitive, attribute)
        return ordered[0] if ordered else Missing(name="max" if reverse else "min")

    return filter_


def _sum(rendering: Rendering, value: Any, attribute: Any = None, start: Any = 0) -> int | float:
    total = number(start)
    for element in _attributes(rendering, value, attribute):
        total = number(total + number(element))
    return total


def _groupby(rendering: Rendering, value: Any, attribute: Any, case_sensitive: Any = False) -> list[tuple[Any, list[Any]]]:
    ordered = _sorted(rendering, value, attribute=attribute, case_sensitive=case_sensitive)
    groups = [list(group) for _, group in groupby(ordered, lambda element: _key(rendering, element, attribute, case_sensitive))]
    return [(along(rendering, group[0], attribute), group) for group in groups]


def _chosen(wanted: bool, by_attribute: bool) -> Callable[..., list[Any]]:
    """select, reject, selectattr, rejectattr: the elements for which a test, or plain truth, is as wanted."""

    def filter_(rendering: Rendering, value: Any, *arguments: Any) -> list[Any]:
        attribute, *rest = arguments if by_attribute else (None, *arguments)
        name, *operands = rest or ("truth",)
        test = _CHOICES.get(name) if isinstance(name, str) else None
        if test is None:
            raise wrong()
        return [
            element
            for element in elements(rendering, value)
            if test(rendering, along(rendering, element, attribute) if by_attribute else element, *operands) is wanted
        ]

    return filter_


def _batch(rendering: Rendering, value: Any, size: Any, fill: Any = None) -> list[list[Any]]:
    found, size = elements(rendering, value), whole(size, 1, ROW_MAX)
    rows = [list(found[start : start + size]) for start in range(0, len(found), size)]
    if fill is not None and rows:
        rendering.budget.allow(size)
        rows[-1] += [fill] * (size - len(rows[-1]))
    return rows


def _mapping_part(take: Callable[[dict[Any, Any]], Any]) -> Callable[[Rendering, Any], list[Any]]:
    def filter_(rendering: Rendering, value: Any) -> list[Any]:
        if not isinstance(present(value), dict):
            raise wrong()
        elements(rendering, value)
        return list(take(value))

    return filter_


LIST_FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "batch": _batch,
        "first": _end(0),
        "groupby": _groupby,
        "items": _mapping_part(dict.items),
        "join": _join,
        "keys": _mapping_part(dict.keys),
        "last": _end(-1),
        "list": _list,
        "max": _extreme(True),
        "min": _extreme(False),
        "reject": _chosen(False, False),
        "rejectattr": _chosen(False, True),
        "reverse": _reverse,
        "select": _chosen(True, False),
        "selectattr": _chosen(True, True),
        "sort": _sorted,
        "sum": _sum,
        "unique": _unique,
        "values": _mapping_part(dict.values),
    }
)
"""Every such filter by its name. The first argument is the rendering it works for."""
