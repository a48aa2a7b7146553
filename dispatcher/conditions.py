"""The expressions of rules: conditions on an event, and values taken out of it.

They are the expressions of the template language (``template_language``), compiled and run in the same sandbox within a budget,
so they can neither loop nor reach anything but what they are given. What an event does not have is null here, not an error: a
condition about it is false. Invariant: evaluating ends after bounded work with a value or an :class:`ExpressionError`, and the
error names no content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from inspect import signature
from types import MappingProxyType
from typing import Any, Final, NoReturn, Protocol

from attrs import field, frozen
from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.lexer import TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from dispatcher.condition_values import FILTERS, INTERNAL, TESTS, as_json, operated, signed
from dispatcher.errors import DispatcherError
from dispatcher.localization import NEUTRAL
from dispatcher.problems import Problem
from dispatcher.template_language import rewrite
from dispatcher.template_limits import Budget, Limits, TemplateError
from dispatcher.template_sandbox import Sandbox

NAMES: Final = frozenset({"data", "event"})
"""All that an expression can see."""
LENGTH_MAX: Final = 2_000
"""The most characters of one."""
LIMITS: Final = Limits(source_bytes_max=4 * LENGTH_MAX, nodes_max=300, depth_max=40, steps_max=20_000)
VALUE_LENGTH_MAX: Final = 64 * 1024
"""The longest text or list that may come up while one is evaluated."""

COMPILED_MAX: Final = 2_048
"""Compiled expressions that are remembered: compiling takes half a millisecond, and set-ups are read again and again."""

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "expression_too_long": f"An expression has at most {LENGTH_MAX} characters.",
        "expression_too_complex": "It nests too deeply, has too many parts, or has too large a number.",
        "expression_syntax": "It is not an expression.",
        "expression_name_unknown": "There are only data and event.",
        "expression_forbidden": "It uses something that expressions do not have.",
        "expression_filter_unknown": "It uses a filter that expressions do not have.",
        "expression_test_unknown": "It uses a test that expressions do not have.",
        "expression_arguments_wrong": "A filter or test does not take these arguments.",
        "expression_steps_exceeded": "Evaluating it for this event takes more steps than allowed.",
        "expression_value_too_large": "A value in the course of evaluating it became too large.",
    }
)
"""Every code an error of an expression can have, with a sentence for the person reading."""

_CODES: Mapping[str, str] = MappingProxyType(
    {
        "template_too_large": "expression_too_long",
        "template_too_complex": "expression_too_complex",
        "template_value_too_large": "expression_value_too_large",
        "template_steps_exceeded": "expression_steps_exceeded",
        "template_filter_unknown": "expression_filter_unknown",
        "template_test_unknown": "expression_test_unknown",
    }
)
"""What errors of the template language are called here; the rest is ``expression_forbidden``."""


class ExpressionError(DispatcherError):
    """An expression can not be compiled, or not be evaluated for an event.

    ``code`` is a key of ``MEANINGS``, ``detail`` what stands in the source at fault, if that is known, and ``position`` the
    character of the source where it stands, from 1.
    """

    def __init__(self, code: str, detail: str = "", position: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.position = position

    def __str__(self) -> str:
        return self.code + (f" ({self.detail})" if self.detail else "") + (f" at {self.position}" if self.position else "")

    def problem(self, pointer: str | None = None) -> Problem:
        """The answer for whoever wrote it."""
        said = f" Name: {self.detail}." if self.detail else ""
        where = f" Character {self.position}." if self.position else ""
        return Problem(422, self.code, "The expression can not be used", MEANINGS[self.code] + said + where, pointer)


class Expression(Protocol):
    """A compiled expression. ``source`` is how it was written."""

    @property
    def source(self) -> str:
        """How it was written."""

    def value(self, variables: Mapping[str, Any]) -> Any:
        """What it gives: JSON, None where something is not there. Raises ExpressionError."""

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Whether it is true. Raises ExpressionError."""


@lru_cache(maxsize=COMPILED_MAX)
def compile_expression(source: str) -> Expression:
    """Compile what may stand between ``{{`` and ``}}`` of a template and sees only ``data`` and ``event``.

    Raises ExpressionError, with the place of the fault where that is known.
    """
    compiled = _attempt(source)
    if isinstance(compiled, ExpressionError):
        _raise(compiled)
    return compiled


class _ExpressionSandbox(Sandbox):
    """The sandbox of templates with functions that do not fail."""

    def __init__(self) -> None:
        super().__init__(autoescape=False)
        self.filters = {name: pass_context(function) for name, function in (*FILTERS.items(), *INTERNAL.items())}
        self.tests = {name: pass_context(function) for name, function in TESTS.items()}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator between two values."""
        assert isinstance(context, _Evaluation)
        return operated(context, operator, left, right)

    def call_unop(self, context: Context, operator: str, value: Any) -> Any:
        """A sign before a number."""
        return signed(operator, value)


_SANDBOX: Final = _ExpressionSandbox()


class _Evaluation(Context):
    """One evaluation: what the compiled code, and the functions it calls, look at."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        # Deliberately not the base's, as for templates: what it builds is the same every time.
        self.parent = {name: variables.get(name) for name in NAMES}
        self.vars = {}
        self.exported_vars = set()
        self.environment = _SANDBOX
        self.eval_ctx = _SANDBOX.eval_ctx
        self.budget = Budget(LIMITS.steps_max, VALUE_LENGTH_MAX)
        self.autoescape = False
        self.localization = NEUTRAL
        self.rtl = False
        self.constants: frozenset[str] = frozenset()

    def resolve_or_missing(self, key: str) -> Any:
        """One of the two names there are."""
        return self.parent[key]


@frozen
class _Compiled:
    """One expression, ready to evaluate. Two are the same when their sources are."""

    source: str
    _weight: int = field(eq=False, repr=False)
    _template: JinjaTemplate = field(eq=False, repr=False)

    def value(self, variables: Mapping[str, Any]) -> Any:
        found = self._evaluated(variables)
        if isinstance(found, ExpressionError):
            _raise(found)
        return found

    def holds(self, variables: Mapping[str, Any]) -> bool:
        return bool(self.value(variables))

    def _evaluated(self, variables: Mapping[str, Any]) -> Any:
        context = _Evaluation(variables)
        try:
            context.budget.charge(self._weight)
            for _ in self._template.root_render_func(context):
                pass
            return as_json(context.vars[_RESULT])
        except TemplateError as error:
            return ExpressionError(_CODES.get(error.code, "expression_value_too_large"))
        except (RecursionError, MemoryError):
            return ExpressionError("expression_value_too_large")


_RESULT: Final = "result"


class _Source:
    """A source while it is read: ``offset`` is where the token stands that was taken from it last."""

    def __init__(self, source: str) -> None:
        self.offset = 0
        self._source = source

    def parse(self) -> nodes.Expr:
        parser = Parser(_SANDBOX, "", state="variable")
        parser.stream = TokenStream(_SANDBOX.lexer.wrap(self._tokens()), None, None)
        found = parser.parse_expression()
        if not parser.stream.eos:
            raise TemplateSyntaxError("more than one expression", 1)
        return found

    def _tokens(self) -> Iterator[tuple[int, str, str]]:
        end = 0
        for line, kind, text in _SANDBOX.lexer.tokeniter(self._source, None, None, "variable"):
            start = max(self._source.find(text, end), end)
            end = start + len(text)
            if kind != "whitespace":
                self.offset = start
            yield line, kind, text
            self.offset = end  # until the next is known: what follows may be what can not be read
        self.offset = end


def _attempt(source: str) -> _Compiled | ExpressionError:
    if len(source) > LENGTH_MAX:
        return ExpressionError("expression_too_long")
    reading = _Source(source)
    try:
        found = reading.parse()
        checked = nodes.Template(
            [nodes.Assign(nodes.Name(_RESULT, "store", lineno=1), _Checked().visit(found), lineno=1)], lineno=1
        )
        program = rewrite(checked, LIMITS)
        program.tree.set_environment(_SANDBOX)
        code = _SANDBOX.compile(program.tree, filename="<expression>")
        return _Compiled(source, program.weight, JinjaTemplate.from_code(_SANDBOX, code, {}))
    except ExpressionError as error:
        return ExpressionError(error.code, error.detail, _place(source, error.detail))
    except TemplateError as error:
        code_ = "expression_too_complex" if error.code == "template_value_too_large" else _CODES.get(error.code)
        return ExpressionError(code_ or "expression_forbidden", error.name or "", _place(source, error.name or ""))
    except TemplateSyntaxError:
        return ExpressionError("expression_syntax", position=reading.offset + 1)
    except (RecursionError, MemoryError, SyntaxError, OverflowError):
        return ExpressionError("expression_too_complex")
    except Exception:  # what Jinja leaves to Python: a number with thousands of digits
        return ExpressionError("expression_syntax", position=reading.offset + 1)


def _place(source: str, detail: str) -> int | None:
    """Where the thing at fault first stands, if it stands there as it is called."""
    return source.find(detail) + 1 or None if detail else None


class _Checked(NodeTransformer):
    """What expressions have less than the template language: no calls, no other names, only the filters and tests of ours."""

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802 - named after the node
        if node.name not in NAMES:
            raise ExpressionError("expression_name_unknown", _shown(node.name))
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        raise ExpressionError("expression_forbidden", "(")

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        if isinstance(node.value, str):
            try:
                node.value.encode()
            except UnicodeEncodeError:  # half of a surrogate pair
                raise ExpressionError("expression_syntax") from None
            if "\0" in node.value:  # Postgres stores every character but this one
                raise ExpressionError("expression_syntax")
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        """JSON has lists only."""
        return self.generic_visit(nodes.List(node.items, lineno=node.lineno))

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        if not all(isinstance(pair.key, nodes.Const) and isinstance(pair.key.value, str) for pair in node.items):
            raise ExpressionError("expression_forbidden", "{")
        return self.generic_visit(node)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:  # noqa: N802
        """Without an else it is null, not the empty text of templates."""
        node.expr2 = node.expr2 or nodes.Const(None, lineno=node.lineno)
        return self.generic_visit(node)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        if node.name not in FILTERS:
            raise ExpressionError("expression_filter_unknown", _shown(node.name))
        return self._with_arguments(node, FILTERS[node.name])

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        if node.name not in TESTS:
            raise ExpressionError("expression_test_unknown", _shown(node.name))
        return self._with_arguments(node, TESTS[node.name])

    def _with_arguments(self, node: nodes.Filter | nodes.Test, function: Any) -> nodes.Node:
        """Arguments that a function does not take would give null for every event, so they are refused here."""
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise ExpressionError("expression_forbidden", "*")
        self._bound(function, node.name, *node.args, **{str(keyword.key): keyword for keyword in node.kwargs})
        if node.name in ("selectattr", "rejectattr") and len(node.args) > 1:
            test = node.args[1]
            if not isinstance(test, nodes.Const) or test.value not in TESTS:
                raise ExpressionError("expression_test_unknown", _shown(str(getattr(test, "value", node.name))))
            self._bound(TESTS[test.value], node.name, *node.args[2:])
        return self.generic_visit(node)

    def _bound(self, function: Any, called: str, /, *arguments: nodes.Node, **keywords: nodes.Node) -> None:
        try:
            signature(function).bind(None, None, *arguments, **keywords)
        except TypeError:
            raise ExpressionError("expression_arguments_wrong", _shown(called)) from None


def _shown(name: str) -> str:
    return name if len(name) <= 64 else name[:61] + "..."


def _raise(error: ExpressionError) -> NoReturn:
    """Raise an error cut off from what led to it, which may hold content."""
    error.__cause__ = error.__context__ = None
    raise error.with_traceback(None)
