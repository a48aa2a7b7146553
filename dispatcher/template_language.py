"""Which part of Jinja templates have: the allow-list, and the rewriting of what is on it.

A template's syntax tree is walked once, when it is compiled. A node that is not on the list refuses the whole template; so
there are no macros, blocks, imports, inheritance or namespaces, no calls but of a few known functions, and no way to recurse.
What is allowed is rewritten so that nothing is left to Python: reading ``a.b`` becomes a lookup in mappings, a comparison, a
concatenation and every print become functions of ours, and a loop pays in advance for all its rounds. The cost of a round is
the number of nodes in its body, so steps measure work whatever a template's shape. Invariant: the rewritten tree holds no
attribute access but on ``loop`` and no call but ``loop.cycle``, and evaluating it takes time bounded by its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from attrs import frozen
from jinja2 import nodes

from dispatcher.template_filters import FILTERS
from dispatcher.template_formats import FORMATS, UNKNOWN, check_arguments
from dispatcher.template_includes import CONTENT, Texts
from dispatcher.template_limits import Limits, TemplateError
from dispatcher.template_places import Places
from dispatcher.template_tests import TESTS
from dispatcher.template_values import INTEGER_END

LOOP_NAMES: Final = frozenset(
    {"cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0"}
)
"""What a template may ask of ``loop``."""
INTERNAL: Final = ("@compare", "@concat", "@each", "@get", "@item", "@path", "@print", "@range", "@slice", "@speech", "@t")
"""Filters that only the rewriting uses; their names can not be written in a template."""

_FORBIDDEN_NAMES: Final = frozenset({"self", "super", "caller", "varargs", "kwargs"})


@frozen
class Program:
    """A rewritten template. ``weight`` is what everything outside loops costs, ``constants`` are the texts in its expressions.

    ``fixed`` is the text that it prints whatever the variables, ``wraps`` whether it has a place for a content. ``keys`` are the
    messages that it takes from catalogues, each with the names of the arguments it gives it.
    """

    tree: nodes.Template
    weight: int
    constants: frozenset[str]
    fixed: str
    wraps: bool
    keys: frozenset[tuple[str, frozenset[str]]]


def rewrite(
    tree: nodes.Template,
    limits: Limits,
    texts: Texts | None = None,
    content: Sequence[nodes.Node] | None = None,
    html: bool = False,
    is_data: bool = False,
) -> Program:
    """Check a parsed template and rewrite it. Raises TemplateError for what is not on the list.

    ``texts`` has what it may include. ``content`` is given for a layout: what stands in place of ``{{ content }}``.
    ``is_data`` is for what programs read.
    """
    alone = is_data or (content is None and _is_one_print(tree))
    rewriter = _Rewriter(limits, texts, content, Places(html, alone))
    body = [rewriter.statement(child) for child in tree.body]
    return Program(
        nodes.Template(body, lineno=1),
        rewriter.weight,
        frozenset(rewriter.constants),
        "".join(rewriter.fixed),
        rewriter.wraps,
        frozenset(rewriter.keys),
    )


def _is_one_print(tree: nodes.Template) -> bool:
    match tree.body:
        case [nodes.Output(nodes=[child])]:
            return not isinstance(child, nodes.TemplateData)
        case _:
            return False


class _Rewriter:
    """One walk. ``weight`` counts the nodes of the innermost loop body being walked, ``_total`` all of them."""

    def __init__(self, limits: Limits, texts: Texts | None, content: Sequence[nodes.Node] | None, places: Places) -> None:
        self.weight = 0
        self.constants: set[str] = set()
        self.fixed: list[str] = []
        self.wraps = False
        self.keys: set[tuple[str, frozenset[str]]] = set()
        self._places = places
        self._texts = texts
        self._content = content
        self._content_is_variable = content is None
        self._conditions = 0
        self._limits = limits
        self._total = 0
        self._depth = 0
        self._in_loop = False

    def statement(self, node: nodes.Node) -> nodes.Node:
        """One statement, rewritten."""
        return self._walk(node, _STATEMENTS)  # type: ignore[no-any-return]

    def expression(self, node: nodes.Node) -> nodes.Expr:
        """One expression, rewritten."""
        return self._walk(node, _EXPRESSIONS)  # type: ignore[no-any-return]

    def _walk(self, node: nodes.Node, table: Mapping[type[nodes.Node], Callable[[_Rewriter, Any], Any]]) -> Any:
        self._total += 1
        self.weight += 1
        self._depth += 1
        if self._depth > self._limits.depth_max or self._total > self._limits.nodes_max:
            raise TemplateError("template_too_complex", line=node.lineno)
        rewrite_ = table.get(type(node))
        if rewrite_ is None:
            raise _forbidden(node, _construct(node))
        rewritten = rewrite_(self, node)
        self._depth -= 1
        return rewritten

    def _all(self, children: Sequence[nodes.Node]) -> list[nodes.Expr]:
        return [self.expression(child) for child in children]

    def _statements(self, children: Sequence[nodes.Node]) -> list[nodes.Node]:
        return [self.statement(child) for child in children]

    # Statements

    def output(self, node: nodes.Output) -> nodes.Node:
        if self._content is not None and self._depth == 1:
            for place, child in enumerate(node.nodes):
                if isinstance(child, nodes.Name) and child.name == CONTENT:
                    return self._around(node, place, self._content)
        children: list[nodes.Expr] = []
        for child, following in zip(node.nodes, (*node.nodes[1:], None), strict=False):
            if isinstance(child, nodes.TemplateData):
                if not self._conditions:
                    self.fixed.append(child.data)
                self._places.feed(child.data)
                children.append(child)
            else:
                where = self._places.place(following.data if isinstance(following, nodes.TemplateData) else "")
                name = _const(_name(child), child)
                children.append(_call("@print", self.expression(child), name, _const(where, child)))
        return nodes.Output(children, lineno=node.lineno)

    def _around(self, node: nodes.Output, place: int, content: Sequence[nodes.Node]) -> nodes.Node:
        """A print of a layout that has the content in it, which sees ``content`` as a variable like any other."""
        self.wraps, self._content = True, None
        before = self.output(nodes.Output(node.nodes[:place], lineno=node.lineno))
        self._content_is_variable = True
        within = nodes.Scope(self._statements(content), lineno=node.lineno)
        self._content_is_variable = False
        after = self.output(nodes.Output(node.nodes[place + 1 :], lineno=node.lineno))
        return nodes.Scope([before, within, after], lineno=node.lineno)

    def include(self, node: nodes.Include) -> nodes.Node:
        """What it names, in a scope of its own: what is set there stays there."""
        if self._texts is None:
            raise _forbidden(node, "include")
        content, self._content = self._content, None
        was_variable, self._content_is_variable = self._content_is_variable, False
        with self._texts.inclusion(node) as body:
            statements = self._statements(body)
        self._content, self._content_is_variable = content, was_variable
        return nodes.Scope(statements, lineno=node.lineno)

    def if_(self, node: nodes.If) -> nodes.Node:
        test = self.expression(node.test)
        self._conditions += 1
        body, others, otherwise = self._statements(node.body), self._statements(node.elif_), self._statements(node.else_)
        self._conditions -= 1
        return nodes.If(test, body, others, otherwise, lineno=node.lineno)

    def for_(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise _forbidden(node, "recursive")
        iterable = self.expression(node.iter)
        around, self.weight = (self.weight, self._in_loop), 1
        target = self._target(node.target)
        test = None if node.test is None else self.expression(node.test)
        self._in_loop = True
        self._conditions += 1
        body = self._statements(node.body)
        weight = self.weight
        self.weight, self._in_loop = around
        paid = _call("@each", iterable, _const(weight, node))
        otherwise = self._statements(node.else_)
        self._conditions -= 1
        return nodes.For(target, paid, body, otherwise, test, False, lineno=node.lineno)

    def assign(self, node: nodes.Assign) -> nodes.Node:
        return nodes.Assign(self._target(node.target), self.expression(node.node), lineno=node.lineno)

    def _target(self, node: nodes.Node) -> nodes.Expr:
        if isinstance(node, nodes.Tuple):
            return nodes.Tuple([self._target(item) for item in node.items], "store", lineno=node.lineno)
        if not isinstance(node, nodes.Name):
            raise _forbidden(node, _construct(node))
        return nodes.Name(_allowed(node, node.name, also_forbidden="loop"), "store", lineno=node.lineno)

    # Expressions

    def const(self, node: nodes.Const) -> nodes.Expr:
        value = node.value
        if isinstance(value, str):
            self.constants.add(value)
        elif isinstance(value, int | float) and not -INTEGER_END < value < INTEGER_END:
            raise TemplateError("template_value_too_large", line=node.lineno)
        return _const(value, node)

    def name(self, node: nodes.Name) -> nodes.Expr:
        if node.name == CONTENT and not self._content_is_variable:
            raise TemplateError("template_layout_content", line=node.lineno)
        return nodes.Name(_allowed(node, node.name), "load", lineno=node.lineno)

    def sequence(self, node: nodes.List | nodes.Tuple) -> nodes.Expr:
        items = self._all(node.items)
        return nodes.Tuple(items, "load", lineno=node.lineno) if isinstance(node, nodes.Tuple) else _list(items, node)

    def mapping(self, node: nodes.Dict) -> nodes.Expr:
        pairs = [nodes.Pair(self.expression(pair.key), self.expression(pair.value), lineno=pair.lineno) for pair in node.items]
        return nodes.Dict(pairs, lineno=node.lineno)

    def condition(self, node: nodes.CondExpr) -> nodes.Expr:
        # Jinja's value of an absent else is undefined, which would be an error here; nobody who leaves it out means that.
        otherwise = _const("", node) if node.expr2 is None else self.expression(node.expr2)
        return nodes.CondExpr(self.expression(node.test), self.expression(node.expr1), otherwise, lineno=node.lineno)

    def filter(self, node: nodes.Filter) -> nodes.Expr:
        if node.name == "t":
            return self._message(node)
        self._check_format(node)
        if node.name not in FILTERS or node.node is None:
            raise TemplateError("template_filter_unknown", _shown(node.name), node.lineno)
        return nodes.Filter(self.expression(node.node), node.name, *self._arguments(node), lineno=node.lineno)

    def _message(self, node: nodes.Filter) -> nodes.Expr:
        if not (isinstance(node.node, nodes.Const) and isinstance(node.node.value, str)) or node.args:
            raise TemplateError("template_message_key", line=node.lineno)
        _, keywords, _, _ = self._arguments(node)
        self.keys.add((node.node.value, frozenset(str(keyword.key) for keyword in keywords)))
        return nodes.Filter(self.expression(node.node), "@t", [], keywords, None, None, lineno=node.lineno)

    def _check_format(self, node: nodes.Filter) -> None:
        """What is known of the arguments of a filter that formats, or of one that ``map`` applies."""
        match node.name, node.args:
            case "map", [nodes.Const(value=str() as name), *arguments]:
                pass
            case name, arguments:
                pass
        if name in FORMATS:
            try:
                keywords = {str(each.key): _known(each.value) for each in node.kwargs}
                check_arguments(name, [_known(each) for each in arguments], keywords)
            except TemplateError as error:
                raise error.at(node.lineno) from None

    def test(self, node: nodes.Test) -> nodes.Expr:
        if node.name not in TESTS:
            raise TemplateError("template_test_unknown", _shown(node.name), node.lineno)
        return nodes.Test(self.expression(node.node), node.name, *self._arguments(node), lineno=node.lineno)

    def _arguments(self, node: nodes.Filter | nodes.Test) -> tuple[list[nodes.Expr], list[nodes.Keyword], None, None]:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise _forbidden(node, "unpacking")
        keywords = [nodes.Keyword(keyword.key, self.expression(keyword.value), lineno=keyword.lineno) for keyword in node.kwargs]
        return self._all(node.args), keywords, None, None

    def call(self, node: nodes.Call) -> nodes.Expr:
        called = node.node
        if node.kwargs or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise TemplateError("template_call_forbidden", _shown(_name(called)), node.lineno)
        arguments = self._all(node.args)
        match called:
            case nodes.Name(name="dir" | "locale" as asked) if not arguments:
                return _call("@speech", _const(asked, node))
            case nodes.Name(name="range") if 1 <= len(arguments) <= 3:
                return _call("@range", *arguments)
            case nodes.Getattr(attr="cycle") if self._is_loop(called.node) and arguments:
                return nodes.Call(self.attribute(called), arguments, [], None, None, lineno=node.lineno)
            case nodes.Getattr(attr="items" | "keys" | "values") if not arguments:
                return _call(called.attr, self.expression(called.node))
            case nodes.Getattr(attr="get") if 1 <= len(arguments) <= 2:
                return _call("@get", self.expression(called.node), *arguments)
            case _:
                raise TemplateError("template_call_forbidden", _shown(_name(called)), node.lineno)

    def attribute(self, node: nodes.Getattr) -> nodes.Expr:
        if not self._is_loop(node.node):
            return self._path(node, _allowed(node, node.attr))
        if node.attr not in LOOP_NAMES:
            raise TemplateError("template_attribute_forbidden", _shown(node.attr), node.lineno)
        return nodes.Getattr(nodes.Name("loop", "load", lineno=node.lineno), node.attr, "load", lineno=node.lineno)

    def _is_loop(self, node: nodes.Node) -> bool:
        return self._in_loop and isinstance(node, nodes.Name) and node.name == "loop"

    def item(self, node: nodes.Getitem) -> nodes.Expr:
        match node.arg:
            case nodes.Const(value=str() | int() as key):
                return self._path(node, _allowed(node, key) if isinstance(key, str) else key)
            case nodes.Slice() as slice_:
                bounds = [bound or _const(None, node) for bound in (slice_.start, slice_.stop, slice_.step)]
                return _call("@slice", self.expression(node.node), *self._all(bounds))
            case key_node:
                return _call("@item", self.expression(node.node), self.expression(key_node), _const(_name(node), node))

    def _path(self, node: nodes.Getattr | nodes.Getitem, key: str | int) -> nodes.Expr:
        """One constant step. Steps behind one another become one lookup."""
        inner = self.expression(node.node)
        if isinstance(inner, nodes.Filter) and inner.name == "@path":
            first, keys = inner.args
            assert inner.node is not None
            assert isinstance(keys, nodes.Const)
            return _call("@path", inner.node, first, _const((*keys.value, key), node))
        return _call("@path", inner, _const(_name(node.node), node), _const((key,), node))

    def compare(self, node: nodes.Compare) -> nodes.Expr:
        if len(node.ops) != 1:
            raise _forbidden(node, "chained comparison")
        operand = node.ops[0]
        return _call("@compare", self.expression(node.expr), _const(operand.op, node), self.expression(operand.expr))

    def concat(self, node: nodes.Concat) -> nodes.Expr:
        return _call("@concat", _list(self._all(node.nodes), node))

    def binary(self, node: nodes.BinExpr) -> nodes.Expr:
        return type(node)(self.expression(node.left), self.expression(node.right), lineno=node.lineno)

    def unary(self, node: nodes.UnaryExpr) -> nodes.Expr:
        return type(node)(self.expression(node.node), lineno=node.lineno)


_STATEMENTS: Final[Mapping[type[nodes.Node], Callable[[_Rewriter, Any], Any]]] = MappingProxyType(
    {
        nodes.Output: _Rewriter.output,
        nodes.If: _Rewriter.if_,
        nodes.For: _Rewriter.for_,
        nodes.Assign: _Rewriter.assign,
        nodes.Include: _Rewriter.include,
    }
)
_EXPRESSIONS: Final[Mapping[type[nodes.Node], Callable[[_Rewriter, Any], Any]]] = MappingProxyType(
    {
        nodes.Const: _Rewriter.const,
        nodes.Name: _Rewriter.name,
        nodes.List: _Rewriter.sequence,
        nodes.Tuple: _Rewriter.sequence,
        nodes.Dict: _Rewriter.mapping,
        nodes.CondExpr: _Rewriter.condition,
        nodes.Filter: _Rewriter.filter,
        nodes.Test: _Rewriter.test,
        nodes.Call: _Rewriter.call,
        nodes.Getattr: _Rewriter.attribute,
        nodes.Getitem: _Rewriter.item,
        nodes.Compare: _Rewriter.compare,
        nodes.Concat: _Rewriter.concat,
        nodes.And: _Rewriter.binary,
        nodes.Or: _Rewriter.binary,
        nodes.Add: _Rewriter.binary,
        nodes.Sub: _Rewriter.binary,
        nodes.Mul: _Rewriter.binary,
        nodes.Div: _Rewriter.binary,
        nodes.FloorDiv: _Rewriter.binary,
        nodes.Mod: _Rewriter.binary,
        nodes.Not: _Rewriter.unary,
        nodes.Neg: _Rewriter.unary,
        nodes.Pos: _Rewriter.unary,
    }
)
"""The allow-list. ``**`` is not on it, and neither is anything that defines, imports or inherits."""


_CONSTRUCTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AssignBlock": "endset",
        "CallBlock": "call",
        "FilterBlock": "filter",
        "FromImport": "from",
        "NSRef": "attribute of a namespace",
        "Pow": "**",
        "Scope": "autoescape",
    }
)


def _call(filter_name: str, value: nodes.Expr, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, filter_name, list(arguments), [], None, None, lineno=value.lineno)


def _known(node: nodes.Expr) -> Any:
    """The value of an argument, where that is known."""
    return node.value if isinstance(node, nodes.Const) else UNKNOWN


def _const(value: Any, like: nodes.Node) -> nodes.Const:
    return nodes.Const(value, lineno=like.lineno)


def _list(items: list[nodes.Expr], like: nodes.Node) -> nodes.List:
    return nodes.List(items, lineno=like.lineno)


def _name(node: nodes.Node | None) -> str:
    """What to call a value in an error: as its author wrote it, without anything computed."""
    match node:
        case nodes.Name(name=name):
            return str(name)
        case nodes.Getattr(node=inner, attr=attr):
            return f"{_name(inner)}.{attr}"
        case nodes.Getitem(node=inner, arg=nodes.Const(value=value)):
            return f"{_name(inner)}[{value}]"
        case nodes.Getitem(node=inner) | nodes.Filter(node=inner):
            return _name(inner)
        case _:
            return "expression"


def _shown(name: str) -> str:
    return name if len(name) <= 64 else name[:61] + "..."


def _allowed(node: nodes.Node, name: str, also_forbidden: str = "") -> str:
    if name.startswith("__") or name == also_forbidden or (isinstance(node, nodes.Name) and name in _FORBIDDEN_NAMES):
        raise TemplateError("template_attribute_forbidden", _shown(name), node.lineno)
    return name


def _construct(node: nodes.Node) -> str:
    """What a construct is called in a template."""
    name = type(node).__name__
    return _CONSTRUCTS.get(name) or name.lower()


def _forbidden(node: nodes.Node, construct: str) -> TemplateError:
    return TemplateError("template_construct_forbidden", construct, node.lineno)
