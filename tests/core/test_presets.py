"""The shipped presets: each is sound by itself, says everything in every language, and gives what its examples promise."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from dispatcher.acceptance import AcceptLimits
from dispatcher.bundle import Contents, read_bundle
from dispatcher.definitions import Definition, Kind
from dispatcher.event_documents import parse_event
from dispatcher.localization import Localization
from dispatcher.model import Channel, OrganizationId
from dispatcher.people import ContactPoint, User
from dispatcher.planned import Gathered, Planned, World
from dispatcher.planning import match, plan
from dispatcher.presets import PRESETS, Example, Preset, addition
from dispatcher.problems import Problem
from dispatcher.setup import Setup
from dispatcher.template_documents import parse_template
from dispatcher.template_schema import Schema
from dispatcher.template_sets import TemplateSet
from dispatcher.templates import CompiledTemplate

ACME = OrganizationId("acme")
NOW = 1_800_000_000.0  # January 2027
ADDRESSES = {Channel.EMAIL: "{}@example.com", Channel.SMS: "+15550000000", Channel.PUSH: "token-of-{}"}
EACH = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
EXAMPLES = [(preset, example) for preset in PRESETS.values() for example in preset.examples]


@cache
def setup_of(name: str) -> Setup:
    preset = PRESETS[name]
    named = {Kind.RULE: preset.rules, Kind.TOPIC: preset.topics}
    return Setup.of("en", [Definition(kind, name, body) for kind, bodies in named.items() for name, body in bodies.items()])


def user(id: str, locale: str) -> User:
    points = [ContactPoint(f"{id}-{channel}", channel, address.format(id)) for channel, address in ADDRESSES.items()]
    return User(id, locale, "America/Sao_Paulo", points=tuple(points))


def compiled(template: Mapping[str, Any]) -> CompiledTemplate:
    found = parse_template(template)
    assert not isinstance(found, Problem), (template["name"], template["locale"], found)
    return CompiledTemplate.of(found.template())


@cache
def template_sets(name: str) -> dict[tuple[str, Channel], TemplateSet]:
    preset = PRESETS[name]
    found: dict[tuple[str, Channel], dict[str, CompiledTemplate]] = {}
    for template in preset.templates:
        found.setdefault((template["name"], Channel(template["channel"])), {})[template["locale"]] = compiled(template)
    return {key: TemplateSet(by_locale, "en") for key, by_locale in found.items()}


@EACH
def test_a_preset_is_sound_and_needs_nothing_but_what_it_brings(preset: Preset) -> None:
    setup = setup_of(preset.name)
    sent = {(send.template, send.channel.value) for rule in setup.rules.values() for send in rule.sends}

    assert setup.faults == ()
    assert set(setup.rules) == set(preset.rules)
    assert {rule.topic for rule in setup.rules.values()} == set(preset.topics)
    assert sent == {(template["name"], template["channel"]) for template in preset.templates}
    assert read_bundle(preset.bundle())[1] == []
    assert PRESETS[preset.name] is preset
    names = [*preset.rules, *preset.topics, *(template["name"] for template in preset.templates)]
    assert [name for name in names if not name.startswith(f"{preset.name}-")] == []


@EACH
def test_everything_is_said_in_english_and_in_portuguese(preset: Preset) -> None:
    for name, templates in template_sets(preset.name).items():
        assert set(templates.by_locale) == {"en", "pt-BR"}, name
    for template in preset.templates:
        schema = Schema.of(template["schema"])
        assert schema is not None
        used = template_sets(preset.name)[template["name"], Channel(template["channel"])].by_locale[template["locale"]].names
        assert set().union(*used.values()) <= set(template["schema"]["properties"])


@pytest.mark.parametrize("locale", ["en", "pt-BR", "de"])
@pytest.mark.parametrize(("preset", "example"), EXAMPLES, ids=lambda part: part.name if isinstance(part, Preset) else "")
def test_an_example_gives_what_it_promises(preset: Preset, example: Example, locale: str) -> None:
    event = parse_event({"id": "e-1", **example.event}, AcceptLimits(items_max=10, item_bytes_max=100_000))
    assert not isinstance(event, Problem)
    users = {id: user(id, locale) for id in ("user-1", "user-2")}
    lanes = dict.fromkeys(("email", "sms", "push"), False)
    world = World(ACME, setup_of(preset.name), users, template_sets(preset.name), {}, lanes, NOW, 1_000_000)
    found = plan(event, match(event, world.setup), world, {})
    given = set()
    for fate in found.fates:
        if isinstance(fate, Planned | Gathered):
            who = fate.user_id or (fate.recipient if isinstance(fate, Planned) else None)
            given.add((fate.rule, who, fate.channel.value))
        if isinstance(fate, Planned):
            chosen = "pt-BR" if fate.user_id is None else {"de": "en"}.get(locale, locale)
            assert fate.locale == chosen

    assert found.problem is None
    assert given == example.gives


def test_every_rule_is_shown_by_an_example() -> None:
    shown = {rule for _, example in EXAMPLES for rule, _, _ in example.gives}

    assert shown == {name for preset in PRESETS.values() for name in preset.rules}


def test_amounts_and_dates_are_written_as_the_reader_does() -> None:
    templates = template_sets("ticketing")["ticketing-purchase", Channel.EMAIL].by_locale
    data = PRESETS["ticketing"].examples[0].event["data"]
    texts = {tag: template.render_payload(data, Localization(tag, "UTC", None))["text"] for tag, template in templates.items()}

    assert "R$240.00" in texts["en"]
    assert "Friday, March 1, 2030" in texts["en"]
    assert "R$ 240,00" in texts["pt-BR"]
    assert "1 de março de 2030, 20:00" in texts["pt-BR"]


def contents(preset: Preset) -> Contents:
    return read_bundle(preset.bundle())[0].contents


def test_installing_leaves_alone_what_the_organization_has_changed_unless_asked() -> None:
    preset = PRESETS["payments"]
    current = dict(contents(preset))
    refund, template = (next(key for key in current if key.kind == kind) for kind in ("rule", "template"))
    current[refund] = {**current[refund], "enabled": False}
    current[template] = {**current[template], "body_template": "Ours"}
    document, kept = addition(preset, current, overwrite=False)

    assert kept == sorted([refund, template])
    assert set(document["rules"]) == set(preset.rules) - {refund.name}
    assert len(document["templates"]) == len(preset.templates) - 1
    assert document["topics"] == preset.topics
    assert addition(preset, current, overwrite=True) == (preset.bundle(), [])
    assert addition(preset, {}, overwrite=False) == (preset.bundle(), [])


def test_what_is_as_it_was_installed_counts_as_unchanged_however_it_is_stored() -> None:
    preset = PRESETS["ticketing"]
    stored = {
        key: {**body, "layout": None, "html_template": body.get("html_template"), "variables": {}} if key.channel else body
        for key, body in contents(preset).items()
    }

    assert addition(preset, stored, overwrite=False) == (preset.bundle(), [])
