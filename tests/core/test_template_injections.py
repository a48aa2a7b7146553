"""A corpus of known ways to break out of Jinja templates, to burn time or memory, and to smuggle something into a message.

Every source is tried in a template, in what it includes and in its layout; every value is put where values go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from attrs import evolve

from dispatcher.acceptance import AcceptLimits, Item, parse_item
from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.template_includes import Layout
from dispatcher.template_limits import MEANINGS, Limits
from dispatcher.templates import HTML, PLAIN, CompiledTemplate, TemplateError, compile_template, payload_size, render

VARIABLES: dict[str, Any] = {"user": {"name": "Ann", "__class__": "mine"}, "items": [1, 2], "text": "abc", "n": 3}
SMS = Template("t1", OrganizationId("acme"), "purchase", Channel.SMS, "en", 1, None, "x", None, {})
MAIL = evolve(SMS, channel=Channel.EMAIL, subject="{{ a }}", body_template="{{ a }}", html_template="<p>{{ a }}</p>")
PUSH = evolve(SMS, channel=Channel.PUSH, body_template="{{ a }}", parts={"title": "{{ a }}", "data": {"x": "{{ a }}"}})
LIMITS = Limits()
FOR = "{% for a in range(900) %}"
END = "{% endfor %}"

ESCAPES: dict[str, str] = {
    # Walking from a value to Python's classes.
    "mro": "{{ ''.__class__.__mro__ }}",
    "base of a text": "{{ ''.__class__.__base__.__subclasses__() }}",
    "base of a list": "{{ [].__class__.__base__ }}",
    "base of a mapping": "{{ {}.__class__.__bases__[0] }}",
    "base of a number": "{{ (1).__class__ }}",
    "base of a pair": "{{ ().__class__.__bases__[0].__subclasses__()[40]('/etc/passwd').read() }}",
    "subclasses of a variable": "{{ user.__class__.__base__.__subclasses__()[59].__init__.__globals__ }}",
    "item of a class": "{{ user['__class__']['__mro__'] }}",
    "reduce": "{{ text.__reduce_ex__(2) }}",
    "doc": "{{ text.__doc__ }}",
    "init globals": "{{ user.__init__.__globals__['__builtins__'] }}",
    "getattribute": "{{ text.__getattribute__('__class__') }}",
    "format with a class": "{{ '{0.__class__.__init__.__globals__}'.format(user) }}",
    "format_map with a class": "{{ '{x.__class__}'.format_map({'x': user}) }}",
    "percent with a class": "{{ '%(__class__)s' % user }}",
    "percent with a repr": "{{ '%r' % text }}",
    "percent with an ascii repr": "{{ '%a' % text }}",
    "percent with a star": "{{ '%*s' % (99999999, text) }}",
    "format filter with names": "{{ '%(name)s'|format(name=1) }}",
    "format filter with a class": "{{ '{0.__class__}'|format(user) }}{{ text.format }}",
    "f-string": "{{ f'{user}' }}",
    "byte text": "{{ b'abc'.decode() }}",
    "attr": "{{ text|attr('__class__') }}",
    "attr twice": "{{ text|attr('__cla' ~ 'ss__')|attr('__mro__') }}",
    "attr by request": "{{ text|attr(request.args.a) }}",
    "attr by hexadecimal": "{{ text|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "attr by octal": "{{ text|attr('\\137\\137class\\137\\137') }}",
    "item by hexadecimal": "{{ text['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "item by unicode": "{{ text['\\u005f\\u005fclass\\u005f\\u005f'] }}",
    "item by name of a character": "{{ text['\\N{LOW LINE}_class__'] }}",
    "item by joining": "{{ text[['__cla', 'ss__']|join] }}",
    "item by reversing": "{{ text['__ssalc__'|reverse] }}",
    "item by replacing": "{{ text['xxclassxx'|replace('x', '_')] }}",
    "item by formatting": "{{ text['%c%cclass%c%c'|format(95, 95, 95, 95)] }}",
    "item by lower case": "{{ text['__CLASS__'|lower] }}",
    "item by a slice": "{{ text['_xx_class__'[::1]] }}",
    "map of an attribute": "{{ items|map(attribute='__class__')|join }}",
    "map of attr": "{{ items|map('attr', '__class__')|list }}",
    "map of a made up filter": "{{ items|map('@path')|list }}",
    "map of an inner filter": "{{ items|map('@item', 0, 'x')|join }}",
    "select by attribute": "{{ items|selectattr('__class__.__mro__')|first }}",
    "sort by attribute": "{{ items|sort(attribute='__class__.__mro__') }}",
    "group by attribute": "{{ items|groupby('__class__') }}",
    "sum of attributes": "{{ items|sum(attribute='__class__') }}",
    "unique by attribute": "{{ items|unique(attribute='__class__')|first }}{{ text.__dict__ }}",
    "xmlattr": "{{ {'a\" onload=\"x': 1}|xmlattr }}",
    "pprint": "{{ user|pprint }}",
    "random": "{{ items|random }}",
    "wordwrap": "{{ text|wordwrap(1, wrapstring='x' * 9) }}",
    "urlize": "{{ 'http://x'|urlize(target='\" onclick=x') }}",
    "filesizeformat": "{{ 10|filesizeformat }}",
    "test of a filter": "{{ 'x' is filter }}",
    "test of a test": "{{ 'x' is test }}",
    "test of callable": "{{ text is callable }}",
    "test with a class": "{{ text is sameas(text.__class__) }}",
    # What Jinja and frameworks bring along.
    "config": "{{ config }}",
    "config item": "{{ config['SECRET_KEY'] }}",
    "request": "{{ request.application.__globals__ }}",
    "session": "{{ session.keys() }}",
    "g": "{{ g.pop.__globals__ }}",
    "url_for": "{{ url_for.__globals__ }}",
    "get_flashed_messages": "{{ get_flashed_messages.__globals__ }}",
    "lipsum": "{{ lipsum() }}",
    "lipsum globals": "{{ lipsum['__globals__']['os'].popen('id').read() }}",
    "cycler": "{{ cycler('a', 'b').next() }}",
    "cycler globals": "{{ cycler.next.__globals__.os }}",
    "joiner": "{{ joiner(',')() }}",
    "joiner globals": "{{ joiner.__init__.__globals__ }}",
    "namespace": "{% set n = namespace() %}{{ n }}",
    "namespace attribute": "{% set n = namespace() %}{% set n.a = 1 %}",
    "dict": "{{ dict(a=1) }}",
    "self": "{{ self }}{{ self._TemplateReference__context }}",
    "self by set": "{% set s = self %}{{ s.__init__ }}",
    "caller": "{{ caller() }}",
    "varargs": "{{ varargs }}",
    "super": "{{ super() }}",
    "context": "{{ context.environment }}",
    "environment": "{{ environment.from_string('x') }}",
    "undefined": "{{ nothing.__class__.__init__.__globals__ }}",
    "undefined alone": "{{ nothing._undefined_hint }}",
    "loop of undefined": "{% for a in nothing.__iter__.__globals__ %}{% endfor %}",
    "loop context": "{% for a in items %}{{ loop.__class__ }}{% endfor %}",
    "loop internals": "{% for a in items %}{{ loop._iterable }}{% endfor %}",
    "loop by item": "{% for a in items %}{{ loop['_iterator'] }}{% endfor %}",
    "loop by computed item": "{% for a in items %}{{ loop['_iter' ~ 'ator'] }}{% endfor %}",
    "loop printed": "{% for a in items %}{{ loop }}{% endfor %}",
    "loop as json": "{% for a in items %}{{ loop|tojson }}{% endfor %}",
    "loop kept": "{% for a in items %}{% set l = loop %}{{ l.cycle.__globals__ }}{% endfor %}",
    "loop cycle as value": "{% for a in items %}{{ loop.cycle }}{% endfor %}",
    "loop cycle spread": "{% for a in items %}{{ loop.cycle(*items) }}{% endfor %}",
    "loop changed": "{% for a in items %}{{ loop.changed(a) }}{% endfor %}",
    "loop called": "{% for a in items recursive %}{{ loop(items) }}{% endfor %}",
    "markup": "{{ ('x'|safe).__html__() }}",
    "markup format": "{{ ('{0.__class__}'|safe).format(user) }}",
    "markup by escape": "{{ ('<'|e).unescape() }}",
    # Calls, definitions, other files.
    "method that reads": "{{ text.encode() }}",
    "method that splits": "{{ text.split('b') }}",
    "method that pads": "{{ text.ljust(999999999) }}",
    "method that translates": "{{ text.translate({97: 'x' * 999}) }}",
    "method that pops": "{{ items.pop() }}",
    "method that appends": "{{ items.append(3) }}",
    "method that updates": "{{ user.update(a=1) }}",
    "method that clears": "{% set _ = user.clear() %}",
    "method that sets a default": "{{ user.setdefault('a', 1) }}",
    "method with names": "{{ user.get(key='name') }}",
    "method with a spread": "{{ user.get(*items) }}",
    "range with names": "{{ range(stop=3)|list }}",
    "range with a spread": "{{ range(*items) }}",
    "import": "{% import 'os' as os %}{{ os.system('id') }}",
    "import from": "{% from 'os' import system %}",
    "extends": "{% extends '/etc/passwd' %}",
    "block": "{% block a %}{{ super() }}{% endblock %}",
    "include of a file": "{% include '/etc/passwd' %}",
    "include of a path": "{% include '../../secrets' %}",
    "include of a variable": "{% include text %}",
    "include of a list": "{% include ['a', 'b'] ignore missing %}",
    "include of an expression": "{% include 'a' if n else 'b' %}",
    "macro": "{% macro m() %}x{% endmacro %}{{ m() }}",
    "macro globals": "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "call block": "{% call text() %}x{% endcall %}",
    "filter block": "{% filter upper %}x{% endfilter %}",
    "set block": "{% set a %}x{% endset %}{{ a }}",
    "with": "{% with a = 1 %}{{ a }}{% endwith %}",
    "autoescape off": "{% autoescape false %}{{ text }}{% endautoescape %}",
    "do": "{% do items.append(1) %}",
    "break": "{% for a in items %}{% break %}{% endfor %}",
    "translation block": "{% trans %}x{% endtrans %}",
    "debug": "{% debug %}",
    "print statement": "{% print text.__class__ %}",
    "line statement": "{%- set os = __import__('os') -%}",
    "dunder name": "{{ __import__('os').system('id') }}",
    "dunder target": "{% set __class__ = 1 %}",
    "dunder loop": "{% for __a in items %}{% endfor %}",
    "loop as target": "{% set loop = 1 %}",
    "lambda": "{{ (lambda: 1)() }}",
    "walrus": "{{ (a := 1) }}",
    "comprehension": "{{ [a for a in items] }}",
    "chained comparison": "{{ 1 < n < 5 }}",
    # Time and memory.
    "power of powers": "{{ 10**10**10 }}",
    "negative power": "{{ 10 ** -10 ** 10 }}",
    "power of a text": "{{ 'a' ** 99 }}",
    "product of a text": "{{ 'a' * 999999999999 }}",
    "product of a list": "{{ items * 999999999 }}",
    "product of numbers": "{% set a = 9999999999 %}{{ a * a * a * a }}",
    "large number": "{{ 99999999999999999999999999999999 }}",
    "number of digits": "{{ " + "9" * 50_000 + " }}",
    "float to the end": "{{ 1e308 * 10 }}{{ (1e308 * 10)|int }}{{ 1e400 }}",
    "huge range": "{{ range(10**9)|length }}",
    "huge plain range": "{% for a in range(999999999) %}{% endfor %}",
    "range beyond numbers": "{{ range(99999999999999) }}",
    "huge range in reverse": "{{ range(999999999)|reverse|first }}",
    "range of ranges": FOR * 3 + END * 3,
    "loops in loops": (FOR + "{% for b in range(900) %}") + "{{ a }}" + END * 2,
    "loop with a loop in its condition": "{% for a in range(5000) if range(5000)|sum > a %}{% endfor %}",
    "doubling by joining": "{% set a = 'ab' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "doubling by adding": "{% set a = 'ab' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "doubling by replacing": "{% set a = 'a' * 1 %}" + "{% set a = 'aa'|replace('a', 'aa') %}" * 2 + "{{ a.x }}",
    "doubling by lists": "{% set a = [1] %}" + "{% set a = a + a %}" * 40 + "{{ a|length }}",
    "doubling by nesting": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a|tojson }}",
    "comparing mazes": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{% set b = [a, a] %}{{ a == b }}{{ a|tojson }}",
    "joining by itself": "{% set a = 'abcdefgh' * 1 %}{{ a.x }}" + "{% set a = [a, a]|join(a) %}" * 30,
    "center": "{{ text|center(999999999) }}",
    "indent": "{{ text|indent(999999999) }}",
    "truncate": "{{ text|truncate(2, false, 'x' ~ 'y' ~ 'z' ~ 'w') }}{{ text|truncate(-1) }}",
    "batch": "{{ items|batch(999999999, 0)|list }}",
    "slice": "{{ items|slice(999999999)|list }}",
    "format width": "{{ '%999999999d' % n }}",
    "format precision": "{{ '%.999999999f' % 1.5 }}",
    "format filter width": "{{ '%99999999999s'|format(text) }}",
    "round": "{{ 1.5|round(99999) }}",
    "many blanks": "{{" + " " * 200_000 + "}}",
    "many brackets": "{{ " + "(" * 5_000 + ")" * 5_000 + " }}",
    "many lists": "{{ " + "[" * 500 + "]" * 500 + " }}",
    "many mappings": "{{ " + "{'a':" * 500 + "1" + "}" * 500 + " }}",
    "many negations": "{{ " + "not " * 2_000 + "n }}",
    "many signs": "{{ " + "-" * 2_000 + "n }}",
    "many filters": "{{ text" + "|lower" * 2_000 + " }}",
    "many tests": "{{ " + " and ".join(["n is even"] * 3_000) + " }}",
    "many steps of a path": "{{ user" + ".a" * 2_000 + " }}",
    "many conditions": "{% if n %}" * 200 + "{% endif %}" * 200,
    "many elifs": "{% if a %}" + "{% elif n %}" * 5_000 + "{% endif %}",
    "many prints": "{{ n }}" * 5_000,
    "many comments": "{#" * 50_000,
    "many raws": "{% raw %}" * 10_000,
    "half a surrogate": "\ud800",
    "regular expression": "{{ text|regex_replace('(a+)+$', '') }}",
}

HARMLESS: dict[str, str] = {
    "a key that looks like Python": "{{ user['name'] }}",
    "raw": "{% raw %}{{ 7*7 }}{{ ''.__class__ }}{% endraw %}",
    "a template in a text": "{{ '{{ 7*7 }}' }}",
    "a comment": "{# {{ ''.__class__ }} #}x",
    "an expression of other engines": "${7*7} #{7*7} <%= 7*7 %> {7*7} [[7*7]] @(7*7) *{7*7}",
    "an expression of other languages": "$(id) `id` ; ls | cat && x",
    "arithmetic": "{{ 7*7 }}",
    "a text of underscores": "{{ '__class__' }}",
    "upper case of underscores": "{{ '__class__'|upper }}",
    "an include in a text": "{{ '{% include \"x\" %}' }}",
    "a missing default": "{{ nothing|default('__mro__') }}",
    "a filter by its name": "{{ ['a', 'b']|map('upper')|join }}",
}
EXPECTED = {
    "a key that looks like Python": "Ann",
    "raw": "{{ 7*7 }}{{ ''.__class__ }}",
    "a template in a text": "{{ 7*7 }}",
    "a comment": "x",
    "an expression of other engines": "${7*7} #{7*7} <%= 7*7 %> {7*7} [[7*7]] @(7*7) *{7*7}",
    "an expression of other languages": "$(id) `id` ; ls | cat && x",
    "arithmetic": "49",
    "a text of underscores": "__class__",
    "upper case of underscores": "__CLASS__",
    "an include in a text": '{% include "x" %}',
    "a missing default": "__mro__",
    "a filter by its name": "AB",
}

VALUES: dict[str, Any] = {
    "an expression": "{{ 7*7 }}",
    "a class walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a statement": "{% for a in range(999999999) %}{% endfor %}",
    "an include": '{% include "base" %}',
    "a comment": "{# x #}",
    "a raw block": "{% endraw %}{{ 1 }}",
    "a format text": "{0.__class__} %(a)s %s %n",
    "a script": "<script>alert(1)</script>",
    "an attribute": '" onmouseover="alert(1)',
    "an attribute in single quotes": "' autofocus onfocus='alert(1)",
    "an end of a tag": "</p></body><img src=x onerror=alert(1)>",
    "an entity": "&lt;script&gt;",
    "a header": "x\r\nBcc: eve@example.org",
    "a header by a bare line feed": "x\nBcc: eve@example.org",
    "a header by a bare carriage return": "x\rBcc: eve@example.org",
    "a header by a vertical tab": "x\x0bBcc: eve@example.org",
    "a header by a separator": "x\u2028Bcc: eve@example.org",
    "a header by a next line": "x\x85Bcc: eve@example.org",
    "an end of a mail": "x\r\n.\r\nMAIL FROM:<eve@example.org>",
    "an escape sequence": "\x1b[2J",
    "a null": "a\0b",
    "half a surrogate": "a\udc00",
    "a turn of direction": "\u202egnp.exe",
    "a long text": "x" * 400_000,
    "a longer text": "x" * 700_000,
    "many combining marks": "a" + "\u0301" * 10_000,
    "a list": ["{{ 7*7 }}"],
    "a mapping": {"__class__": "x", "__html__": "<b>"},
    "a large number": 10**400,
    "not a number": float("nan"),
    "nothing": None,
    "nested": [[[[[[["x"]]]]]]],
}


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """What comes of it; an error is checked for being one of ours that leads nowhere and repeats no content."""
    try:
        return function(*arguments)
    except TemplateError as error:
        failed = error
    assert failed.code in MEANINGS
    assert failed.__cause__ is failed.__context__ is None
    assert failed.name is None or len(failed.name) <= 64
    assert "Ann" not in f"{failed} {failed.problem('/x')}"
    return failed


def rendered(source: str, content_type: str, variables: Mapping[str, Any]) -> Any:
    return outcome(lambda: render(compile_template(source, content_type), variables))


def payload_with(template: Template, library: Mapping[str, Layout], variables: Mapping[str, Any]) -> Any:
    return outcome(lambda: CompiledTemplate.of(template, library=library).render_payload(variables))


def test_the_corpus_is_large_enough_to_mean_something() -> None:
    assert len(ESCAPES) + len(HARMLESS) + len(VALUES) >= 200


@pytest.mark.parametrize("trick", sorted(ESCAPES))
def test_a_trick_ends_in_a_clear_error(trick: str) -> None:
    assert isinstance(rendered(ESCAPES[trick], HTML, VARIABLES), TemplateError)
    assert isinstance(rendered(ESCAPES[trick], PLAIN, VARIABLES), TemplateError)


@pytest.mark.parametrize("trick", sorted(ESCAPES))
def test_a_trick_ends_in_the_same_way_in_a_layout(trick: str) -> None:
    """Around the content or included, however deep, with the limits of the whole."""
    source = ESCAPES[trick]
    layouts = {
        "base": Layout("base", source + "{{ content }}", None, True),
        "part": Layout("part", source, None),
        "outer": Layout("outer", '{% include "part" %}', None),
    }

    assert isinstance(payload_with(evolve(SMS, parts={"layout": "base"}), layouts, VARIABLES), TemplateError)
    assert isinstance(payload_with(evolve(SMS, body_template='{% include "outer" %}'), layouts, VARIABLES), TemplateError)


@pytest.mark.parametrize("trick", sorted(HARMLESS))
def test_what_only_looks_like_a_trick_is_a_text(trick: str) -> None:
    assert rendered(HARMLESS[trick], PLAIN, VARIABLES) == EXPECTED[trick]


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_value_is_never_more_than_a_value(name: str) -> None:
    """It is printed as it is, escaped in HTML, or refused; it makes no second line of a subject or title."""
    value = VALUES[name]
    for template, recipient in ((MAIL, "ann@example.org"), (PUSH, "token")):
        payload = payload_with(template, {}, {"a": value})
        if isinstance(payload, TemplateError):
            assert not isinstance(value, str) or value not in str(payload)
            continue
        printed = str(value) + ("\u202c" if name == "a turn of direction" else "")  # what is open is closed behind it
        line = payload.get("subject", payload.get("title"))
        assert payload["text"] == printed
        assert payload.get("data", {"x": printed}) == {"x": printed}
        assert line == printed
        assert printed.splitlines() == [printed]
        inner = payload.get("html", "<p></p>").removeprefix("<p>").removesuffix("</p>")
        assert not set(inner) & set("<>\"'")
        assert payload_size(payload) <= LIMITS.output_bytes_max
        item = {"channel": template.channel.value, "recipient": recipient, "content": payload}
        assert isinstance(parse_item(item, AcceptLimits(1, 4_000_000)), Item)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_value_is_never_more_than_a_value_to_filters(name: str) -> None:
    uses = {
        "string": ("upper", "title", "striptags", "truncate(50)", "urlencode", "tojson"),
        "iterable": ("length",),
        "number": ("round",),
        "mapping": ("tojson",),
    }
    source = "".join(
        f"{{% if a is {test} %}}{{{{ a|{filter_} }}}}{{% endif %}}" for test, filters in uses.items() for filter_ in filters
    )
    for content_type in (HTML, PLAIN):
        text = rendered(source, content_type, {"a": VALUES[name]})
        assert "49" not in str(text)
        assert "<script" not in str(text) or content_type == PLAIN


@pytest.mark.parametrize(
    "source", ["{{ x|upper }}", "{{ x|tojson }}", "{{ x|join(',') }}", "{% for a in x %}{{ a }}{% endfor %}", "{{ x }}"]
)
def test_a_large_value_costs_what_it_weighs(source: str) -> None:
    for value in ("x" * 600_000, [1] * 600_000, {str(number): number for number in range(60_000)}):
        assert isinstance(rendered(source, PLAIN, {"x": value}), TemplateError)
