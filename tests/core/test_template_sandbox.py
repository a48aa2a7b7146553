from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.runtime import LoopContext
from markupsafe import escape

from dispatcher.bidi import in_plain_text
from dispatcher.localization import NEUTRAL
from dispatcher.template_limits import Budget, Limits, Missing, MissingVariable, TemplateError
from dispatcher.template_sandbox import SANDBOXES, Compiled, RenderContext, compile_source

LIMITS = Limits()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PLAIN_TEXTS = TEXTS.filter(lambda text: in_plain_text(text, rtl=False) == text)
"""Of what runs from left to right; what is done to the rest is shown in test_bidi."""


def compiled(source: str, *, escapes: bool = False) -> Compiled:
    return compile_source(source, escapes=escapes, limits=LIMITS)


def run(source: str, *, escapes: bool = False, steps: int = 50_000, length: int = 10_000, **variables: Any) -> str:
    return compiled(source, escapes=escapes).run(variables, Budget(steps, length), length)


def refused(source: str, **variables: Any) -> TemplateError:
    with pytest.raises(TemplateError) as error:
        run(source, **variables)
    return error.value


@pytest.mark.parametrize(
    ("source", "variables", "result"),
    [
        ("plain", {}, "plain"),
        (
            "{{ a }} {{ b.c }} {{ b['c'] }} {{ d[0].e }} {{ d[-1]['e'] }}",
            {"a": 1, "b": {"c": 2.5}, "d": [{"e": "x"}]},
            "1 2.5 2.5 x x",
        ),
        ("{{ a[k] }} {{ a[k2|default('y')] }}", {"a": {"x": 1, "y": 2}, "k": "x"}, "1 2"),
        ("{{ a ~ 1 ~ b }}", {"a": "x", "b": 2.0}, "x12.0"),
        ("{{ a + 1 }} {{ -a }} {{ +a }} {{ 'n: %03d' % a }} {{ 7 // 2 }} {{ 7 % 4 }}", {"a": 5}, "6 -5 5 n: 005 3 3"),
        ("{% if a > 1 and b %}x{% elif b is none %}y{% else %}z{% endif %}", {"a": 1, "b": None}, "y"),
        ("{{ 'x' if a else 'y' }}{{ 'x' if a }}", {"a": False}, "y"),
        ("{{ a or 'nobody' }}", {"a": None}, "nobody"),
        ("{% for a in b %}{{ loop.index }}{{ a }}{{ loop.cycle('-', '+') }}{% endfor %}", {"b": ["x", "y", "z"]}, "1x-2y+3z-"),
        ("{% for a in b %}{{ a }}{{ ', ' if not loop.last }}{% endfor %}", {"b": ["x", "y"]}, "x, y"),
        (
            "{% for a in b %}{{ loop.previtem|default('^') }}{{ loop.nextitem|default('$') }}{% endfor %}",
            {"b": ["x", "y"]},
            "^yx$",
        ),
        (
            "{% for a in b %}{{ loop.length }}{{ loop.revindex0 }}{% for c in b %}{{ loop.first }}{% endfor %}{% endfor %}",
            {"b": [1]},
            "10True",
        ),
        ("{% for a in b %}x{% else %}none{% endfor %}", {"b": []}, "none"),
        ("{% for a in b if a is odd %}{{ a }}{% endfor %}", {"b": [1, 2, 3]}, "13"),
        ("{% for k, v in a.items() %}{{ k }}={{ v }};{% endfor %}", {"a": {"x": 1, "y": 2}}, "x=1;y=2;"),
        ("{{ a.keys()|join }}{{ a.values()|sum }}{{ a.get('x') }}{{ a.get('z', '-') }}", {"a": {"x": 1, "y": 2}}, "xy31-"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}{{ range(1, 9, 3)|join }}", {}, "012147"),
        ("{{ a[1:3] }} {{ b[:2]|join }} {{ a[::-1] }}", {"a": "abcd", "b": [1, 2, 3]}, "bc 12 dcba"),
        ("{% set a, b = 1, 2 %}{{ a + b }}{% set c = [a, b] %}{{ c|length }}", {}, "32"),
        (
            "{{ {'a': 1}.a }} {{ (1, 2)|last }} {{ [1, 2] == [1, 2] }} {{ 'a' in 'abc' }} {{ 3 not in [1] }}",
            {},
            "1 2 True True True",
        ),
        ("{% raw %}{{ a }}{% endraw %}{# note #}", {}, "{{ a }}"),
        ("{{ items }} {{ a.items }} {{ a.get }}", {"items": "x", "a": {"items": 3, "get": 4}}, "x 3 4"),
        ("{{ user.name|default('you') }} {{ nobody.name|default('you') }}", {"user": {}}, "you you"),
        ("{{ a is defined }} {{ b.c is defined }} {{ d is undefined }}", {"a": 1, "b": {}}, "True False True"),
    ],
)
def test_what_templates_can_say(source: str, variables: dict[str, Any], result: str) -> None:
    assert run(source, **variables) == result


@given(PLAIN_TEXTS, PLAIN_TEXTS)
def test_html_is_escaped_and_plain_text_is_not(one: str, other: str) -> None:
    source = "<p>{{ one }}{% for x in [other] %}{{ x }}{% endfor %}{{ one ~ other }}</p>"

    assert run(source, one=one, other=other) == f"<p>{one}{other}{one}{other}</p>"
    assert run(source, escapes=True, one=one, other=other) == f"<p>{escape(one)}{escape(other)}{escape(one)}{escape(other)}</p>"


def test_what_the_author_calls_safe_is_not_escaped() -> None:
    assert run("{{ a|safe }}{{ a|safe ~ a }}", escapes=True, a="<b>") == "<b><b>&lt;b&gt;"
    assert run("{{ a|safe ~ a ~ a|e }}", a="<b>") == "<b><b>&lt;b&gt;"


@pytest.mark.parametrize(
    ("source", "variables", "name"),
    [
        ("{{ user }}", {}, "user"),
        ("{{ user.name }}", {}, "user"),
        ("{{ user.name }}", {"user": {}}, "user.name"),
        ("{{ user.name }}", {"user": {"name": None}}, "user.name"),
        ("{{ user.name.first }}", {"user": {"name": {}}}, "user.name.first"),
        ("{{ user.name.first }}", {"user": {}}, "user.name"),
        ("{{ seats[0]['row'] }}", {"seats": [{}]}, "seats[0].row"),
        ("{{ seats[7] }}", {"seats": []}, "seats[7]"),
        ("{{ seats[key] }}", {"seats": {}, "key": "hush"}, "seats"),
        ("{{ seats[key] }}", {"seats": {}}, "key"),
        ("{{ seats[key].row }}", {"seats": {"hush": {}}, "key": "hush"}, "seats.row"),
        ("{{ 'x' ~ user.name }}", {"user": {}}, "user.name"),
        ("{{ user.age + 1 }}", {"user": {}}, "user.age"),
        ("{% if user.name %}x{% endif %}", {"user": {}}, "user.name"),
        ("{% for s in user.seats %}x{% endfor %}", {"user": {}}, "user.seats"),
        ("{% for s in seats %}{{ s.row }}{% endfor %}", {"seats": [{}]}, "s.row"),
        ("{{ user.name|upper }}", {"user": {}}, "user.name"),
        ("{{ user.name[1:] }}", {"user": {}}, "user.name"),
        ("{{ user.get('x') }}", {}, "user"),
        ("{{ user.get('x') }}", {"user": {}}, "expression"),
        ("{% for s in [1] %}{{ loop.nextitem }}{% endfor %}", {}, "loop"),
        ("{{ 'a'.upper }}", {}, "expression.upper"),
        ("{{ lipsum }}", {}, "lipsum"),
        ("{{ range }}", {}, "range"),
    ],
)
def test_what_is_missing_is_named_as_the_template_calls_it(source: str, variables: dict[str, Any], name: str) -> None:
    error = refused(source, **variables)

    assert isinstance(error, MissingVariable)
    assert error.name == name


@pytest.mark.parametrize(
    ("source", "variables", "code", "line"),
    [
        ("\n{{ a }}", {"a": [1]}, "template_value_unprintable", 2),
        ("\n\n{{ a }}", {"a": {}}, "template_value_unprintable", 3),
        ("{{ a }}", {"a": object()}, "template_value_unprintable", 1),
        ("{% for a in [1] %}\n{{ loop }}{% endfor %}", {}, "template_value_unprintable", 2),
        ("{{ a }}", {"a": 10**30}, "template_value_too_large", 1),
        ("\n{{ a.get('x') }}", {"a": [1]}, "template_value_wrong", 2),
        ("\n{% for x in 5 %}{% endfor %}", {}, "template_value_wrong", 2),
        ("\n\n{{ 'a' + 1 }}", {}, "template_value_wrong", 3),
        ("\n{{ -a }}", {"a": "x"}, "template_value_wrong", 2),
        ("\n{{ [1, 'a']|sort|join }}", {}, "template_value_wrong", 2),
        ("\n{% for a, b in [1] %}{% endfor %}", {}, "template_value_wrong", 2),
        ("{{ a[::0] }}", {"a": "abc"}, "template_value_wrong", 1),
        ("{{ 'a'|upper(1, 2, 3) }}", {}, "template_value_wrong", 1),
        ("{{ range(1, 9, 0)|join }}", {}, "template_value_wrong", 1),
        ("{{ range('9')|join }}", {}, "template_value_wrong", 1),
        ("\n{% for i in range(100) %}\n{{ a }}{% endfor %}", {"a": "x" * 900}, "template_output_too_large", None),
        ("{{ a }}", {"a": "x" * 10_001}, "template_output_too_large", None),
        ("\n{% for i in range(60000) %}{% endfor %}", {}, "template_steps_exceeded", 2),
        ("{% for i in range(400) %}\n{% for j in range(400) %}{% endfor %}{% endfor %}", {}, "template_steps_exceeded", 2),
    ],
)
def test_what_goes_wrong_is_told_by_code_and_line(source: str, variables: dict[str, Any], code: str, line: int | None) -> None:
    error = refused(source, **variables)

    assert (error.code, error.line) == (code, line)


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        ("{{", "template_syntax", 1),
        ("\n\n{% if %}", "template_syntax", 3),
        ("\n{% frobnicate %}", "template_syntax", 2),
        ("{{ {[1]: 2} }}", "template_syntax", None),
        ("{{ " + "9" * 5000 + " }}", "template_syntax", None),
        ("\ud800", "template_syntax", None),
        ("{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}", "template_too_complex", None),
        ("{{ " + "-" * 5000 + "1 }}", "template_too_complex", None),
        ("{% for a in b %}" * 25 + "{% endfor %}" * 25, "template_too_complex", None),
        ("\n{{ a ** b }}", "template_construct_forbidden", 2),
        ("x" * (128 * 1024 + 1), "template_too_large", None),
        ("ä" * (64 * 1024 + 1), "template_too_large", None),
    ],
)
def test_a_source_that_can_not_be_compiled_is_told_by_code_and_line(source: str, code: str, line: int | None) -> None:
    with pytest.raises(TemplateError) as error:
        compiled(source)

    assert (error.value.code, error.value.line) == (code, line)
    assert error.value.__context__ is error.value.__cause__ is None


def test_what_is_evaluated_is_what_is_paid() -> None:
    def spent(source: str, **variables: Any) -> int:
        budget = Budget(50_000, 10_000)
        compiled(source).run(variables, budget, 10_000)
        return 50_000 - budget.steps_left

    loop = "{% for a in b %}{{ a }}{{ a }}{{ a }}{% endfor %}"

    assert spent("{{ a }}" * 100, a=1) == 101
    assert spent(loop, b=[1] * 128) - spent(loop, b=[1] * 64) == 64 * 5 + 64 // 4 + 1
    assert spent("{{ range(1000)|length }}") - spent("{{ range(500)|length }}") == 500
    with pytest.raises(TemplateError, match="template_steps_exceeded"):
        run("{{ 1 }}" * 100, steps=100)


def test_the_output_may_be_exactly_as_long_as_allowed() -> None:
    source = "{% for i in range(10) %}ab{% endfor %}"

    assert len(run(source, length=20)) == 20
    with pytest.raises(TemplateError, match="template_output_too_large"):
        run(source, length=19)


def test_an_error_has_nothing_of_a_value_in_its_traceback() -> None:
    for source in ("{{ a|int + a }}", "{{ [1, a]|sort|join }}", "{{ b[a] }}", "{{ '%d' % a }}"):
        error = refused(source, a="hush", b={})
        assert "hush" not in "".join(traceback.format_exception(error)).replace('a="hush"', "")
        assert error.__context__ is error.__cause__ is None


def test_the_names_a_template_looks_up_are_known() -> None:
    source = "{% set own = 1 %}{{ a.x }}{% for b in c if b.ok %}{{ b }}{{ loop.index }}{{ own }}{% endfor %}{{ range(d)|join }}"

    assert compiled(source).names == {"a", "c", "d"}


def test_a_variable_may_have_the_name_of_a_global_of_jinja() -> None:
    assert run("{{ range }} {{ dict }} {{ namespace.x }}", range=1, dict=2, namespace={"x": 3}) == "1 2 3"


def test_a_rendering_leaves_nothing_behind() -> None:
    template = compiled("{% set seen = seen|default(0) + 1 %}{{ seen }}")
    variables: dict[str, Any] = {}

    assert [template.run(variables, Budget(1000, 1000), 1000) for _ in range(3)] == ["1"] * 3
    assert variables == {}


def test_variables_can_not_be_changed() -> None:
    seats = [1, 2, 3]
    run("{{ a|reverse|list|join }}{{ a|sort(reverse=true)|join }}{% set a = a + [4] %}{{ a|join }}", a=seats)

    assert seats == [1, 2, 3]


def test_a_repr_shows_no_source() -> None:
    assert "hush" not in repr(compiled("hush {{ 'hush' }}"))


@pytest.mark.parametrize("escapes", [False, True])
def test_the_second_wall_stands_without_the_first(escapes: bool) -> None:
    """The environment itself gives away no attribute, no item and no call, should a tree ever reach it unchecked."""
    sandbox = SANDBOXES[escapes]
    loop = LoopContext([1], Missing)
    context = RenderContext(compiled(""), {}, Budget(1, 1), NEUTRAL)

    assert sandbox.globals == {}
    assert sandbox.getattr(loop, "index") == 0
    for obj, attribute in (("", "__class__"), (loop, "__class__"), (loop, "_iterator"), ({"a": 1}, "a")):
        with pytest.raises(TemplateError, match="template_attribute_forbidden"):
            sandbox.getattr(obj, attribute)
    with pytest.raises(TemplateError, match="template_attribute_forbidden"):
        sandbox.getitem({"a": 1}, "a")
    for function in (print, str.format, "{0.__class__}".format, loop.changed, LoopContext):
        with pytest.raises(TemplateError, match="template_call_forbidden"):
            sandbox.call(context, function, "x")
    with pytest.raises(TemplateError, match="template_value_wrong"):
        sandbox.call_binop(context, "*", "a", 10**9)
