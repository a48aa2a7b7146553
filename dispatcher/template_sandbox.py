"""Compiling and running one template source: Jinja as the engine, our language and our functions in it.

Two environments exist, one that escapes for HTML and one for plain text; both are Jinja's immutable sandbox with every seam
through which it would touch Python replaced. That is the second wall: the first is ``template_language``, which lets nothing
through that would need one. Invariant: whatever the source and the variables, ``compile_source`` and ``Compiled.run`` end with
a text or a :class:`TemplateError` after bounded work, and the error has no cause or context that could carry content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Final, NoReturn

from attrs import field, frozen
from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateSyntaxError, meta, nodes, pass_context
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from dispatcher.localization import NEUTRAL, Localization, is_rtl
from dispatcher.template_filters import FILTERS
from dispatcher.template_includes import NO_LIBRARY, Library, Texts, located
from dispatcher.template_language import LOOP_NAMES, rewrite
from dispatcher.template_limits import Budget, Limits, Missing, MissingVariable, TemplateError
from dispatcher.template_places import WORDS
from dispatcher.template_tests import TESTS
from dispatcher.template_values import (
    Rendering,
    compared,
    computed,
    elements,
    joined,
    member,
    number,
    present,
    whole,
    wrong,
)
from dispatcher.template_words import printed, translated

_FILENAME: Final = "<template>"
_TOKENS_PER_NODE: Final = 6  # of a print with blanks in it and a text behind it, which is one node


class RenderContext(Context):
    """One rendering: Jinja's context without its globals, and with what our functions look at."""

    def __init__(self, compiled: Compiled, variables: Mapping[str, Any], budget: Budget, localization: Localization) -> None:
        # Deliberately not the base's: it builds per rendering what is the same for every rendering of an environment.
        self.parent = variables  # type: ignore[assignment]
        self.vars = {}
        self.exported_vars = set()
        self.environment = compiled.environment
        self.eval_ctx = compiled.environment.eval_ctx
        self.budget = budget
        self.autoescape = compiled.environment.eval_ctx.autoescape
        self.constants = compiled.constants
        self.localization = localization
        self.rtl = is_rtl(localization.locale)

    def resolve_or_missing(self, key: str) -> Any:
        """The variable of that name. There are no globals behind the variables."""
        return self.parent.get(key, missing)


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment of which only our functions are left."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    intercepted_unops = frozenset({"+", "-"})

    def __init__(self, autoescape: bool) -> None:
        super().__init__(autoescape=autoescape, undefined=Missing, optimized=False, cache_size=0)
        self.globals.clear()
        # Jinja passes the rendering first to a function that carries this mark.
        self.filters = {name: pass_context(function) for name, function in (*FILTERS.items(), *INTERNAL_FILTERS.items())}
        self.tests = {name: pass_context(function) for name, function in TESTS.items()}
        self.eval_ctx = EvalContext(self)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Only ``loop`` has attributes."""
        if isinstance(obj, LoopContext) and attribute in LOOP_NAMES:
            return getattr(obj, attribute)
        raise TemplateError("template_attribute_forbidden")

    def getitem(self, obj: Any, argument: Any) -> NoReturn:
        """Never: items are read by functions of ours."""
        raise TemplateError("template_attribute_forbidden")

    def call(self, context: Context, function: Any, *arguments: Any, **keywords: Any) -> Any:
        """Only ``loop.cycle`` can be called."""
        if getattr(function, "__func__", None) is not LoopContext.cycle:
            raise TemplateError("template_call_forbidden")
        return function(*arguments)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator between two values."""
        assert isinstance(context, RenderContext)
        return computed(context, operator, left, right)

    def call_unop(self, context: Context, operator: str, value: Any) -> Any:
        """A sign before a number."""
        return -number(value) if operator == "-" else number(value)


def _path(rendering: Rendering, value: Any, name: str, keys: tuple[str | int, ...]) -> Any:
    """Constant steps behind one another, ``name`` being what the value is called."""
    for taken, key in enumerate(keys, 1):
        if isinstance(value, dict) and key in value:
            value = value[key]
            continue
        steps = "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in keys[:taken])
        value = member(value, key, name + steps)
    return value


def _print(rendering: Rendering, value: Any, name: str, place: int = WORDS) -> Any:
    """What a print prints. Null prints nothing anybody would want to read, so it is missing."""
    if isinstance(value, str):
        return value if value.isascii() and not rendering.rtl else printed(rendering, value, place)
    if isinstance(value, int | float):
        shown = number(value)
        return shown if shown >= 0 or not rendering.rtl else printed(rendering, str(shown), place)
    if value is None:
        raise MissingVariable(name)
    present(value)
    raise TemplateError("template_value_unprintable", name)


def _speech(rendering: Rendering, asked: str) -> str:
    """``dir()`` and ``locale()``: of the text, for the attributes of HTML that say so."""
    return rendering.localization.locale if asked == "locale" else "rtl" if rendering.rtl else "ltr"


def _each(rendering: Rendering, value: Any, weight: int) -> Any:
    """What a loop runs over, after all its rounds were paid for."""
    found = elements(rendering, value)
    rendering.budget.charge(len(found) * weight)
    return found


def _range(rendering: Rendering, first: Any, *others: Any) -> list[int]:
    bounds = [whole(bound, -1_000_000_000, 1_000_000_000) for bound in (first, *others)]
    found = range(*bounds)
    rendering.budget.charge(len(found))
    return list(found)


def _slice(rendering: Rendering, value: Any, start: Any, stop: Any, step: Any) -> Any:
    found = value if isinstance(value, str) else elements(rendering, value)
    rendering.budget.allow(len(found))
    return found[start:stop:step]


def _get(_rendering: Rendering, value: Any, key: Any, default: Any = None) -> Any:
    if not isinstance(present(value), dict):
        raise wrong()
    found = member(value, key, "get")
    return default if isinstance(found, Missing) else found


INTERNAL_FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "@compare": compared,
        "@concat": joined,
        "@each": _each,
        "@get": _get,
        "@item": lambda _rendering, value, key, name: member(value, present(key), name),
        "@path": _path,
        "@print": _print,
        "@range": _range,
        "@slice": _slice,
        "@speech": _speech,
        "@t": translated,
    }
)
"""What the rewriting puts in place of attribute access, comparison, concatenation, iteration and printing."""

SANDBOXES: Final[Mapping[bool, Sandbox]] = MappingProxyType({escapes: Sandbox(escapes) for escapes in (False, True)})
"""The two environments, by whether they escape for HTML."""


@frozen
class Compiled:
    """One source, ready to run. ``names`` are the variables it looks up, ``paths`` the constant paths into them.

    ``fixed`` is the text it prints whatever the variables. ``wraps`` and ``includes`` are for layouts, see ``Layout``. ``keys``
    are the messages of catalogues.
    """

    environment: Sandbox = field(repr=False)
    names: frozenset[str]
    weight: int
    constants: frozenset[str] = field(repr=False)
    paths: frozenset[tuple[str | int, ...]] = field(repr=False)
    fixed: str = field(repr=False)
    wraps: bool
    includes: frozenset[str]
    keys: frozenset[tuple[str, frozenset[str]]] = field(repr=False)
    _origins: tuple[str | None, ...] = field(repr=False)
    _template: JinjaTemplate = field(repr=False, eq=False)

    def run(self, variables: Mapping[str, Any], budget: Budget, length_max: int, localization: Localization = NEUTRAL) -> str:
        """Render. Raises TemplateError; its line is that of the source."""
        context = RenderContext(self, variables, budget, localization)
        pieces = []
        left = length_max
        failed: TemplateError | None = None
        try:
            budget.charge(self.weight)
            for piece in self._template.root_render_func(context):
                left -= len(piece)
                if left < 0:
                    failed = TemplateError("template_output_too_large")
                    break
                pieces.append(piece)
        except TemplateError as error:
            failed = located(error.at(self._line(error.__traceback__)), self._origins)
        except Exception as error:
            # A value of a kind that an operation can not take. The text of the error may hold the value, so it goes no further.
            failed = located(TemplateError("template_value_wrong", line=self._line(error.__traceback__)), self._origins)
        if failed is not None:
            _raise(failed)
        return "".join(pieces)

    def _line(self, traceback: TracebackType | None) -> int | None:
        """The line of the source that was being run: that of the innermost frame of compiled code."""
        line = None
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == _FILENAME:
                line = self._template.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return line


def compile_source(
    source: str,
    *,
    escapes: bool,
    limits: Limits,
    library: Library | None = NO_LIBRARY,
    layout: str | None = None,
    is_data: bool = False,
) -> Compiled:
    """Compile a template source, with what it includes of the library, wrapped in the ``layout`` of that name.

    Without a library what it includes is left out. ``is_data`` is for a source whose text programs read: there no value is
    isolated. Raises TemplateError for one that is too large, malformed, or not within the language.
    """
    compiled = _attempt(SANDBOXES[escapes], source, limits, library, layout, is_data=is_data)
    if isinstance(compiled, TemplateError):
        _raise(compiled)
    return compiled


def compile_layout(source: str, *, escapes: bool, limits: Limits) -> Compiled:
    """Compile a source of a layout by itself: the content and what it includes are left out. Raises TemplateError."""
    compiled = _attempt(SANDBOXES[escapes], source, limits, None, None, by_itself=True)
    if isinstance(compiled, TemplateError):
        _raise(compiled)
    return compiled


def _attempt(
    environment: Sandbox,
    source: str,
    limits: Limits,
    library: Library | None,
    layout: str | None,
    by_itself: bool = False,
    is_data: bool = False,
) -> Compiled | TemplateError:
    texts = Texts(
        partial(_parsed, environment, limits.nodes_max * _TOKENS_PER_NODE), environment.eval_ctx.autoescape, limits, library
    )
    try:
        if len(source.encode()) > limits.source_bytes_max:
            raise TemplateError("template_too_large")
        tree, html = texts.tree(source), environment.autoescape is True
        if layout is not None:
            program = rewrite(texts.layout(layout), limits, texts, tree.body, html)
            if not program.wraps:
                raise TemplateError("template_layout_content", layout)
        else:
            program = rewrite(tree, limits, texts, () if by_itself else None, html, is_data)
        program.tree.set_environment(environment)
        names = frozenset(meta.find_undeclared_variables(program.tree))
        code = environment.compile(program.tree, filename=_FILENAME)
        template = JinjaTemplate.from_code(environment, code, {})
        return Compiled(
            environment,
            names,
            program.weight,
            program.constants,
            _paths(program.tree, names),
            program.fixed,
            program.wraps,
            frozenset(texts.included),
            program.keys,
            texts.origins,
            template,
        )
    except TemplateError as error:
        return texts.located(error)
    except TemplateSyntaxError as error:
        return texts.located(TemplateError("template_syntax", line=error.lineno))
    except (RecursionError, MemoryError, SyntaxError, OverflowError):
        return TemplateError("template_too_complex")
    except Exception:  # a lone surrogate, a number with thousands of digits, a list as a key: what Jinja leaves to Python
        return TemplateError("template_syntax")


def _parsed(environment: Sandbox, tokens_max: int, source: str) -> nodes.Template:
    """Parse a source that has no more tokens than a template that is not too complex can have: to parse takes longer."""
    for count, _ in enumerate(environment.lexer.tokeniter(source, None)):
        if count > tokens_max:
            raise TemplateError("template_too_complex")
    return environment.parse(source)


def _paths(tree: nodes.Template, names: frozenset[str]) -> frozenset[tuple[str | int, ...]]:
    """Constant steps into variables. A name that the template also sets somewhere may mean either, so it is left out."""
    own = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    found = set()
    for node in tree.find_all(nodes.Filter):
        if node.name == "@path" and isinstance(node.node, nodes.Name) and node.node.name in names - own:
            found.add((node.node.name, *node.args[1].as_const()))
    return frozenset(found)


def _raise(error: TemplateError) -> NoReturn:
    """Raise an error cut off from what led to it."""
    error.__cause__ = error.__context__ = None
    raise error.with_traceback(None)
