"""What templates include, and what they are wrapped in."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.template_includes import INCLUDES_DEEP_MAX, Layout, Library
from dispatcher.template_limits import Budget, Limits, MissingVariable, TemplateError
from dispatcher.template_sandbox import compile_source

LIMITS = Limits()


def library(**texts: str) -> Library:
    return {name: Layout(name, text, text, "{{ content }}" in text) for name, text in texts.items()}


def run(source: str, layouts: Library, *, layout: str | None = None, escapes: bool = False, **variables: Any) -> str:
    compiled = compile_source(source, escapes=escapes, limits=LIMITS, library=layouts, layout=layout)
    return compiled.run(variables, Budget(LIMITS.steps_max, 10_000), 10_000)


def refused(source: str, layouts: Library, *, layout: str | None = None, limits: Limits = LIMITS) -> TemplateError:
    with pytest.raises(TemplateError) as error:
        compile_source(source, escapes=False, limits=limits, library=layouts, layout=layout)
    return error.value


def test_an_include_is_replaced_by_what_it_names_with_the_variables_of_its_place() -> None:
    layouts = library(footer="-- {{ company }}", line="{{ loop.index }}. {{ item }}")

    assert run('Hi {% include "footer" %}!', layouts, company="Acme") == "Hi -- Acme!"
    assert run('{% for item in a %}{% include "line" %} {% endfor %}', layouts, a=["x", "y"]) == "1. x 2. y "
    assert run('{% if a %}{% include "footer" %}{% endif %}', layouts, a=False) == ""


def test_what_an_include_sets_stays_inside() -> None:
    layouts = library(part="{% set a = 2 %}{{ a }}")

    assert run('{% set a = 1 %}{{ a }}{% include "part" %}{{ a }}', layouts) == "121"
    assert run('{% include "part" %}{% include "part" %}', layouts) == "22"


def test_includes_include() -> None:
    assert run('{% include "a" %}', library(a='a{% include "b" %}', b='b{% include "c" %}', c="c")) == "abc"


def test_what_is_printed_inside_is_escaped_like_all_else() -> None:
    layouts = {"a": Layout("a", "{{ x }}", "<b>{{ x }}</b>")}

    assert run('{% include "a" %}', layouts, escapes=True, x="<i>") == "<b>&lt;i&gt;</b>"
    assert run('{% include "a" %}', layouts, x="<i>") == "<i>"


@pytest.mark.parametrize(
    ("source", "code", "name"),
    [
        ('{% include "nothing" %}', "template_include_unknown", "nothing"),
        ('{% include "html" %}', "template_include_unknown", "html"),
        ("{% include name %}", "template_construct_forbidden", "include of a computed name"),
        ('{% include "a" ~ "b" %}', "template_construct_forbidden", "include of a computed name"),
        ('{% include ["a", "b"] %}', "template_construct_forbidden", "include of a computed name"),
        ('{% include "a" ignore missing %}', "template_construct_forbidden", "include with options"),
        ('{% include "a" without context %}', "template_construct_forbidden", "include with options"),
        ('{% include "self" %}', "template_include_cycle", "self > self"),
        ('{% include "x" %}', "template_include_cycle", "x > y > z > x"),
        ('{% include "base" %}', "template_layout_content", None),
    ],
)
def test_what_can_not_be_included_is_refused_and_named(source: str, code: str, name: str | None) -> None:
    layouts = library(
        a="a",
        self='{% include "self" %}',
        x='{% include "y" %}',
        y='{% include "z" %}',
        z='{% include "x" %}',
        base="<{{ content }}>",
    )
    error = refused(source, {**layouts, "html": Layout("html", None, "x")})

    assert (error.code, error.name) == (code, name)


def test_includes_are_bounded_in_depth_and_size_whatever_each_of_them_is() -> None:
    deep = library(**{f"l{n}": f'{{% include "l{n + 1}" %}}' for n in range(INCLUDES_DEEP_MAX + 1)})
    doubling = library(**{f"l{n}": f'{{% include "l{n + 1}" %}}' * 2 for n in range(7)}, l7="x" * 5_000)
    large = library(a="x" * 100_000)

    assert refused('{% include "l0" %}', deep).code == "template_include_too_deep"
    assert refused('{% include "l0" %}', doubling).code == "template_too_large"
    assert refused('{% include "a" %}' * 6, large).code == "template_too_large"
    assert refused('{% include "a" %}', library(a="{{ x }}" * 200), limits=Limits(nodes_max=100)).code == "template_too_complex"


def test_a_loop_pays_for_what_it_includes() -> None:
    source = '{% for x in range(100) %}{% include "part" %}{% endfor %}'
    compiled = compile_source(source, escapes=False, limits=LIMITS, library=library(part="{{ x }}" * 20))

    with pytest.raises(TemplateError, match="template_steps_exceeded"):
        compiled.run({}, Budget(2_000, 10_000), 10_000)


def test_errors_tell_the_line_and_the_layout_it_is_of() -> None:
    layouts = library(bad="\n\n{{ a ** b }}", worse="\n{{", fine="\n{{ missing }}")

    error = refused('x\n{% include "bad" %}', layouts)
    assert (error.line, error.layout) == (3, "bad")
    error = refused('\n\n\n{% include "worse" %}', layouts)
    assert (error.code, error.line, error.layout) == ("template_syntax", 2, "worse")
    error = refused('\n{% include "fine" %}\n{{ a ** b }}', layouts)
    assert (error.line, error.layout) == (3, None)
    with pytest.raises(MissingVariable) as missing:
        run('\n\n{% include "fine" %}', layouts)
    assert (missing.value.line, missing.value.layout, missing.value.name) == (2, "fine", "missing")
    assert "Layout fine. Line 2." in missing.value.problem().detail


def test_a_template_stands_where_its_layout_has_the_content() -> None:
    layouts = library(base='<h1>{{ title }}</h1>{{ content }}{% include "footer" %}', footer="-- {{ title }}")

    assert run("{{ body }}", layouts, layout="base", title="T", body="B") == "<h1>T</h1>B-- T"
    assert run("{% set title = 'x' %}{{ title }}", layouts, layout="base", title="T") == "<h1>T</h1>x-- T"


def test_in_a_wrapped_template_content_is_a_variable_like_any_other() -> None:
    assert run("{{ content }}", library(base="<{{ content }}>"), layout="base", content="c") == "<c>"
    assert run("{{ content }}", {}, content="c") == "c"


@pytest.mark.parametrize(
    "source",
    [
        "nothing",
        "{{ content }}{{ content }}",
        "{% if a %}{{ content }}{% endif %}",
        "{% for a in b %}{{ content }}{% endfor %}",
        "{{ content|upper }}",
        "{{ content }}{{ content.x }}",
        "{{ content }}{% if content %}{% endif %}",
    ],
)
def test_a_layout_has_one_place_for_the_content_outside_of_everything(source: str) -> None:
    assert refused("x", library(base=source), layout="base").code == "template_layout_content"


def test_a_layout_that_is_not_there_is_named() -> None:
    error = refused("x", {}, layout="base")

    assert (error.code, error.name) == ("template_layout_unknown", "base")


def test_the_fixed_text_is_what_is_printed_whatever_the_variables() -> None:
    source = 'a{{ x }}{% if y %}b{% endif %}{% for z in y %}c{% endfor %}{% include "part" %}'
    compiled = compile_source(source, escapes=False, limits=LIMITS, library=library(part="d"))

    assert compiled.fixed == "ad"
