from __future__ import annotations

from typing import Any

import pytest
from jinja2 import Environment, nodes

from dispatcher.template_language import LOOP_NAMES, Program, rewrite
from dispatcher.template_limits import Limits, TemplateError
from dispatcher.template_places import NEVER

JINJA = Environment()
LIMITS = Limits(nodes_max=200, depth_max=12)
ALLOWED = [
    "plain text only",
    "{{ name }}",
    "{{ user.name }} {{ user['name'] }} {{ seats[0].row }} {{ seats[i] }} {{ seats[-1] }} {{ name[1:3] }} {{ name[::2] }}",
    "{{ 'a' ~ b ~ 1 }} {{ a + b - c * d / e // f % g }} {{ -a }} {{ +a }} {{ not a }}",
    "{% if a == 1 and b != 2 or c < 3 %}x{% elif d in e %}y{% elif d not in e %}z{% else %}-{% endif %}",
    "{% for a in b %}{{ loop.index }}{{ loop.cycle('x', 'y') }}{{ loop.previtem.name }}{% else %}none{% endfor %}",
    "{% for k, v in a.items() %}{{ k }}{% endfor %}{% for k in a.keys() %}{{ a.get(k) }}{{ a.get(k, 1) }}{% endfor %}",
    "{% for a in b if a.c > 1 %}{{ a }}{% endfor %}{% for i in range(1, 10, 2) %}{{ i }}{% endfor %}{{ a.values() }}",
    "{{ range(n)|join }}{{ range(m, n)|join }}",
    "{% set a, b = c, d %}{% set e = [1, 'x', (2, 3), {'k': v}] %}",
    "{{ a|upper|replace('x', y)|default(b, boolean=true) }} {{ a is defined and b is not divisibleby(c) }}",
    "{{ 'x' if a else 'y' }} {{ 'x' if a }}",
    "{{ items|map(attribute='price')|sum }} {{ loop }} {{ none }} {{ true }}",
]


def program(source: str, limits: Limits = LIMITS) -> Program:
    return rewrite(JINJA.parse(source), limits)


def refused(source: str, limits: Limits = LIMITS) -> TemplateError:
    with pytest.raises(TemplateError) as error:
        program(source, limits)
    return error.value


def calls(source: str) -> list[tuple[str, list[Any]]]:
    """Filters of the rewritten tree with their constant arguments, innermost last."""
    found = program(source).tree.find_all(nodes.Filter)
    return [(filter_.name, [getattr(argument, "value", "…") for argument in filter_.args]) for filter_ in found]


@pytest.mark.parametrize("source", ALLOWED)
def test_nothing_of_what_is_left_is_python_s_to_decide(source: str) -> None:
    tree = program(source).tree

    assert not list(tree.find_all((nodes.Getitem, nodes.Compare, nodes.Concat, nodes.Slice, nodes.Pow)))
    for attribute in tree.find_all(nodes.Getattr):
        assert isinstance(attribute.node, nodes.Name)
        assert attribute.node.name == "loop"
        assert attribute.attr in LOOP_NAMES
    for call in tree.find_all(nodes.Call):
        assert isinstance(call.node, nodes.Getattr)
        assert call.node.attr == "cycle"
    for loop in tree.find_all(nodes.For):
        assert isinstance(loop.iter, nodes.Filter)
        assert loop.iter.name == "@each"
    for output in tree.find_all(nodes.Output):
        for child in output.nodes:
            assert isinstance(child, nodes.TemplateData) or getattr(child, "name", None) == "@print"


@pytest.mark.parametrize("source", ALLOWED)
def test_every_node_keeps_its_line(source: str) -> None:
    """Otherwise an error could not tell where it happened."""
    shifted = program("\n\n" + source).tree
    lines = {node.lineno for kind in (nodes.Expr, nodes.Stmt) for node in shifted.find_all(kind) if node is not shifted}

    assert lines <= {1, 3}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{% macro m() %}{% endmacro %}", "macro"),
        ("{% call m() %}{% endcall %}", "call"),
        ("{% block b %}{% endblock %}", "block"),
        ("{% extends 'x' %}", "extends"),
        ("{% include 'x' %}", "include"),
        ("{% import 'x' as y %}", "import"),
        ("{% from 'x' import y %}", "from"),
        ("{% filter upper %}{% endfilter %}", "filter"),
        ("{% set a %}{% endset %}", "endset"),
        ("{% set a.b = 1 %}", "attribute of a namespace"),
        ("{% with a = 1 %}{% endwith %}", "with"),
        ("{% autoescape false %}{% endautoescape %}", "autoescape"),
        ("{% for a in b recursive %}{% endfor %}", "recursive"),
        ("{{ 2 ** 3 }}", "**"),
        ("{{ 1 < 2 < 3 }}", "chained comparison"),
        ("{{ a|upper(*b) }}", "unpacking"),
        ("{{ a|upper(**b) }}", "unpacking"),
        ("{{ a is even(*b) }}", "unpacking"),
    ],
)
def test_a_construct_that_is_not_on_the_list_is_refused_by_name(source: str, name: str) -> None:
    error = refused(source)

    assert (error.code, error.name) == ("template_construct_forbidden", name)


def test_a_target_is_a_name_or_several() -> None:
    tree = JINJA.parse("{% set a = 1 %}")
    (assign,) = tree.find_all(nodes.Assign)
    assign.target = nodes.Const(1, lineno=1)

    with pytest.raises(TemplateError) as error:
        rewrite(tree, LIMITS)
    assert (error.value.code, error.value.name) == ("template_construct_forbidden", "const")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{{ a.__class__ }}", "__class__"),
        ("{{ a['__class__'] }}", "__class__"),
        ("{{ ''.__class__.__mro__ }}", "__mro__"),
        ("{{ __builtins__ }}", "__builtins__"),
        ("{{ self }}", "self"),
        ("{{ super }}", "super"),
        ("{{ caller }}", "caller"),
        ("{{ varargs }}{{ kwargs }}", "varargs"),
        ("{% set loop = 1 %}", "loop"),
        ("{% for loop in a %}{% endfor %}", "loop"),
        ("{% set __x = 1 %}", "__x"),
        ("{% for a in b %}{{ loop.changed }}{% endfor %}", "changed"),
        ("{% for a in b %}{{ loop._iterator }}{% endfor %}", "_iterator"),
        ("{{ a.__" + "x" * 100 + " }}", "__" + "x" * 59 + "..."),
    ],
)
def test_a_name_of_the_machinery_is_refused(source: str, name: str) -> None:
    error = refused(source)

    assert (error.code, error.name) == ("template_attribute_forbidden", name)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{{ a() }}", "a"),
        ("{{ lipsum(5) }}", "lipsum"),
        ("{{ cycler('a') }}", "cycler"),
        ("{{ namespace() }}", "namespace"),
        ("{{ dict(a=1) }}", "dict"),
        ("{{ range() }}", "range"),
        ("{{ range(1, 2, 3, 4) }}", "range"),
        ("{{ range(stop=3) }}", "range"),
        ("{{ range(*a) }}", "range"),
        ("{{ range(**a) }}", "range"),
        ("{{ 'a'.format(b) }}", "expression.format"),
        ("{{ a.append(1) }}", "a.append"),
        ("{{ a.items(1) }}", "a.items"),
        ("{{ a.get() }}", "a.get"),
        ("{{ a['x'](1) }}", "a[x]"),
        ("{{ a[b](1) }}", "a"),
        ("{{ (a|upper)() }}", "a"),
        ("{{ loop.cycle('x') }}", "loop.cycle"),
        ("{% for a in b %}{{ loop.cycle() }}{% endfor %}", "loop.cycle"),
        ("{% for a in b %}{{ loop(a) }}{% endfor %}", "loop"),
        ("{% for a in b %}{{ loop.index() }}{% endfor %}", "loop.index"),
    ],
)
def test_only_a_few_calls_exist(source: str, name: str) -> None:
    error = refused(source)

    assert (error.code, error.name) == ("template_call_forbidden", name)


def test_unknown_filters_and_tests_are_named() -> None:
    assert (refused("\n{{ a|attr('b') }}").name, refused("\n{{ a|attr('b') }}").line) == ("attr", 2)
    assert refused("{{ a|attr('b') }}").code == "template_filter_unknown"
    assert (refused("{{ a is callable }}").code, refused("{{ a is callable }}").name) == ("template_test_unknown", "callable")


@pytest.mark.parametrize("source", ["{{ 1e999 }}", "{{ 9223372036854775808 }}", "{{ 0x" + "f" * 50 + " }}"])
def test_numbers_stay_within_a_machine_word(source: str) -> None:
    assert refused(source).code == "template_value_too_large"


@pytest.mark.parametrize(
    "source", ["{{ a" + "|upper" * 12 + " }}", "{{ a" + ".b" * 12 + " }}", "{% if a %}" * 12 + "{% endif %}" * 12]
)
def test_what_nests_too_deeply_is_refused(source: str) -> None:
    assert refused(source).code == "template_too_complex"
    assert program(source, Limits(depth_max=14)).weight > 10


def test_what_has_too_many_nodes_is_refused() -> None:
    source = "{{ a }}" * 150

    assert program(source, Limits(nodes_max=151)).weight == 151
    assert refused(source, Limits(nodes_max=150)).code == "template_too_complex"


def test_constant_steps_become_one_lookup() -> None:
    assert calls("{{ order.seats[0]['row'].x }}") == [
        ("@print", ["order.seats[0][row].x", NEVER]),
        ("@path", ["order", ("seats", 0, "row", "x")]),
    ]


def test_a_computed_step_is_a_lookup_of_its_own_that_is_never_named_by_its_value() -> None:
    assert calls("{{ a[b.c].d }}") == [
        ("@print", ["a.d", NEVER]),
        ("@path", ["a", ("d",)]),
        ("@item", ["…", "a"]),
        ("@path", ["b", ("c",)]),
    ]


def test_loop_belongs_to_the_body_only() -> None:
    inside = program("{% for a in b %}{{ loop.index }}{% endfor %}").tree
    outside = program("{% for a in loop.x if loop.y %}{% else %}{{ loop.z }}{% endfor %}{{ loop.index }}").tree

    assert len(list(inside.find_all(nodes.Getattr))) == 1
    assert not list(outside.find_all(nodes.Getattr))


def test_a_round_costs_the_nodes_of_its_body() -> None:
    def weights(source: str) -> list[Any]:
        return [arguments[0] for name, arguments in calls(source) if name == "@each"]

    assert weights("{% for a in b %}{% endfor %}") == [1]
    assert weights("{% for a in b %}{{ a }}{% endfor %}") == [3]
    assert weights("{% for a in b %}{{ a }}{{ a }}{% for c in d %}{{ a }}{{ c }}{{ e }}{% endfor %}{% endfor %}") == [6, 5]
    assert weights("{% for a in b if a %}{% else %}{{ x }}{{ y }}{% endfor %}") == [2]


def test_what_stands_outside_loops_is_paid_once() -> None:
    assert program("text").weight == 1
    assert program("{{ a }}{% for a in b %}{{ a }}{{ a }}{{ a }}{% endfor %}{{ a }}").weight == 6


def test_texts_of_expressions_are_remembered_and_others_are_not() -> None:
    assert program("text {{ a['k'] ~ 'x'|default('y') }} {{ b.c }}").constants == {"x", "y"}
