from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.template_limits import MEANINGS
from dispatcher.templates import (
    HTML,
    PLAIN,
    SUBJECT_BYTES_MAX,
    CompiledTemplate,
    Limits,
    MissingVariable,
    TemplateError,
    compile_template,
    render,
    undeclared_variables,
)

MAIL = Template(
    "t1",
    OrganizationId("acme"),
    "purchase",
    Channel.EMAIL,
    "en",
    1,
    "Order {{ order.number }}",
    "Hello {{ user.name }}",
    "<p>Hello {{ user.name }}</p>",
    {},
)
VARIABLES = {"order": {"number": "A-1"}, "user": {"name": "Ann <3"}}
SMS = evolve(MAIL, channel=Channel.SMS, subject=None, html_template=None)

DOUBLING = "{% set a = a ~ a %}" * 60
NESTING = "{% set a = [a, a] %}" * 60
LOOPS = "{% for x in range(200) %}"
HOSTILE: dict[str, str] = {
    # Reaching for Python
    "class chain": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class by key": "{{ ''['__class__'] }}",
    "class by computed key": "{{ ''['__cla' ~ 'ss__'] }}",
    "class of a variable": "{{ user.__class__.__init__.__globals__ }}",
    "class by filter": "{{ user|attr('__class__') }}",
    "class by mapped attribute": "{{ [user]|map(attribute='__class__')|first }}",
    "class by format": "{{ '{0.__class__}'.format(user) }}",
    "class by format filter": "{{ '{0.__class__}'|format(user) }}",
    "class by format_map": "{{ '{a.__class__}'.format_map({'a': user}) }}",
    "method": "{{ 'a'.upper() }}",
    "method as value": "{{ 'a'.upper }}",
    "method that changes": "{{ order.update({'x': 1}) }}",
    "self": "{{ self.__init__.__globals__ }}",
    "self alone": "{{ self._TemplateReference__context }}",
    "globals": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "joiner": "{{ joiner() }}",
    "namespace": "{% set n = namespace(a=1) %}",
    "builtins": "{{ __builtins__ }}",
    "frameworks": "{{ config.items() }}{{ request }}",
    "loop internals": "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "loop globals": "{% for x in [1] %}{{ loop.cycle.__func__.__globals__ }}{% endfor %}",
    "call of a variable": "{{ user() }}",
    # Reaching for other templates
    "include": "{% include 'secrets' %}",
    "import": "{% import 'secrets' as s %}",
    "from import": "{% from 'secrets' import s %}",
    "extends": "{% extends 'secrets' %}",
    "do": "{% do user.clear() %}",
    # Burning time
    "huge range": "{% for x in range(999999999) %}{% endfor %}",
    "huge range printed": "{{ range(999999999)|join }}",
    "nested loops": LOOPS * 4 + "x" + "{% endfor %}" * 4,
    "nested filtered loops": "{% for x in range(300) if x < 0 %}"
    + LOOPS * 3
    + "x"
    + "{% endfor %}" * 4
    + LOOPS * 2
    + "{% endfor %}" * 2,
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "repeated squares": "{% set a = 9 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
    "rounding away": "{{ 5|round(-999999999) }}",
    "equality of a maze": "{% set a = [1] %}" + NESTING + "{% set b = a %}{% set a = [1] %}" + NESTING + "{{ a == b }}",
    "json of a maze": "{% set a = [1] %}" + NESTING[:400] + "{{ a|tojson }}",
    "search in a maze": "{% set a = [1] %}" + NESTING + "{% set b = a %}{% set a = [1] %}" + NESTING + "{{ b in [a] }}",
    "sorting again and again": "{% for x in range(5000) %}{{ range(5000)|sort|length }}{% endfor %}",
    # Filling memory
    "multiplied text": "{{ 'a' * 10 ** 9 }}",
    "multiplied text without power": "{{ 'a' * 999999999 }}",
    "multiplied list": "{{ [0] * 999999999 }}",
    "multiplied tuple": "{{ (0,) * 999999999 }}",
    "doubled text": "{% set a = 'aaaaaaaa' %}" + DOUBLING + "{{ a }}",
    "doubled text by plus": "{% set a = 'aaaaaaaa' %}" + DOUBLING.replace("~", "+") + "{{ a }}",
    "doubled list": "{% set a = [1] %}" + DOUBLING.replace("~", "+") + "{{ a|length }}",
    "doubled text by replace": "{% set a = 'aaaaaaaa' %}" + "{% set a = a|replace('a', 'aaaaaaaa') %}" * 20,
    "doubled text by join": "{% set a = 'aaaaaaaa' %}" + "{% set a = [a, a, a, a]|join(a) %}" * 20,
    "doubled text by format": "{% set a = 'aaaaaaaa' %}" + "{% set a = '%s%s%s%s' % (a, a, a, a) %}" * 20,
    "wide format": "{{ '%999999999s' % 'a' }}",
    "wide format filter": "{{ '%999999999d'|format(1) }}",
    "starred format": "{{ '%*d' % (999999999, 1) }}",
    "format by test": "{{ '%999999999d' is even }}",
    "format by divisibleby": "{{ '%999999999d' is divisibleby(3) }}",
    "wide center": "{{ 'a'|center(999999999) }}",
    "wide indent": "{{ 'a'|indent(999999999) }}",
    "indent of many lines": "{{ ('a\\n' * 1)|indent(999999999) }}",
    "long output": LOOPS + LOOPS + "{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}" + "{% endfor %}" * 2,
    "long number": "{{ " + "9" * 5000 + " }}",
    "long hexadecimal number": "{{ 0x" + "f" * 5000 + " }}",
    "lipsum": "{{ lipsum(n=99999) }}",
    "batch with filling": "{{ [1]|batch(999999999, 'x') }}",
    "set block": "{% set a %}" + LOOPS + "x{% endfor %}{% endset %}{{ a }}",
    "filter block": "{% filter upper %}x{% endfilter %}",
    "call block": "{% call user() %}x{% endcall %}",
    # Breaking the compiler
    "deep parentheses": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep lists": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "deep not": "{{ " + "not " * 3000 + "1 }}",
    "long sum": "{{ 1" + " + 1" * 3000 + " }}",
    "long path": "{{ user" + ".a" * 3000 + " }}",
    "many filters": "{{ 'a'" + "|upper" * 3000 + " }}",
    "many conditions": "{% if x %}" + "{% elif x %}" * 3000 + "{% endif %}",
    "deep conditions": "{% if user %}" * 500 + "{% endif %}" * 500,
    "deep loops": "{% for x in user %}" * 25 + "{% endfor %}" * 25,
    "many parts": "{{ 'a' }}" * 9000,
    "unclosed": "{{ " * 20_000,
    "unclosed comments": "{# " * 20_000,
    "unclosed texts": "{{ '" * 20_000,
    "unclosed blanks": "{%" + "\n" * 60_000,
    "unclosed raw": "{% raw %}" * 10_000,
    "not text": "\ud800",
    "too large": "x" * 200_000,
}


def code(function: Any, *arguments: Any) -> str:
    with pytest.raises(TemplateError) as refused:
        function(*arguments)
    return refused.value.code


@pytest.mark.parametrize("content_type", [HTML, PLAIN])
@pytest.mark.parametrize("trick", sorted(HOSTILE))
def test_no_trick_gets_anywhere(trick: str, content_type: str) -> None:
    """Each ends in an error that has a code, a plain name at most, and nothing that led to it."""
    with pytest.raises(TemplateError) as refused:
        render(compile_template(HOSTILE[trick], content_type), VARIABLES)
    error = refused.value

    assert error.code in MEANINGS
    assert error.name is None or len(error.name) <= 64
    assert error.__cause__ is error.__context__ is None
    assert "Ann" not in str(error)


TOKENS = (
    *("{{", "}}", "{%", "%}", "for", "in", "if", "else", "endfor", "endif", "set", "user", "order", ".name", "['x']", "|"),
    *(
        "upper",
        "join",
        "(",
        ")",
        "[",
        "]",
        ",",
        "~",
        "+",
        "*",
        "==",
        "is",
        "defined",
        "loop",
        ".index",
        "1",
        "'a'",
        "=",
        "x",
        "-",
    ),
)


@given(st.lists(st.sampled_from(TOKENS), max_size=25).map(" ".join), st.sampled_from([HTML, PLAIN]))
def test_whatever_is_written_ends_in_a_text_or_an_error_of_ours(source: str, content_type: str) -> None:
    try:
        text = render(compile_template(source, content_type), VARIABLES)
    except TemplateError as error:
        text = str(error)

    assert "__" not in text


def test_a_payload_has_the_parts_of_a_mail() -> None:
    assert CompiledTemplate.of(MAIL).render_payload(VARIABLES) == {
        "subject": "Order A-1",
        "text": "Hello Ann <3",
        "html": "<p>Hello Ann &lt;3</p>",
    }


def test_a_mail_needs_no_html_and_another_channel_has_a_text_only() -> None:
    assert CompiledTemplate.of(evolve(MAIL, html_template=None)).render_payload(VARIABLES).keys() == {"subject", "text"}
    assert CompiledTemplate.of(SMS).render_payload(VARIABLES) == {"text": "Hello Ann <3"}


def test_a_template_knows_whose_it_is_and_what_it_looks_up() -> None:
    compiled = CompiledTemplate.of(MAIL)

    assert (compiled.template_id, compiled.locale) == ("t1", "en")
    assert compiled.names == {"subject": {"order"}, "body_template": {"user"}, "html_template": {"user"}}


@pytest.mark.parametrize(
    ("template", "expected", "part"),
    [
        (evolve(MAIL, subject=None), "template_part_missing", "subject"),
        (evolve(MAIL, subject=""), "template_part_missing", "subject"),
        (evolve(SMS, subject="x"), "template_part_forbidden", "subject"),
        (evolve(SMS, html_template="x"), "template_part_forbidden", "html_template"),
        (evolve(MAIL, subject="{{"), "template_syntax", "subject"),
        (evolve(MAIL, body_template="{{ a ** b }}"), "template_construct_forbidden", "body_template"),
        (evolve(MAIL, html_template="{{ a|b }}"), "template_filter_unknown", "html_template"),
    ],
)
def test_a_template_that_can_not_be_compiled_tells_its_part(template: Template, expected: str, part: str) -> None:
    with pytest.raises(TemplateError) as refused:
        CompiledTemplate.of(template)

    assert (refused.value.code, refused.value.part) == (expected, part)


def test_a_missing_variable_is_named_with_part_and_line() -> None:
    with pytest.raises(MissingVariable) as refused:
        CompiledTemplate.of(evolve(MAIL, body_template="\n{{ user.age }}")).render_payload(VARIABLES)

    assert (refused.value.name, refused.value.part, refused.value.line) == ("user.age", "body_template", 2)


def test_declared_variables_have_defaults_and_may_be_required() -> None:
    declared = evolve(
        SMS,
        body_template="{{ greeting }} {{ name }}{{ '!' if loud }}",
        variables={"greeting": {"default": "Hello"}, "name": {"required": True}, "loud": {"required": True, "default": False}},
    )
    compiled = CompiledTemplate.of(declared)

    assert compiled.render_payload({"name": "Ann"}) == {"text": "Hello Ann"}
    assert compiled.render_payload({"name": "Ann", "greeting": "Bye", "loud": True}) == {"text": "Bye Ann!"}
    for variables in ({}, {"name": None}):
        with pytest.raises(MissingVariable, match="name"):
            compiled.render_payload(variables)


def test_a_variable_that_is_only_declared_may_be_left_out() -> None:
    template = evolve(SMS, body_template="x{% if name is defined %}{{ name }}{% endif %}", variables={"name": {}})

    assert CompiledTemplate.of(template).render_payload({}) == {"text": "x"}


def test_a_required_variable_is_required_even_where_it_is_not_used() -> None:
    template = evolve(SMS, body_template="x", variables={"name": {"required": True}})

    assert code(CompiledTemplate.of(template).render_payload, {}) == "template_variable_missing"


def test_undeclared_names_are_told_by_part() -> None:
    assert undeclared_variables(MAIL) == {}
    assert undeclared_variables(evolve(MAIL, variables={"order": {}})) == {"body_template": ("user",), "html_template": ("user",)}
    assert undeclared_variables(evolve(MAIL, variables={"order": {}, "user": {}, "spare": {}})) == {}


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\x0b", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"])
def test_no_variable_can_smuggle_a_header_into_a_mail(character: str) -> None:
    with pytest.raises(TemplateError) as refused:
        CompiledTemplate.of(MAIL).render_payload({**VARIABLES, "order": {"number": f"1{character}bcc: eve@example.org"}})

    assert refused.value.code in ("template_subject_line_break", "template_output_invalid")
    assert refused.value.part == "subject"


def test_a_subject_is_one_line_that_a_mail_may_have() -> None:
    compiled = CompiledTemplate.of(evolve(MAIL, subject="{{ order.number }}"))

    assert code(compiled.render_payload, {**VARIABLES, "order": {"number": " "}}) == "template_empty"
    assert code(compiled.render_payload, {**VARIABLES, "order": {"number": "x" * 999}}) == "template_output_too_large"
    assert len(compiled.render_payload({**VARIABLES, "order": {"number": "x" * 998}})["subject"]) == SUBJECT_BYTES_MAX


def test_a_text_that_says_nothing_is_refused_unless_the_html_does() -> None:
    assert code(CompiledTemplate.of(evolve(SMS, body_template="{{ x }}")).render_payload, {"x": " "}) == "template_empty"
    assert CompiledTemplate.of(evolve(MAIL, body_template="")).render_payload(VARIABLES)["text"] == ""


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_what_could_not_be_stored_is_refused(text: str) -> None:
    assert code(CompiledTemplate.of(SMS).render_payload, {"user": {"name": text}}) == "template_output_invalid"


def test_size_counts_bytes_and_not_characters() -> None:
    compiled = compile_template("{{ a }}", PLAIN)
    limits = Limits(output_bytes_max=100)

    assert render(compiled, {"a": "ä" * 50}, limits) == "ä" * 50
    assert code(render, compiled, {"a": "ä" * 51}, limits) == "template_output_too_large"


def test_a_payload_may_be_exactly_as_large_as_allowed() -> None:
    template = evolve(MAIL, subject="ab", body_template="cde", html_template="fghi")

    assert CompiledTemplate.of(template, Limits(output_bytes_max=9)).render_payload({})["html"] == "fghi"
    assert code(CompiledTemplate.of(template, Limits(output_bytes_max=8)).render_payload, {}) == "template_output_too_large"


def test_steps_and_size_are_limits_of_the_whole_payload() -> None:
    loop = "{% for i in range(100) %}{{ i }}{% endfor %}"
    template = evolve(MAIL, body_template=loop, html_template=loop)

    assert code(CompiledTemplate.of(template, Limits(steps_max=800)).render_payload, VARIABLES) == "template_steps_exceeded"
    assert (
        code(CompiledTemplate.of(template, Limits(output_bytes_max=300)).render_payload, VARIABLES) == "template_output_too_large"
    )
    assert CompiledTemplate.of(evolve(template, html_template=None), Limits(800, output_bytes_max=300)).render_payload(VARIABLES)


def test_the_same_template_and_variables_always_end_the_same_way() -> None:
    """Steps are counted, so the budget that is just enough stays just enough."""
    compiled = compile_template("{% for s in seats %}{{ s.row|upper }}{% endfor %}", PLAIN)
    variables = {"seats": [{"row": "a"}] * 20}

    def passes(steps_max: int) -> bool:
        try:
            render(compiled, variables, Limits(steps_max=steps_max))
        except TemplateError:
            return False
        return True

    enough = next(steps for steps in range(1000) if passes(steps))

    assert enough > 20
    assert all(passes(enough) and not passes(enough - 1) for _ in range(5))
