"""An organization's set-up, compiled: what its definitions mean together, ready for deciding about events.

Made once from all definitions and kept in the hot cache. Invariant: a definition that can not be used any more, because another
version of the program stored it, is left out and named in ``faults``; it takes nothing else with it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Self

from attrs import field, frozen

from dispatcher.catalogues import parse_catalogue
from dispatcher.definitions import POLICY_NAME, Definition, Kind
from dispatcher.layouts import Layout, parse_layout
from dispatcher.localization import Localization
from dispatcher.policy import Policy, parse_policy
from dispatcher.problems import Problem
from dispatcher.rule_documents import parse_rule
from dispatcher.rules import Rule
from dispatcher.topics import Topic, parse_topic
from dispatcher.translations import Catalogue, messages_for

Parser = Callable[[str, Mapping[str, Any]], Any]
"""Makes a kind's record of a name and a document, or a Problem with every fault."""

PARSERS: Final[Mapping[Kind, Parser]] = {
    Kind.RULE: parse_rule,
    Kind.TOPIC: parse_topic,
    Kind.POLICY: parse_policy,
    Kind.LAYOUT: parse_layout,
    Kind.CATALOGUE: parse_catalogue,
}

NOT_READABLE: Final = Problem(422, "definition_invalid", "The definition can not be used", "This program can not read it.", "")

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


@frozen
class Unusable:
    """A stored definition that is left out, and why."""

    kind: Kind
    name: str
    problem: Problem


@frozen
class Setup:
    """Everything by name. ``policy`` is the default one where the organization has none."""

    default_locale: str = "en"
    rules: Mapping[str, Rule] = field(default=_EMPTY, repr=False)
    topics: Mapping[str, Topic] = field(default=_EMPTY, repr=False)
    policy: Policy = Policy()
    layouts: Mapping[str, Layout] = field(default=_EMPTY, repr=False)
    catalogues: Mapping[str, Catalogue] = field(default=_EMPTY, repr=False)
    faults: tuple[Unusable, ...] = ()
    _exact: Mapping[str, tuple[Rule, ...]] = field(init=False, repr=False, eq=False)
    _prefixes: Mapping[str, tuple[Rule, ...]] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        exact: dict[str, list[Rule]] = {}
        prefixes: dict[str, list[Rule]] = {}
        for name in sorted(self.rules):
            rule = self.rules[name]
            if rule.event_type.endswith(".*"):
                prefixes.setdefault(rule.event_type[:-2], []).append(rule)
            else:
                exact.setdefault(rule.event_type, []).append(rule)
        object.__setattr__(self, "_exact", {type: tuple(rules) for type, rules in exact.items()})
        object.__setattr__(self, "_prefixes", {prefix: tuple(rules) for prefix, rules in prefixes.items()})

    @classmethod
    def of(cls, default_locale: str, definitions: Sequence[Definition]) -> Self:
        """Parse all of them, leaving out and naming those that are of no use."""
        steps = cls.in_steps(default_locale, definitions)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                made: Self = end.value
                return made

    @classmethod
    def in_steps(cls, default_locale: str, definitions: Sequence[Definition]) -> Generator[None, None, Self]:
        """The same, giving way after each: an organization may have hundreds, and to compile one takes a while."""
        found: dict[Kind, dict[str, Any]] = {kind: {} for kind in Kind}
        faults: list[Unusable] = []
        for definition in definitions:
            try:
                made = parsed(definition.kind, definition.name, definition.body)
            except Exception:  # of a shape that no version of the parser has thought of: its own trouble, not everybody's
                made = NOT_READABLE
            if isinstance(made, Problem):
                faults.append(Unusable(definition.kind, definition.name, made))
            else:
                found[definition.kind][definition.name] = made
            yield
        return cls(
            default_locale,
            found[Kind.RULE],
            found[Kind.TOPIC],
            found[Kind.POLICY].get(POLICY_NAME, Policy()),
            found[Kind.LAYOUT],
            found[Kind.CATALOGUE],
            tuple(faults),
        )

    def localization(self, locale: str | None, time_zone: str = "UTC") -> Localization:
        """Of a recipient of this locale, a normal tag, with the organization's words for them."""
        messages = messages_for(self.catalogues, locale, self.default_locale) if self.catalogues else None
        return Localization(locale or self.default_locale, time_zone, messages)

    def rules_for(self, event_type: str) -> Sequence[Rule]:
        """The rules for an event of this type, in the order of their names; those that are switched off too.

        ``a.b.*`` is for every type that begins with ``a.b.``. Costs a look-up for every dot of the type, however many rules
        there are.
        """
        rules = self._exact.get(event_type, ())
        if self._prefixes:
            steps = event_type.split(".")
            matching = [self._prefixes.get(".".join(steps[:count]), ()) for count in range(1, len(steps))]
            if any(matching):
                return sorted([*rules, *(rule for found in matching for rule in found)], key=_name)
        return rules


def parsed(kind: Kind, name: str, body: Mapping[str, Any]) -> Any:
    """The record of a document, or a Problem with every fault."""
    return PARSERS[kind](name, body)


def _name(rule: Rule) -> str:
    return rule.name
